"""The budgets of pages and upkeep, judged by one report of `bench.operators`, and the table that it prints.

.venv/bin/python -m bench.operators_table [FILE]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.budgets import judged
from llmchat.tests.servers import PROJECT

#: Milliseconds at the 95th percentile for any page.
PAGE = (300.0, 100.0)
#: Rows a second, seconds, percent, bytes.
EXPORT, LAG, LOST, BYTES = (20_000, 60_000), (60.0, 5.0), (10.0, 3.0), (900.0, 500.0)


def evaluate(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each budget, worst pages first; nothing for a part that was not measured."""
    return [*_pages(report), *_upkeep(report)]


def _pages(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    told = report.get("pages", {})
    if "fault" in told:
        yield _failed("pages", told["fault"])
        return
    for name, page in sorted(told.items(), key=lambda pair: -pair[1].get("p95_ms", float("inf"))):
        yield _failed(name, page["fault"]) if "fault" in page else _page(name, page)
    for path, page in report.get("half", {}).get("pages", {}).items():
        yield _page(f"{path}, the data plane at half of its capacity", page)


def _page(name: str, page: dict[str, Any]) -> dict[str, Any]:
    row = judged(name, *PAGE, page["p95_ms"], unit="ms", less=True)
    return row | {"p50": page["p50_ms"]}


def _upkeep(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in ("export", "lag", "half", "storage", "retention"):
        if fault := report.get(part, {}).get("fault"):
            yield _failed(part, fault)
    export = report.get("export", {})
    for form, told in export.items():
        if isinstance(told, dict):
            yield judged(f"export as {form}", *EXPORT, told["rows_per_second"], unit="rows/s")
    if (seconds := report.get("lag", {}).get("seconds")) is not None:
        yield judged("roll-ups follow after", *LAG, seconds, unit="s", less=True)
    if (lost := report.get("half", {}).get("lost_percent")) is not None:
        yield judged("lost by the data plane at half of its capacity", *LOST, lost, unit="%", less=True)
    if (size := report.get("storage", {}).get("beyond_texts")) is not None:
        yield judged("an interaction with its attempt, beyond its texts", *BYTES, size, unit="bytes", less=True)


def _failed(what: str, fault: str) -> dict[str, Any]:
    return {"what": f"{what}: {fault}", "must": None, "aim": None, "measured": None, "unit": "", "verdict": "MISSED"}


def markdown(report: dict[str, Any]) -> str:
    """All of it as tables, and the line that says of what."""
    lines = ["| | p50 | p95, or figure | | verdict |", "|---|---|---|---|---|"]
    for row in report["budgets"]:
        measured = "-" if row["measured"] is None else f"{row['measured']:,.1f}"
        p50 = f"{row['p50']:,.1f}" if "p50" in row else ""
        lines.append(f"| {row['what']} | {p50} | {measured} | {row['unit']} | {row['verdict']} |")
    record = report["record"]
    machine = report["machine"]
    where = (
        f"{record['interactions']:,} interactions on {report['database']}, {record['minutes_to_roll_up']:,} minutes "
        f"not rolled up, words {'all' if record['words_are_whole'] else 'not all'} findable; measured "
        f"{report['measured_at'][:10]} at {report['commit']} on {machine['cores']} cores ({machine['cpu']}); before "
        f"that, others kept {report['others_used_before']:.1f} cores busy."
    )
    lines += ["", where]
    for name in ("filled", "retention", "half"):
        if told := report.get(name):
            lines.append(f"{name}: {json.dumps(told)}")
    return "\n".join(lines)


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "bench" / "results" / "operators.json"
    print(markdown(json.loads(path.read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
