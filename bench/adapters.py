"""What a call to a provider costs the process that makes it: our own conversation against the vendor's library, and
both against nothing but aiohttp and orjson, or httpx2.

    .venv/bin/python -m bench.adapters [--rounds N]

All talk to the upstream of bench/upstream.py, in turns; CPU time of this process alone is counted. A table on the
terminal, and bench/results/adapters.json.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import orjson
import uvloop

from bench import machine
from llmchat.tests.mock_upstream import MockUpstream
from llmchat.tests.servers import PROJECT
from providers.adapters.base import Adapter, ProviderConfig
from providers.adapters.sdk import openai as sdk
from providers.adapters.wire import openai as wire
from providers.values import ChatRequest, Finished, Message

RESULTS = PROJECT / "bench" / "results" / "adapters.json"
CONNECTIONS = 16
CHUNKS = 66
PACKAGES = ("aiohttp", "orjson", "uvloop", "openai", "httpx2")
#: Microseconds of CPU on the machine that the figures were made for; ratios are what counts.
TARGETS = {"wire, whole": 200.0, "wire, a chunk more": 12.0}

Call = Callable[[], Awaitable[None]]


def request(chunks: int, *, whole: bool = False, short: bool = False) -> ChatRequest:
    return ChatRequest(
        model=f"mock-{chunks}?burst=1",
        messages=[Message(role="user", content="What is the capital of France?")],
        max_tokens=100 if short else None,
        whole=whole,
    )


def through(adapter: Adapter, asked: ChatRequest) -> Call:
    """A call whose events are drained, as failover does it."""

    async def call() -> None:
        last = None
        async for event in adapter.stream(asked):
            last = event
        assert isinstance(last, Finished)

    return call


def question(chunks: int, *, stream: bool) -> bytes:
    return orjson.dumps(
        {
            "model": f"mock-{chunks}?burst=1",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "stream": stream,
            "stream_options": {"include_usage": True},
        }
    )


def over_aiohttp(session: aiohttp.ClientSession, url: str, *, chunks: int, stream: bool) -> Call:
    """The least that can be done with it: bytes in, JSON out, and every chunk parsed."""

    async def call() -> None:
        async with session.post(f"{url}/chat/completions", data=question(chunks, stream=stream)) as response:
            if not stream:
                orjson.loads(await response.read())
                return
            async for line in response.content:
                if line.startswith(b"data: {"):
                    orjson.loads(line[6:])

    return call


def over_httpx2(client: httpx2.AsyncClient, url: str) -> Call:
    async def call() -> None:
        orjson.loads((await client.post(f"{url}/chat/completions", content=question(1, stream=False))).content)

    return call


async def microseconds(call: Call, *, calls: int) -> float:
    """CPU time of one call, with `CONNECTIONS` of them under way at a time."""
    left = calls

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    gc.collect()
    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return (time.process_time() - began) / calls * 1e6


async def measure(url: str, *, rounds: int) -> dict[str, list[float]]:
    config = ProviderConfig(slug="mock", adapter="", api_key="mock", base_url=url, whole_tokens=128)
    async with AsyncExitStack() as closing:
        session = await closing.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
        )
        client = await closing.enter_async_context(httpx2.AsyncClient())
        ours, theirs = wire.OpenAIAdapter(config), sdk.OpenAIAdapter(config)
        closing.push_async_callback(ours.aclose)
        closing.push_async_callback(theirs.aclose)
        contestants: dict[str, tuple[Call, int]] = {
            "aiohttp, whole": (over_aiohttp(session, url, chunks=1, stream=False), 2000),
            "httpx2, whole": (over_httpx2(client, url), 300),
            "wire, whole": (through(ours, request(1, whole=True, short=True)), 2000),
            "wire, one chunk": (through(ours, request(1)), 2000),
            "sdk, one chunk": (through(theirs, request(1)), 300),
            f"aiohttp, {CHUNKS} chunks": (over_aiohttp(session, url, chunks=CHUNKS, stream=True), 200),
            f"wire, {CHUNKS} chunks": (through(ours, request(CHUNKS)), 200),
            f"wire, {CHUNKS} chunks unseen": (through(ours, request(CHUNKS, whole=True)), 200),
            f"sdk, {CHUNKS} chunks": (through(theirs, request(CHUNKS)), 50),
        }
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for call, calls in contestants.values():
            await microseconds(call, calls=calls // 10)  # connections are made, code is warm
        for _ in range(rounds):
            for name, (call, calls) in contestants.items():
                found[name].append(await microseconds(call, calls=calls))
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    report: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "packages": {name: version(name) for name in PACKAGES},
        },
        "load_average": os.getloadavg(),
        "rounds": rounds,
        "connections": CONNECTIONS,
        "targets_microseconds": TARGETS,
    }
    with (
        tempfile.TemporaryDirectory(prefix="llmchat-bench-") as directory,
        MockUpstream(Path(directory)) as upstream,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = runner.run(measure(f"{upstream.url}/v1", rounds=rounds))
    for family in ("wire", "sdk"):
        one, many = found[f"{family}, one chunk"], found[f"{family}, {CHUNKS} chunks"]
        found[f"{family}, a chunk more"] = [(b - a) / (CHUNKS - 1) for a, b in zip(one, many, strict=True)]
    report["microseconds"] = {
        name: {"median": round(statistics.median(values), 1), "values": [round(value, 1) for value in values]}
        for name, values in found.items()
    }
    middle = {name: statistics.median(values) for name, values in found.items()}
    report["ratios"] = {
        "sdk to wire, one chunk": round(middle["sdk, one chunk"] / middle["wire, one chunk"], 2),
        "sdk to wire, a chunk more": round(middle["sdk, a chunk more"] / middle["wire, a chunk more"], 2),
        "httpx2 to wire, whole": round(middle["httpx2, whole"] / middle["wire, whole"], 2),
        "wire to aiohttp, whole": round(middle["wire, whole"] / middle["aiohttp, whole"], 2),
        f"wire to aiohttp, {CHUNKS} chunks": round(
            middle[f"wire, {CHUNKS} chunks"] / middle[f"aiohttp, {CHUNKS} chunks"], 2
        ),
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    print(
        f"commit {report['commit']}, Python {platform.python_version()}, load average {report['load_average'][0]:.1f}"
    )
    for name, values in found.items():
        print(f"  {name:<22} {middle[name]:>9.1f} µs   {min(values):.1f} to {max(values):.1f}")
    for name, ratio in report["ratios"].items():
        print(f"  {name:<32} {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
