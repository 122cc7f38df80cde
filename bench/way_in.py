"""What a request costs on its way in and out, without what the engine does for it: from bytes on a connection to the
call that the engine is handed, and from the stored answer to bytes.

    .venv/bin/python -m bench.way_in [--profile FILE]

One process without sockets: a transport of ours feeds the protocol that the server uses, and takes what it writes. The
engine is replaced by one that has the answer. A table on the terminal, and bench/results/way_in.json.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import uvloop

ROUNDS = 30
REQUESTS = 300
RESULTS = Path(__file__).parent / "results" / "way_in.json"
PACKAGES = ("django", "djangorestframework", "uvicorn", "httptools", "orjson", "uvloop")
PROMPT = "What is the capital of France, and how did it come to be that? " * 4


def set_up() -> str:
    """Django on an empty database of its own; returns a key."""
    os.environ.update(
        DATA_DIR=tempfile.mkdtemp(prefix="llmchat-bench-"),
        DJANGO_SETTINGS_MODULE="llmchat.settings",
        ENV_FILE=os.devnull,
        DEFAULT_MODEL="simulated/ok",
        LOG_FORMAT="json",
    )
    import django

    django.setup()
    from django.core.management import call_command

    from accounts.models import Plan
    from accounts.services import create_api_key, create_organization

    call_command("migrate", verbosity=0)
    organization = create_organization("bench", plan=Plan.objects.get(slug="unlimited"))
    return create_api_key(organization)[1]


class Transport(asyncio.Transport):
    """Keeps what is written; `answered` is set by the end of a response."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 8000)})
        self.pieces: list[bytes] = []
        self.answered = asyncio.Event()

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))
        # Whole answers come with their length, streams end in an empty chunk.
        if len(data) == 0 or data[-1:] in {b"}", b"]"} or data[-5:] == b"0\r\n\r\n":
            self.answered.set()

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.answered.set()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def stored_answer() -> Any:
    """An interaction as the recorder leaves it."""
    from django.utils import timezone

    from chat.models import Interaction, Status
    from llmchat.lib.uuid7 import uuid7

    return Interaction(
        id=uuid7(),
        organization_id=uuid7(),
        user_id="12345",
        prompt=PROMPT,
        response="The capital of France is Paris. " * 8,
        status=Status.SUCCEEDED,
        provider="simulated",
        model="ok",
        created_at=timezone.now(),
        conversation_id=uuid7(),
        finish_reason="stop",
        input_tokens=25,
        output_tokens=45,
        latency_ms=812.4,
        provider_latency_ms=809.9,
        time_to_first_token_ms=320.1,
    )


def have_the_answer_at_hand() -> None:
    """The engine's `accept` gives a stored answer."""
    from chat import engine
    from chat.replay import Replay

    row = stored_answer()

    async def accept(call: Any) -> Replay:
        assert isinstance(call.principal.organization_id, UUID)
        return Replay(row)

    engine.accept = accept


def requests(key: str) -> dict[str, bytes]:
    """Each kind of request as its client sends it."""
    native = {"userId": "12345", "prompt": PROMPT, "model": "simulated/ok", "temperature": 0.2, "maxTokens": 100}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
    openai = {"model": "simulated/ok", "messages": messages, "temperature": 0.2, "max_tokens": 100}
    return {
        "native": request(key, "POST", "/v1/chat", native),
        "native, streamed": request(key, "POST", "/v1/chat/stream", native),
        "OpenAI's": request(key, "POST", "/v1/chat/completions", openai),
        "OpenAI's, streamed": request(key, "POST", "/v1/chat/completions", {**openai, "stream": True}),
        "live": request(key, "GET", "/v1/health/live", None),
        "wrong body": request(key, "POST", "/v1/chat", {"userId": "12345"}),
    }


