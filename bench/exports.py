"""What an export costs: rows a second by the clock and by processor time, and the peak of memory, format by format.

    .venv/bin/python -m bench.exports [--interactions N] [--rounds N]

Throw-away databases, PostgreSQL and SQLite, filled by `seed_demo`. A table on the terminal, and
bench/results/exports.json.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import files as files_of
from pathlib import Path
from typing import Any

from bench.machine import commit, describe, end_orderly, now
from llmchat.tests.servers import PROJECT, LiveServer, PostgreSQL

RESULTS = PROJECT / "bench" / "results" / "exports.json"
#: Rows a second: what must hold, and what is aimed at.
MUST, AIM = 20_000, 60_000
FORMATS = ("csv", "jsonl", "parquet")
#: An option with which there is nothing to export: what is left is the start of the process.
NOTHING = "--until=2001-01-01"


def run(environment: Mapping[str, str], folder: Path, form: str, *options: str) -> dict[str, float]:
    """One export in a process of its own: seconds by the clock and of the processor, megabytes (10^6) at the peak."""
    path = folder / f"bench.{form}"
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "export_interactions", f"--format={form}", f"--output={path}", *options],
        env=environment,
        cwd=PROJECT,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"export_interactions ended with {process.returncode}.")
    size = path.stat().st_size
    path.unlink()
    return {
        "seconds": time.monotonic() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "bytes": size,
    }


def measure(environment: Mapping[str, str], folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    """Every format, in turns; without the start of the process, which an export of nothing shows."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for form in FORMATS:
            for what, options in (("nothing", [NOTHING]), ("all", []), ("redacted", ["--redact"])):
                found.setdefault((form, what), []).append(run(environment, folder, form, *options))

    def median(form: str, what: str, figure: str) -> float:
        return statistics.median(each[figure] for each in found[form, what])

    report: dict[str, Any] = {}
    for form in FORMATS:
        for what in ("all", "redacted"):
            seconds, cpu = (median(form, what, name) - median(form, "nothing", name) for name in ("seconds", "cpu"))
            report[f"{form}{', redacted' if what == 'redacted' else ''}"] = {
                "rows_per_second": round(rows / seconds),
                "rows_per_cpu_second": round(rows / cpu),
                "peak_mb": round(median(form, what, "peak_mb"), 1),
                "peak_mb_of_nothing": round(median(form, "nothing", "peak_mb"), 1),
                "bytes_a_row": round(median(form, what, "bytes") / rows, 1),
            }
    return report


def parts(rows: int) -> dict[str, Any]:
    """Processor time of what an export is made of, in this process, whose Django stands on the database: reading as we
    do and by the ORM, writing CSV as we do and by the csv module."""
    # Here: Django is set up once the database is known.
    from chat.exports import reading
    from chat.models import Interaction
    from llmchat.lib import tables

    count = min(rows, 20_000)
    newest = Interaction.objects.order_by("-id")[count - 1 : count].values("id")
    some = Interaction.objects.filter(id__gte=newest)
    columns = reading.columns(redact=False)
    names = [column.name for column in columns if column.name != "organization"]

    def read() -> list[Any]:
        taken: list[Any] = []
        reader, after = reading.Reader(rows=some), None
        while page := [row for chunk in reader.page(after) for row in chunk]:
            taken += page
            after = page[-1][0]
        return taken

    def by_the_orm() -> None:
        for _ in some.order_by("id").values_list(*names).iterator(chunk_size=reading.CHUNK):
            pass

    taken = read()

    def ours() -> None:
        for first in range(0, count, reading.CHUNK):
            tables.csv_rows(columns, taken[first : first + reading.CHUNK])

    def the_module() -> None:
        for first in range(0, count, reading.CHUNK):
            out = io.StringIO()
            csv.writer(out).writerows(taken[first : first + reading.CHUNK])
            out.getvalue().encode()

    spent = {"reading": read, "reading by the ORM": by_the_orm, "csv": ours, "csv by the csv module": the_module}
    return {f"{name}, us a row": round(_cpu(work) / count * 1e6, 1) for name, work in spent.items()}


def _cpu(work: Callable[[], Any]) -> float:
    found = []
    for _ in range(5):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def pyarrow(report: Mapping[str, Any]) -> dict[str, float]:
    """What Parquet's library takes: on the disk, and of a process that writes Parquet more than one that writes CSV."""
    size = sum(Path(str(each.locate())).stat().st_size for each in files_of("pyarrow") or () if each.size)
    memory = report["parquet"]["peak_mb_of_nothing"] - report["csv"]["peak_mb_of_nothing"]
    return {"disk_mb": round(size / 1e6, 1), "memory_mb": round(memory, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=200_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    options = parser.parse_args()
    rows: int = options.interactions
    end_orderly()
    load = os.getloadavg()
    found: dict[str, Any] = {}
    with PostgreSQL() as postgresql, tempfile.TemporaryDirectory(prefix="llmchat-bench-") as directory:
        folder = Path(directory)
        url = postgresql.create_database("exports")
        for name, address in (("postgresql", url), ("sqlite", f"sqlite:///{folder / 'exports.sqlite3'}")):
            server = LiveServer(folder, environment={"DATABASE_URL": address})
            server.manage("migrate", "--verbosity", "0")
            server.manage("seed_demo", "--interactions", str(rows), "--until", "2026-11-20T12:00Z", seconds=3600)
            found[name] = measure(server.environment, folder, rows, options.rounds)
        os.environ |= {"ENV_FILE": os.devnull, "DATA_DIR": directory, "DATABASE_URL": url}
        os.environ["DJANGO_SETTINGS_MODULE"] = "llmchat.settings"
        import django

        django.setup()
        found["parts on postgresql"] = parts(rows)
        from django.db import connections

        connections.close_all()
        connections["default"].close_pool()  # type: ignore[attr-defined]
    found["pyarrow"] = pyarrow(found["postgresql"])
    report = {
        "measured_at": now(),
        "commit": commit(),
        "machine": describe(["django", "psycopg", "orjson", "pyarrow"]),
        "load_average": {"before": load, "after": os.getloadavg()},
        "interactions": rows,
        "rows_per_second": {"must": MUST, "aim": AIM},
        **found,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, figures in found.items():
        print(f"\n{name}")
        for what, value in figures.items():
            print(f"  {what:<26}{value}")
    slowest = min(each["rows_per_cpu_second"] for name in ("postgresql", "sqlite") for each in found[name].values())
    return 0 if slowest >= MUST else 1


if __name__ == "__main__":
    raise SystemExit(main())
