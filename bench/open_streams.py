"""Very many streams open at once: do all of them end well, and what does each of them hold?

    .venv/bin/python -m bench.open_streams [--streams 10000] [--workers 2] [--database sqlite|postgresql]

The vendor goes on talking, slowly, until all are open and have been for a while; then it lets them end. Writes
bench/results/open_streams.json and ends with 1 when something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import gateways, machine, starting
from bench.__main__ import PACKAGES, say
from bench.gateway import Gateway
from bench.gateways import Upstream
from bench.load import NUMBER, Ask, Tally, Task
from llmchat.tests.servers import PROJECT, PostgreSQL, Redis

RESULTS = PROJECT / "bench" / "results" / "open_streams.json"
#: Megabytes (10^6 bytes) that all processes of ours may take together.
MEMORY_LIMIT = 1500.0
#: A write of the vendor on each stream every so many seconds: well within the time after which a stream has stalled.
TICK = 5
#: Connections that may wait for their first byte: a crowd, but none that the listener's queue refuses.
OPENING = 300
#: One address has about 28,000 ports to connect from; several leave room for those of an earlier run.
SOURCES = [f"127.0.0.{number}" for number in range(2, 10)]
#: Files that a process has open beside its streams.
_OTHER_FILES = 500
_LOOK_EVERY = 0.5


class TooFewFiles(Exception):
    """The message names the remedy."""


def raise_file_limit(streams: int, workers: int) -> int:
    """Lets this process and those it starts open as many files as it may raise itself to. Returns how many.

    Raises:
        TooFewFiles: they would not do: a worker has two for each of its streams, the load and the vendor one.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Workers do not share evenly: half as much again.
    needed = max(streams, 3 * streams // workers if workers > 1 else 2 * streams) + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewFiles(
            f"{streams} streams need {needed} open files, {hard} are allowed. Remedy: ulimit -Hn {needed}"
        )
    return hard


def open_streams(
    gateway: Gateway, vendor: Upstream, *, streams: int, hold: float, patience: float = 600.0
) -> dict[str, Any]:
    """Opens them all, looks on for `hold` seconds, lets them end; what was seen and how they ended."""
    body = {
        "model": f"openai/mock-100000?delay={TICK}&held=1",
        "messages": [{"role": "user", "content": f"Question {NUMBER}: what is the capital of France?"}],
        "stream": True,
    }
    ask = Ask(gateway.path, dict(gateway.headers), json.dumps(body), words=0, streamed=True)
    task = Task(
        host="127.0.0.1",
        port=gateway.port,
        asks=[ask],
        connections=streams,
        count=streams,
        opening=OPENING,
        patience=patience,
        sources=SOURCES,
    )
    idle = machine.memory(gateway.processes())
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as load:
        assert load.stdin is not None
        load.stdin.write(json.dumps(asdict(task)))
        load.stdin.close()
        try:
            found = _look_on(gateway, vendor, load, streams=streams, hold=hold, until=began + patience)
            vendor.release()
            assert load.stdout is not None
            tally = Tally(**json.loads(load.stdout.read()))
        except BaseException:
            load.kill()
            raise
    peak = found["peak"]
    return {
        "idle": asdict(idle),
        **found,
        "seconds": round(time.monotonic() - began, 1),
        "bytes_per_stream": round((peak["pss"] - idle.pss) * 1e6 / max(1, found["open_at_once"])),
        "asked": tally.asked,
        "answered": tally.answered,
        "errors": tally.errors,
        "samples": tally.samples,
    }


def _look_on(
    gateway: Gateway, vendor: Upstream, load: subprocess.Popen[str], *, streams: int, hold: float, until: float
) -> dict[str, Any]:
    """Until all have been open for `hold` seconds, or the load has ended or `until` is there before that."""
    began = time.monotonic()
    opened = None
    most, peak, each = 0, machine.Memory(0.0, 0.0), []
    while load.poll() is None and time.monotonic() < (until if opened is None else opened + hold):
        now_open = vendor.open_calls()
        if now_open // (streams // 10) > most // (streams // 10):
            say(f"{now_open} open after {time.monotonic() - began:.0f} s")
        most = max(most, now_open)
        if opened is None and now_open >= streams:
            opened = time.monotonic()
        memory = machine.memory(gateway.processes())
        if memory.pss > peak.pss:
            peak = memory
            each = [asdict(machine.memory([pid])) for pid in gateway.web_workers()]
        time.sleep(_LOOK_EVERY)
    return {
        "open_at_once": most,
        "opening_seconds": None if opened is None else round(opened - began, 1),
        "peak": asdict(peak),
        "web_workers_at_peak": each,
    }


def judge(report: dict[str, Any]) -> dict[str, bool]:
    """What must hold of a run."""
    return {
        "all of them were open at once": report["open_at_once"] == report["streams"],
        "all of them ended well": report["answered"] == report["streams"],
        f"memory stayed below {MEMORY_LIMIT:.0f} MB in all": report["peak"]["pss"] < MEMORY_LIMIT,
        "an attempt on record for each upstream call": report["attempts"] == report["upstream_calls"],
        "an interaction on record for each stream": report["interactions"] == report["streams"],
    }


def run(*, streams: int, workers: int, database: str, hold: float) -> dict[str, Any]:
    """Everything started, measured and ended.

    Raises:
        TooFewFiles, ServerFailed
    """
    files = raise_file_limit(streams, workers)
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmchat-streams-")))
        vendor = stack.enter_context(gateways.upstream(directory / "vendor", cores=cores[-1:]))
        services: dict[str, Any] = {}
        if database == "postgresql":
            services["postgresql"] = stack.enter_context(PostgreSQL(durable=True))
        if workers > 1:
            services["redis_url"] = stack.enter_context(Redis()).url
        # Opening and holding them takes longer than one answer may by default.
        settings = {"REQUEST_DEADLINE_SECONDS": "900"}
        gateway, server = stack.enter_context(
            gateways.ours(directory / "ours", vendor, workers=workers, settings=settings, **services)
        )
        time.sleep(2.0)
        calls_before = vendor.calls()
        found = open_streams(gateway, vendor, streams=streams, hold=hold)
        attempts, interactions = gateways.counted(server)
        report = {
            "measured_at": machine.now(),
            "commit": machine.commit(),
            "machine": machine.describe(PACKAGES),
            "streams": streams,
            "workers": workers,
            "database": database,
            "open_files": files,
            **found,
            "upstream_calls": vendor.calls() - calls_before,
            "attempts": attempts,
            "interactions": interactions,
        }
    return report | {"holds": judge(report)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.open_streams", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--streams", type=int, default=10_000, help="at the same time (10000)")
    parser.add_argument("--workers", type=int, default=2, help="web workers; more than one needs redis-server (2)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--hold", type=float, default=15.0, help="seconds for which all stay open (15)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON (bench/results/open_streams.json)")
    arguments = parser.parse_args()
    machine.end_orderly()
    try:
        report = run(
            streams=arguments.streams, workers=arguments.workers, database=arguments.database, hold=arguments.hold
        )
    except TooFewFiles as problem:
        raise SystemExit(str(problem)) from None
    report["command"] = starting.plain([sys.executable, "-m", "bench.open_streams", *sys.argv[1:]])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(
        f"{report['open_at_once']} streams at once; {report['peak']['pss']:.0f} MB in all (PSS), "
        f"{report['bytes_per_stream']} bytes a stream; errors: {report['errors'] or 'none'}"
    )
    for what, is_so in report["holds"].items():
        print(f"{'holds' if is_so else 'BROKEN':<7} {what}")
    return 0 if all(report["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
