"""What roll-ups cost and give: rolling up a record, a busy minute, the note beside each commit; answers; bytes.

    .venv/bin/python -m bench.rollups [--interactions N] [--minute-rows N]

A throw-away PostgreSQL filled by `seed_demo`. A table on the terminal, and bench/results/rollups.json.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from bench import machine
from llmchat.tests.servers import PROJECT, LiveServer, PostgreSQL

RESULTS = PROJECT / "bench" / "results" / "rollups.json"
ROUNDS = 15
PACKAGES = ("django", "psycopg")
TABLES = ("analytics_cell", "analytics_dimensions", "analytics_period")


def milliseconds(work: Callable[[], Any]) -> dict[str, float]:
    work()
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        found.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": round(statistics.median(found), 1), "worst_ms": round(max(found), 1)}


def measure(*, minute_rows: int) -> dict[str, Any]:
    """Everything, in a process whose Django stands on the filled database."""
    from django.db import connection

    from accounts.models import Organization
    from analytics import rolling
    from analytics.models import Cell, Grain
    from chat.models import Interaction

    found: dict[str, Any] = {}
    rows = Interaction.objects.count()
    began = time.perf_counter()
    report = rolling.roll_up()
    seconds = time.perf_counter() - began
    found["rolling_up_all"] = {
        "interactions": rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "hours": report.hours,
        "days": report.days,
        "months": report.months,
    }
    with connection.cursor() as cursor:
        cursor.execute("VACUUM FULL ANALYZE analytics_cell")
        cursor.execute(f"SELECT {' + '.join('pg_total_relation_size(%s)' for _ in TABLES)}", TABLES)
        size = cursor.fetchone()[0]
    found["storage"] = {
        "cells": {grain.label: Cell.objects.filter(grain=grain).count() for grain in Grain},
        "bytes": size,
        "bytes_per_interaction": round(size / rows, 1),
    }
    largest = max(Organization.objects.all(), key=lambda each: Interaction.objects.filter(organization=each).count())
    found["answers"] = answers(largest.id)
    found["busy_minute"] = busy_minute(largest, minute_rows)
    found["note"] = note(largest)
    return found


def answers(organization: Any) -> dict[str, dict[str, float]]:
    from analytics import usage
    from analytics.models import Grain
    from analytics.questions import Question
    from analytics.reading import answer

    now = dt.datetime.now(dt.UTC)
    today = now.date()
    everything: dict[str, Any] = {"group_by": None, "interval": None, "only": {}, "limit": 100}

    def told(days: int, **asked: Any) -> Callable[[], Any]:
        start = today - dt.timedelta(days=days - 1)
        return lambda: usage.usage(organization, start=start, end=today, **{**everything, **asked})

    def of_all(days: int, **asked: Any) -> Callable[[], Any]:
        since = now.replace(hour=0, minute=0, second=0, microsecond=0) - dt.timedelta(days=days - 1)
        question = Question(organization_id=None, since=since, until=now + dt.timedelta(days=1), **asked)
        return lambda: answer(question)

    return {
        name: milliseconds(work)
        for name, work in {
            "own day by hour": told(1, interval=Grain.HOUR),
            "own month": told(30),
            "own month by key and day": told(30, group_by="key", interval=Grain.DAY),
            "own month by user": told(30, group_by="user"),
            "own year by model": told(365, group_by="model"),
            "own year of failures by error": told(365, group_by="error_code", only={"status": "failed"}),
            "own statistics of 24 hours": lambda: usage.statistics(
                organization, since=now - dt.timedelta(hours=24), until=now
            ),
            "everybody's day by model": of_all(1, by=("model",)),
            "everybody's month by model and day": of_all(30, by=("model",), interval=Grain.DAY),
            "everybody's year by provider": of_all(365, by=("provider",)),
        }.items()
    }


def busy_minute(organization: Any, count: int) -> dict[str, float]:
    """One round of the worker over a minute with so many rows."""
    from analytics import rolling
    from analytics.tests.record import some_exchanges
    from chat import changes
    from chat.rows import store

    minute = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    batch = some_exchanges([organization], count, since=minute, until=minute + changes.MINUTE, seed=1)
    for begin in range(0, count, 500):
        store(batch[begin : begin + 500])

    def once() -> None:
        changes.note([batch[0].id])
        rolling.roll_up()

    return {"rows": count, **milliseconds(once)}


def note(organization: Any) -> dict[str, float]:
    """A transaction of 20 exchanges with the note of their minute and without, in turns."""
    from analytics.tests.record import some_exchanges
    from chat import changes, rows

    now = dt.datetime.now(dt.UTC)
    spent: dict[bool, list[float]] = {True: [], False: []}
    for number in range(200):
        noted = number % 2 == 0
        batch = some_exchanges([organization], 20, since=now - changes.MINUTE, until=now, seed=1000 + number)
        with nullcontext() if noted else mock.patch.object(changes, "note"):
            began = time.perf_counter()
            rows.store(batch)
            spent[noted].append((time.perf_counter() - began) * 1000)
    medians = {noted: statistics.median(found) for noted, found in spent.items()}
    return {
        "with_ms": round(medians[True], 3),
        "without_ms": round(medians[False], 3),
        "ratio": round(medians[True] / medians[False], 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=200_000, metavar="N")
    parser.add_argument("--minute-rows", type=int, default=20_000, metavar="N")
    options = parser.parse_args()
    load = os.getloadavg()
    with PostgreSQL() as postgresql, tempfile.TemporaryDirectory(prefix="llmchat-bench-") as directory:
        url = postgresql.create_database("rollups")
        server = LiveServer(Path(directory), environment={"DATABASE_URL": url})
        server.manage("migrate", "--verbosity", "0")
        server.manage("seed_demo", "--interactions", str(options.interactions), seconds=3600)
        os.environ |= {"ENV_FILE": os.devnull, "DATA_DIR": directory, "DATABASE_URL": url}
        os.environ["DJANGO_SETTINGS_MODULE"] = "llmchat.settings"
        import django

        django.setup()
        found = measure(minute_rows=options.minute_rows)
        from django.db import connections

        connections.close_all()
        connections["default"].close_pool()  # type: ignore[attr-defined]
    report = {
        "measured_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.describe(PACKAGES),
        "load_average": {"before": load, "after": os.getloadavg()},
        **found,
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, figures in found.items():
        print(f"\n{name}")
        for what, value in figures.items():
            print(f"  {what:40}{value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