def request(key: str, method: str, path: str, body: Any) -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\n"
        f"Connection: keep-alive\r\nUser-Agent: OpenAI/Python 2.0.0\r\nAuthorization: Bearer {key}\r\n"
    )
    if raw:
        head += f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n"
    return head.encode() + b"\r\n" + raw


class Connection:
    """A connection of a client that asks one request after the other."""

    def __init__(self, application: Any, *, ours: bool = True) -> None:
        import uvicorn
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
        from uvicorn.server import ServerState

        from llmchat.serve.protocol import BoundedHeads

        config = uvicorn.Config(application, ws="none", log_config=None, access_log=False, proxy_headers=False)
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Sat, 21 Nov 2026 12:00:00 GMT")]
        self.transport = Transport()
        protocol = BoundedHeads if ours else HttpToolsProtocol
        self.protocol = protocol(config, state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.transport)

    async def ask(self, raw: bytes) -> bytes:
        self.transport.pieces.clear()
        self.transport.answered.clear()
        self.protocol.data_received(raw)
        await self.transport.answered.wait()
        return b"".join(self.transport.pieces)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An application that does nothing but answer."""
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def measure_protocols(raw: bytes) -> dict[str, float]:
    """What is spent before and after the application: with our guards, and without."""
    connections = {"ours": Connection(bare), "uvicorn's own": Connection(bare, ours=False)}
    least = dict.fromkeys(connections, float("inf"))
    for _ in range(ROUNDS):
        for name, connection in connections.items():
            began = time.process_time()
            for _ in range(REQUESTS):
                await connection.ask(raw)
            least[name] = min(least[name], (time.process_time() - began) / REQUESTS * 1e6)
    return {name: round(value, 1) for name, value in least.items()}


async def measure(profile: Path | None) -> dict[str, Any]:
    key = await asyncio.to_thread(set_up)
    from llmchat import asgi

    have_the_answer_at_hand()
    handlers = {"lean": Connection(asgi.application), "Django": Connection(asgi.without_lean)}
    found: dict[str, Any] = {}
    for name, raw in requests(key).items():
        answers = {handler: await connection.ask(raw) for handler, connection in handlers.items()}
        assert len({answer.split(b" ")[1] for answer in answers.values()}) == 1, answers
        rounds: dict[str, list[float]] = {handler: [] for handler in handlers}
        for _ in range(ROUNDS):
            for handler, connection in handlers.items():
                count = REQUESTS if handler == "lean" else REQUESTS // 10
                began = time.process_time()
                for _ in range(count):
                    await connection.ask(raw)
                rounds[handler].append((time.process_time() - began) / count * 1e6)
        found[name] = {handler: round(min(values), 1) for handler, values in rounds.items()}
        found[name]["lean, median"] = round(statistics.median(rounds["lean"]), 1)
    found["protocol alone"] = await measure_protocols(requests(key)["native"])
    if profile is not None:
        profiler = cProfile.Profile()
        raw = requests(key)["native"]
        profiler.enable()
        for _ in range(5_000):
            await handlers["lean"].ask(raw)
        profiler.disable()
        profiler.dump_stats(profile)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", type=Path, help="where to write what cProfile sees of 5,000 native calls")
    options = parser.parse_args()
    table, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115, PTH123 - lines of the log are made, not shown
    found = uvloop.run(measure(options.profile))
    sys.stdout = table
    print(f"{'CPU microseconds a request':30}{'lean':>10}{'(median)':>10}{'Django':>10}")
    protocols = found.pop("protocol alone")
    for name, row in found.items():
        print(f"{name:30}{row['lean']:>10}{row['lean, median']:>10}{row['Django']:>10}")
    print(f"The protocol alone: {protocols}")
    RESULTS.write_text(
        json.dumps(
            {
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
                "versions": {package: version(package) for package in PACKAGES},
                "requests": REQUESTS,
                "rounds": ROUNDS,
                "cpu_microseconds": found,
                "cpu_microseconds_of_the_protocol_alone": protocols,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
