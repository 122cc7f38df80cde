"""A long run: does memory stay flat, and is every call on record, exactly once?

    .venv/bin/python -m bench.soak [--requests 1000000] [--connections 64] [--database sqlite|postgresql]

All four ways to ask in turns: native and OpenAI's, whole and streamed. Memory of the web worker is read between equal
pieces of the run; writes bench/results/soak.json and ends with 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import gateways, machine, starting
from bench.__main__ import PACKAGES, load, say
from bench.gateway import Gateway
from bench.load import NUMBER, Ask, Task
from llmchat.tests.servers import PROJECT, LiveServer, PostgreSQL, Redis, ServerFailed

RESULTS = PROJECT / "bench" / "results" / "soak.json"
#: How often memory is read; a multiple of four.
PIECES = 40
#: By how much the last quarter's memory may differ from the second's.
DRIFT = 0.05
#: Short answers: what is looked for is what a request leaves behind, not what a token costs.
MODEL, WORDS = "mock-8", 8


def asks(gateway: Gateway) -> list[Ask]:
    """The four ways to ask the same."""
    prompt = f"Question {NUMBER}: what is the capital of France?"
    native = {"userId": "soak", "prompt": prompt, "model": f"openai/{MODEL}"}
    compatible = {"model": f"openai/{MODEL}", "messages": [{"role": "user", "content": prompt}]}
    headers = dict(gateway.headers)
    return [
        Ask("/v1/chat", headers, json.dumps(native), WORDS, streamed=False),
        # The whole answer is repeated in its last event.
        Ask("/v1/chat/stream", headers, json.dumps(native), WORDS, streamed=True, ending="event: done"),
        Ask("/v1/chat/completions", headers, json.dumps(compatible), WORDS, streamed=False),
        Ask("/v1/chat/completions", headers, json.dumps({**compatible, "stream": True}), WORDS, streamed=True),
    ]


def soak(
    gateway: Gateway, *, requests: int, connections: int, cores: Sequence[int], pieces: int = PIECES
) -> list[dict[str, Any]]:
    """Memory and progress after each of `pieces` equal pieces of the run."""
    task = Task(
        host="127.0.0.1",
        port=gateway.port,
        asks=asks(gateway),
        connections=connections,
        count=requests // pieces,
        cores=list(cores),
    )
    found = []
    for number in range(pieces):
        tally = load(replace(task, first=number * (requests // pieces)))
        memories = [machine.memory([pid]) for pid in gateway.web_workers()]
        found.append(
            {
                "asked": tally.asked,
                "answered": tally.answered,
                "errors": tally.errors,
                "samples": tally.samples,
                "per_second": round(tally.per_second, 1),
                "rss": round(sum(each.rss for each in memories), 1),
                "pss": round(sum(each.pss for each in memories), 1),
            }
        )
        say(f"{(number + 1) * tally.asked:>9} asked, {tally.per_second:6.0f}/s, RSS {found[-1]['rss']:.1f} MB")
    return found


def quarters(values: Sequence[float]) -> list[float]:
    """The median of each quarter."""
    size = len(values) // 4
    return [round(statistics.median(values[at * size : (at + 1) * size]), 1) for at in range(4)]


def judge(report: dict[str, Any]) -> dict[str, bool]:
    """What must hold of a run."""
    second, last = report["rss_by_quarter"][1], report["rss_by_quarter"][3]
    return {
        "every request was answered rightly": report["answered"] == report["asked"],
        "an attempt on record for each upstream call": report["attempts"] == report["upstream_calls"],
        "an interaction on record for each request": report["interactions"] == report["asked"],
        "memory of the last quarter within 5 % of the second's": last <= second * (1 + DRIFT),
        "the journal is empty": report["journal"] == [],
        "verify_record finds nothing": report["verify_record"]["ended_with"] == 0,
    }


def left_in_journal(server: LiveServer) -> list[str]:
    """Files of the journal that are not empty, with their sizes in bytes."""
    journal = server.data / "journal"
    files = [path for path in journal.rglob("*") if path.is_file()]
    return [f"{path.relative_to(journal)} ({path.stat().st_size})" for path in sorted(files) if path.stat().st_size]


def verified(server: LiveServer) -> dict[str, Any]:
    """What `manage.py verify_record` says, and how it ends."""
    try:
        said = server.manage("verify_record", seconds=3600)
    except ServerFailed as failure:
        return {"ended_with": 1, "said": str(failure)}
    return {"ended_with": 0, "said": said.strip()}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmchat-soak-")))
        vendor = stack.enter_context(gateways.upstream(directory / "vendor", cores=cores[-1:]))
        of_services: dict[str, Any] = {}
        if arguments.database == "postgresql":
            of_services["postgresql"] = stack.enter_context(PostgreSQL(durable=True))
        if arguments.workers > 1:
            of_services["redis_url"] = stack.enter_context(Redis()).url
        gateway, server = stack.enter_context(
            gateways.ours(directory / "ours", vendor, cores=cores[:1], workers=arguments.workers, **of_services)
        )
        time.sleep(2.0)
        idle = [asdict(machine.memory([pid])) for pid in gateway.web_workers()]
        calls_before = vendor.calls()
        began = time.monotonic()
        pieces = soak(gateway, requests=arguments.requests, connections=arguments.connections, cores=cores[-1:])
        seconds = time.monotonic() - began
        server.stop()
        attempts, interactions = gateways.counted(server)
        report = {
            "measured_at": machine.now(),
            "commit": machine.commit(),
            "command": starting.plain([sys.executable, "-m", "bench.soak", *sys.argv[1:]]),
            "machine": machine.describe(PACKAGES),
            "database": arguments.database,
            "workers": arguments.workers,
            "connections": arguments.connections,
            "seconds": round(seconds, 1),
            "idle": idle,
            "asked": sum(each["asked"] for each in pieces),
            "answered": sum(each["answered"] for each in pieces),
            "upstream_calls": vendor.calls() - calls_before,
            "attempts": attempts,
            "interactions": interactions,
            "rss_by_quarter": quarters([each["rss"] for each in pieces]),
            "pss_by_quarter": quarters([each["pss"] for each in pieces]),
            "journal": left_in_journal(server),
            "verify_record": verified(server),
            "pieces": pieces,
        }
    return report | {"holds": judge(report)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=1_000_000, help="in all (1000000)")
    parser.add_argument("--connections", type=int, default=64, help="at the same time (64)")
    parser.add_argument("--workers", type=int, default=1, help="web workers of ours (1)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON file (bench/results/soak.json)")
    arguments = parser.parse_args()
    machine.end_orderly()
    report = run(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{report['asked']} requests in {report['seconds']:.0f} s; RSS by quarter: {report['rss_by_quarter']} MB")
    for what, is_so in report["holds"].items():
        print(f"{'holds' if is_so else 'BROKEN':<7} {what}")
    return 0 if all(report["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
