"""The budgets that a commit is held to, judged by one report of the benchmark. It measures nothing.

A ratio of throughputs is judged by the lower of two: answers per second on the clock, and answers per second of
processor time. The first flatters us when the load's core had nothing left for a faster gateway, the second when ours
waits for the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OURS = "llmchat_sqlite"


def evaluate(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each budget: what, how it must be, what is aimed at, what was measured, and the verdict."""
    return [*_throughput(report), *_latency(report), *_memory(report), *_record(report), *_second_worker(report)]


def listing(rows: list[dict[str, Any]]) -> str:
    """The rows for a terminal."""
    lines = []
    for row in rows:
        measured = "-" if row["measured"] is None else f"{row['measured']:.2f}"
        lines.append(
            f"{row['verdict']:<13} {row['what']}: {measured} {row['unit']} (must {row['must']}, aim {row['aim']})"
        )
    return "\n".join(lines)


def _throughput(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    of_whole = {
        "litellm": (18, 30),
        "portkey": (3, 4.5),
        "mlflow": (80, 120),
        "tensorzero": (0.25, 0.5),
        "forwarding": (0.25, 0.45),
    }
    for scenario, what, limits in (
        ("whole_64", "whole answers", of_whole),
        ("whole_64_unlimited", "whole answers of no limited length", of_whole),
        ("streamed_32", "streams", {"litellm": (25, 45), "tensorzero": (1.2, 2.5)}),
    ):
        for peer, (must, aim) in limits.items():
            ratio = ratios(report, scenario, peer)
            yield judged(f"{what} against {peer}", must, aim, min(ratio) if ratio else None, unit="times")


def ratios(report: dict[str, Any], scenario: str, peer: str, *, ours: str = OURS) -> tuple[float, float] | None:
    """Ours over the peer's: by the clock, and by processor time. None when one of them has no figure."""
    measured = report["figures"].get(scenario, {})
    found = []
    for key in ("per_second", "per_cpu_second"):
        mine, theirs = measured.get(ours, {}).get(key), measured.get(peer, {}).get(key)
        if not mine or not theirs:
            return None
        found.append(mine / theirs)
    return found[0], found[1]


def _latency(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    one = report["figures"].get("whole_1", {})
    for key, aim in (("p50", 1.5), ("p99", 4.0)):
        theirs = _milliseconds(one, "portkey", f"added_{key}")
        mine = _milliseconds(one, OURS, f"added_{key}")
        yield judged(f"latency added, {key}", theirs, aim, mine, unit="ms", less=True)
    first = report["figures"].get("first_token_1", {})
    mine = _milliseconds(first, OURS, "added_first_p50")
    yield judged("added to the first token, p50", 3.0, 1.5, mine, unit="ms", less=True)


def _memory(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    memories = report["gateways"].get(OURS, {}).get("memory", {})
    idle = memories.get("idle", {}).get("web_workers", [{}])[0].get("rss")
    after = memories.get("after", {}).get("web_workers", [{}])[0].get("rss")
    yield judged("idle memory of a web worker (RSS)", 160, 120, idle, unit="MB", less=True)
    many = memories.get("after_requests")
    growth = (after / idle - 1) * 100 if idle and after else None
    yield judged(f"growth of it by {many} requests", 10, 3, growth, unit="%", less=True)


def _record(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every run of ours: rows of both kinds over calls. Shown is the run that is furthest from 1."""
    found = [
        run[kind] / run["upstream_calls"]
        for of_gateways in report["figures"].values()
        for figure in of_gateways.values()
        for run in figure["runs"]
        for kind in ("attempts", "interactions")
        if kind in run and run["upstream_calls"]
    ]
    worst = max(found, key=lambda ratio: abs(ratio - 1)) if found else None
    verdict = "not measured" if worst is None else "aim met" if worst == 1 else "MISSED"
    row = judged(f"rows on record over upstream calls, the worst of {len(found)}", 1, 1, worst, unit="")
    yield row | {"verdict": verdict}


def _second_worker(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """By the clock where both workers had cores of their own; else by processor time: what a second core would bring
    if it did its work as cheaply as the first."""
    figure = report["figures"].get("whole_64", {})
    key = "per_cpu_second" if report["layout"]["two_share"] else "per_second"
    one, two = figure.get("llmchat_postgresql", {}).get(key), figure.get("llmchat_two_workers", {}).get(key)
    gain = None if not one or not two else 2 * two / one if key == "per_cpu_second" else two / one
    how = "by processor time" if report["layout"]["two_share"] else "by the clock"
    yield judged(f"a second worker on a second core, {how}", 1.8, 1.95, gain, unit="times")


def _milliseconds(figures: dict[str, Any], gateway: str, key: str) -> float | None:
    seconds = figures.get(gateway, {}).get(key)
    return None if seconds is None else seconds * 1000


def judged(
    what: str, must: float | None, aim: float | None, measured: float | None, *, unit: str, less: bool = False
) -> dict[str, Any]:
    """A budget's row; `less`: the smaller the better. Without a figure, or a limit, it counts as not measured."""

    def within(limit: float | None) -> bool:
        return limit is not None and measured is not None and (measured <= limit if less else measured >= limit)

    if measured is None or must is None:
        verdict = "not measured"
    else:
        verdict = "MISSED" if not within(must) else "aim met" if within(aim) else "met"
    return {
        "what": what,
        "must": None if must is None else round(must, 3),
        "aim": aim,
        "measured": None if measured is None else round(measured, 4),
        "unit": unit,
        "verdict": verdict,
    }
