"""Says which providers can be reached, and what to do about those that cannot."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from providers import health
from providers.health import Probe

_HEADINGS = ("PROVIDER", "CONFIGURED", "REACHABLE", "LATENCY", "REMARK")


class Command(BaseCommand):
    help = (
        "Asks every provider that has a key for a sign of life, which costs no tokens. Exits with 1 when one of them "
        "gives none; a provider that needs no key and does not run is no failure."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
        parser.add_argument(
            "--timeout", type=float, default=health.PROBE_SECONDS, metavar="SECONDS", help="for each (%(default)s)"
        )

    def handle(self, *args: Any, timeout: float, **options: Any) -> None:
        probes = health.probe_now(configured_only=False, seconds=timeout)
        if options["json"]:
            self.stdout.write(json.dumps([_as_json(probe) for probe in probes], indent=2))
        else:
            for line in _table([_HEADINGS, *(_row(probe) for probe in probes)]):
                self.stdout.write(line)
        if any(probe.is_failure for probe in probes):
            sys.exit(1)


def _as_json(probe: Probe) -> dict[str, Any]:
    return {**dataclasses.asdict(probe), "is_reachable": probe.is_reachable, "is_failure": probe.is_failure}


def _row(probe: Probe) -> tuple[str, ...]:
    reachable = ("yes" if probe.is_reachable else "no") if probe.is_configured else "-"
    latency = "-" if probe.latency_ms is None else f"{probe.latency_ms:.0f} ms"
    remark = " ".join(filter(None, (probe.error, probe.remedy)))
    return probe.provider, "yes" if probe.is_configured else "no", reachable, latency, remark


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
