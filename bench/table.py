"""The README's table, made from the benchmark's JSON and from nothing else.

    .venv/bin/python -m bench.table [--write]

Prints it; with --write puts it between the two marks in README.md. A test compares them.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from bench.budgets import OURS, ratios
from llmchat.tests.servers import PROJECT

RESULTS = PROJECT / "bench" / "results" / "gateways.json"
README = PROJECT / "README.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
#: From here on the core of load and vendor had nothing left: whatever was measured might be faster.
EXHAUSTED = 0.95
#: Cores that others may keep busy before it is said.
DISTURBED = 0.15


def markdown(report: dict[str, Any]) -> str:
    """The table and the line that says where it was measured."""
    head = (
        "| one worker on one core | whole answers/s | whole, length not limited | streams/s (66 chunks) "
        "| added, p50 / p99 (ms) | first token, added (ms) | idle memory (MB) |\n|---|---|---|---|---|---|---|"
    )
    rows = [_row(report, name) for name in report["gateways"] if report["gateways"][name]["workers"] == 1]
    machine = report["machine"]
    where = (
        f"Measured {report['measured_at'][:10]} at {report['commit']} on {machine['cores']} cores ({machine['cpu']}), "
        f"{report['rounds']} rounds of {report['seconds']:g} s in turns, medians; whole answers with 64 connections, "
        "streams with 32, times with 1. In brackets: how many times as much as that llmchat on SQLite does."
    )
    if (others := _others_used(report)) > DISTURBED:
        where += f" The machine was not ours alone: other processes used up to {others:.1f} cores."
    return "\n".join([head, *rows, "", where])


def current() -> str:
    """What belongs into the README now."""
    if not RESULTS.exists():
        return "Not measured yet for this version."
    return markdown(json.loads(RESULTS.read_text()))


def in_readme(text: str) -> str:
    """What stands between the marks. Raises ValueError without them."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def put(text: str, made: str) -> str:
    """The README with another table between the marks."""
    return f"{text[: text.index(BEGIN)]}{BEGIN}\n{made}\n{text[text.index(END) :]}"


def _others_used(report: dict[str, Any]) -> float:
    """Cores that other processes kept busy during the runs that the table shows, at most."""
    shown = (
        report["figures"].get(name, {})
        for name in ("whole_64", "whole_64_unlimited", "streamed_32", "whole_1", "first_token_1")
    )
    return max((figure["others_used"] for of_gateways in shown for figure in of_gateways.values()), default=0.0)


def _row(report: dict[str, Any], name: str) -> str:
    about, figures = report["gateways"][name], report["figures"]
    one = figures.get("whole_1", {}).get(name, {})
    first = figures.get("first_token_1", {}).get(name, {})
    title = about["title"] if about["title"].startswith("llmchat") else f"{about['title']} ({about['version']})"
    cells = [
        f"**{title}**" if name == OURS else title,
        _throughput(report, "whole_64", name),
        _throughput(report, "whole_64_unlimited", name),
        _throughput(report, "streamed_32", name),
        f"{_milliseconds(one.get('added_p50'))} / {_milliseconds(one.get('added_p99'))}",
        _milliseconds(first.get("added_first_p50")),
        f"{about['memory']['idle']['all']['pss']:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _throughput(report: dict[str, Any], scenario: str, name: str) -> str:
    figure = report["figures"].get(scenario, {}).get(name)
    if figure is None or figure["per_second"] is None:
        return "-"
    # More than was measured: the load's own core had nothing left.
    if not figure["answered"]:
        return (
            f"fails ({', '.join(sorted({error for run in figure['runs'] for error in run['errors']})) or 'no answer'})"
        )
    mark = "> " if figure["load_core_used"] > EXHAUSTED else ""
    wrong = figure["asked"] - figure["answered"]
    digits = 0 if figure["per_second"] >= 10 else 1
    shown = f"{mark}{figure['per_second']:,.{digits}f}"
    if name != OURS and not name.startswith("llmchat") and (ratio := ratios(report, scenario, name)) is not None:
        shown += f" ({ratio[0]:.{0 if ratio[0] >= 10 else 1 if ratio[0] >= 1 else 2}f})"
    return f"{shown}, {wrong} wrong" if wrong else shown


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    arguments = parser.parse_args()
    made = current()
    print(made)
    if arguments.write:
        README.write_text(put(README.read_text(encoding="utf-8"), made), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
