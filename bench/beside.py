"""Both planes at once: how long the dashboard takes while half of what the server can answer comes in, and what that
costs those who ask."""

from __future__ import annotations

import statistics
import threading
import time
from http.client import HTTPException
from typing import Any

from bench.__main__ import load
from bench.gateway import MODEL, Gateway
from bench.load import Tally, Task, quantile
from bench.visitors import Visitor

SECONDS = 8.0
#: Seconds between two looks of one operator, who reads what he sees. The page itself refreshes each 30 seconds.
PAUSE = 1.0
ROUNDS = 3
PATHS = ("/admin/?period=day", "/admin/figures/?period=day", "/admin/?period=month", "/admin/?period=year")


def measure(gateway: Gateway, operator: Visitor) -> dict[str, Any]:
    """In turns: load at half of the capacity alone, and beside an operator who looks at one dashboard after another.

    The loss is in answers a second; how much later they come is told as well. Each dashboard was looked at once before:
    how long the very first look takes is told with the other pages.
    """
    ask = gateway.ask(MODEL, streamed=False, max_tokens=66)

    def answered(rate: float) -> Tally:
        return load(
            Task("127.0.0.1", gateway.port, [ask], connections=64, seconds=SECONDS, warm_up=1.0, rate=rate),
        )

    capacity = statistics.median(answered(0.0).per_second for _ in range(ROUNDS))
    runs: dict[str, list[Tally]] = {"alone": [], "beside": []}
    looked: dict[str, list[float]] = {path: [] for path in PATHS}
    faults: list[str] = []
    for path in PATHS:
        operator.get(path)
    for _ in range(ROUNDS):
        runs["alone"].append(answered(capacity / 2))
        over = threading.Event()
        looking = threading.Thread(target=_look, args=(operator, over, looked, faults))
        looking.start()
        try:
            runs["beside"].append(answered(capacity / 2))
        finally:
            over.set()
            looking.join()
    rates = {name: statistics.median(tally.per_second for tally in each) for name, each in runs.items()}
    return {
        "capacity": round(capacity, 1),
        "pause_seconds": PAUSE,
        "per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "lost_percent": round(100 * (1 - rates["beside"] / rates["alone"]), 2),
        "p50_ms": {name: _milliseconds(each, "p50") for name, each in runs.items()},
        "p99_ms": {name: _milliseconds(each, "p99") for name, each in runs.items()},
        "errors": sum(sum(tally.errors.values()) for each in runs.values() for tally in each),
        "faults": faults,
        "pages": {
            path: {
                "p50_ms": round(statistics.median(times) * 1000, 1),
                "p95_ms": round((quantile(times, 0.95) or 0.0) * 1000, 1),
                "times": len(times),
            }
            for path, times in looked.items()
            if times
        },
    }


def _look(operator: Visitor, over: threading.Event, looked: dict[str, list[float]], faults: list[str]) -> None:
    while True:
        for path in PATHS:
            if over.is_set():
                return
            began = time.monotonic()
            try:
                seen = operator.get(path)
            except (OSError, HTTPException) as problem:
                faults.append(f"{path}: {type(problem).__name__}")
                continue
            if seen.status == 200:
                looked[path].append(seen.seconds)
            else:
                faults.append(f"{path}: status {seen.status}")
            over.wait(max(0.0, PAUSE - (time.monotonic() - began)))


def _milliseconds(tallies: list[Tally], name: str) -> float | None:
    found = [value for tally in tallies if (value := getattr(tally, name)) is not None]
    return round(statistics.median(found) * 1000, 2) if found else None
