"""How many bytes an interaction with its attempt takes on PostgreSQL, table by table, column by column, index by index.

    .venv/bin/python -m bench.storage [--interactions N]

A throw-away PostgreSQL filled by `seed_demo`; a table on the terminal, and bench/results/storage.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench import machine
from llmchat.tests.servers import PROJECT, LiveServer, PostgreSQL

RESULTS = PROJECT / "bench" / "results" / "storage.json"
#: Bytes an interaction beyond its texts: what must hold, and what is aimed at.
MUST, AIM = 900, 500
TABLES = ("chat_interaction", "chat_attempt")
#: What people and models said; everything else is counted.
TEXTS = {
    "chat_interaction": ("prompt", "system_prompt", "response", "reasoning", "error_message"),
    "chat_attempt": ("error_message",),
}


def measure(connection: psycopg.Connection[Any], table: str) -> dict[str, Any]:
    """The table's bytes over all its partitions: heap with its maps and long values, indexes by name, columns."""
    heap = _one(connection, "SELECT sum(pg_table_size(relid)) FROM pg_partition_tree(%s) WHERE isleaf", table)
    indexes = {
        name: int(size)
        for name, size in connection.execute(
            "SELECT parent.relname, sum(pg_relation_size(inhrelid)) FROM pg_index "
            "JOIN pg_class parent ON parent.oid = indexrelid JOIN pg_inherits ON inhparent = indexrelid "
            "WHERE indrelid = %s::regclass GROUP BY 1 ORDER BY 2 DESC",
            [table],
        )
    }
    names = [row[0] for row in connection.execute(f"SELECT * FROM {table} LIMIT 0").description or ()]
    sums = ", ".join(f'coalesce(sum(pg_column_size("{name}")), 0)' for name in names)
    found = connection.execute(f"SELECT {sums} FROM {table}").fetchone() or ()
    return {"heap": int(heap), "indexes": indexes, "columns": dict(zip(names, map(int, found), strict=True))}


def _one(connection: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    row = connection.execute(query, arguments).fetchone()
    return row[0] if row else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=200_000, metavar="N")
    count: int = parser.parse_args().interactions
    with PostgreSQL() as postgresql, tempfile.TemporaryDirectory(prefix="llmchat-bench-") as directory:
        url = postgresql.create_database("storage")
        server = LiveServer(Path(directory), environment={"DATABASE_URL": url})
        server.manage("migrate", "--verbosity", "0")
        began = time.monotonic()
        said = server.manage("seed_demo", "--interactions", str(count), "--until", "2026-11-20T12:00Z", seconds=3600)
        seconds = time.monotonic() - began
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            tables = {table: measure(connection, table) for table in TABLES}
            attempts = _one(connection, "SELECT count(*) FROM chat_attempt")
    whole = sum(table["heap"] + sum(table["indexes"].values()) for table in tables.values())
    texts = sum(tables[table]["columns"][name] for table, names in TEXTS.items() for name in names)
    beyond = (whole - texts) / count
    report = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.describe(("django", "psycopg")),
        "load_average": os.getloadavg(),
        "interactions": count,
        "attempts": attempts,
        "seeding": {"seconds": round(seconds, 1), "said": said.strip().splitlines()[-1]},
        "bytes_an_interaction": {
            "all": round(whole / count, 1),
            "texts": round(texts / count, 1),
            "beyond_texts": round(beyond, 1),
            "must": MUST,
            "aim": AIM,
        },
        "tables": {table: _each(found, count) for table, found in tables.items()},
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    show(report)
    return 0 if beyond <= MUST else 1


def _each(found: dict[str, Any], count: int) -> dict[str, Any]:
    """All figures for one interaction."""
    return {
        "heap": round(found["heap"] / count, 1),
        "indexes": {name: round(size / count, 1) for name, size in found["indexes"].items()},
        "columns": {
            name: round(size / count, 1) for name, size in sorted(found["columns"].items(), key=lambda item: -item[1])
        },
    }


def show(report: dict[str, Any]) -> None:
    for table, found in report["tables"].items():
        print(f"{table}: heap {found['heap']}")
        for name, size in found["indexes"].items():
            print(f"    {name:<28}{size:>8}")
    figures = report["bytes_an_interaction"]
    print(f"bytes an interaction: {figures['all']}, texts {figures['texts']}, beyond them {figures['beyond_texts']}")
    print(f"(must {figures['must']}, aim {figures['aim']}); {report['seeding']['said']}")


if __name__ == "__main__":
    raise SystemExit(main())
