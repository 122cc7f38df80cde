"""What people who look at a large record wait for, and what it costs to keep: pages, searches, reports, usage, exports.

    .venv/bin/python -m bench.operators --interactions N [--sqlite] | --database-url URL
        [--parts pages,storage,export,lag,half,retention] [--rounds N] [--only TEXT] [--remove] [--keep]

Our own `manage.py serve`, on a throw-away PostgreSQL or SQLite file that `seed_demo` fills and `roll_up` rolls up, or
on a database that is there. A table on the terminal; bench/results/operators.json, or operators_sqlite.json. What is
measured and how is in bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench import beside, gateways, machine, pages, starting, upkeep
from bench.gateway import MODEL, WORDS, Gateway
from bench.gateways import Upstream
from bench.operators_table import evaluate, markdown
from bench.visitors import Visitors, visiting
from llmchat.tests.servers import PROJECT, LiveServer, PostgreSQL

RESULTS = PROJECT / "bench" / "results"
PACKAGES = ("django", "uvicorn", "psycopg", "orjson", "pyarrow")
PARTS = ("pages", "storage", "export", "lag", "half", "retention")
#: The organization whose key the load has.
ASKING = "bench"


@dataclass(frozen=True, slots=True)
class Bench:
    """A server on the record, and who asks it. `gateway` is the same server as the load asks it."""

    url: str
    directory: Path
    vendor: Upstream
    gateway: Gateway
    visitors: Visitors
    options: argparse.Namespace


def measure(bench: Bench) -> dict[str, Any]:
    """All parts that were asked for; one that fails says so and lets the others be."""
    options = bench.options
    parts: dict[str, Callable[[], Any]] = {
        "pages": lambda: pages.measure(bench.visitors, rounds=options.rounds, only=options.only),
        "storage": lambda: upkeep.bytes_a_row(bench.url),
        "export": lambda: upkeep.export(bench.directory),
        "lag": lambda: upkeep.lag(bench.gateway, bench.vendor, bench.visitors),
        "half": lambda: beside.measure(bench.gateway, bench.visitors.operator),
        "retention": lambda: upkeep.retention(remove=options.remove),
    }
    found: dict[str, Any] = {}
    for name in options.parts:
        began, busy = time.monotonic(), machine.busy()
        try:
            found[name] = parts[name]()
        except Exception as problem:
            traceback.print_exc()
            found[name] = {"fault": f"{type(problem).__name__}: {problem}"}
        seconds = time.monotonic() - began
        cores = round((machine.busy() - busy) / seconds, 2) if seconds else 0.0
        found.setdefault("took", {})[name] = {
            "seconds": round(seconds, 1),
            "cores_busy": cores,
            "measured_at": machine.now(),
            "commit": machine.commit(),
        }
        print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def filled(server: LiveServer, interactions: int) -> dict[str, Any]:
    """Seeds, rolls up, and makes words findable; seconds and rows a second of each."""
    told: dict[str, Any] = {}
    for name, work in (
        ("seeding", ("seed_demo", "--interactions", str(interactions), "--days", "365")),
        ("rolling_up", ("roll_up",)),
        ("words", ("shell", "--no-imports", "-c", "from chat import search_index; search_index.fill()")),
    ):
        began = time.monotonic()
        server.manage(*work, seconds=24 * 3600)
        seconds = time.monotonic() - began
        told[name] = {"seconds": round(seconds, 1), "rows_per_second": round(interactions / seconds)}
        print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    return told | {"interactions": interactions, "measured_at": machine.now(), "commit": machine.commit()}


def with_kept(report: dict[str, Any], path: Path) -> dict[str, Any]:
    """With those parts of an earlier report in `path` that were not measured now; `took` tells when each was."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in ("filled", *PARTS):
        if name in before and name not in report:
            report[name] = before[name]
    report["took"] = before.get("took", {}) | report.get("took", {})
    return report


def of_record(engine: str) -> dict[str, Any]:
    """What is on record, and what of it waits to be rolled up or to be found by its words."""
    # Here: Django is set up once the database is known.
    from django.db import connection

    from chat.models import Change, Interaction, SearchState

    told: dict[str, Any] = {}
    if engine == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT sum(greatest(reltuples, 0)) FROM pg_class WHERE relkind = 'r' AND oid IN "
                "(SELECT relid FROM pg_partition_tree('chat_interaction'))"
            )
            rows = int(cursor.fetchone()[0])
            cursor.execute("SHOW shared_buffers")
            told["shared_buffers"] = cursor.fetchone()[0]
    else:
        rows = Interaction.objects.count()
    state = SearchState.objects.first()
    return told | {
        "interactions": rows,
        "minutes_to_roll_up": Change.objects.count(),
        "words_are_whole": engine != "postgresql" or bool(state and state.is_whole),
    }


def largest() -> Any:
    """The organization that asked most lately, but for the one whose key the load has."""
    # Here: Django is set up once the database is known.
    from accounts.models import Organization
    from analytics.questions import Question
    from analytics.reading import answer

    now = datetime.now(UTC)
    question = Question(
        organization_id=None, since=now - timedelta(days=30), until=now, by=("organization_id",), times=False
    )
    groups = answer(question)[0].groups
    others = set(Organization.objects.exclude(name=ASKING).values_list("pk", flat=True))
    requests = {group[1]: totals.requests for group, totals in groups.items() if group[1] in others}
    return Organization.objects.get(pk=max(requests, key=lambda pk: requests[pk]))


def run(options: argparse.Namespace) -> dict[str, Any]:
    report: dict[str, Any] = {
        "measured_at": machine.now(),
        "commit": machine.commit(),
        "command": starting.plain([sys.executable, "-m", "bench.operators", *sys.argv[1:]]),
        "machine": machine.describe(PACKAGES) | {"postgresql": machine.program_version("postgres")},
        "others_used_before": machine.strangers(),
        "rounds": options.rounds,
    }
    if options.database_url:
        report["command"] = report["command"].replace(options.database_url, "URL")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmchat-bench-")))
        url = options.database_url
        if url is None and options.sqlite:
            url = f"sqlite:///{directory}/record.sqlite3"
        elif url is None:
            # A quarter of the memory, as its documentation advises for a machine that it has for itself.
            buffers = {"shared_buffers": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // 2**22}MB"}
            url = stack.enter_context(PostgreSQL(durable=True, settings=buffers)).create_database("operators")
        vendor = stack.enter_context(gateways.upstream(directory / "vendor"))
        settings = {"OPENAI_API_KEY": "mock", "OPENAI_BASE_URL": f"{vendor.url}/v1", "DEFAULT_MODEL": f"openai/{MODEL}"}
        server = LiveServer(directory, environment={"DATABASE_URL": url, **settings})
        server.manage("migrate", "--verbosity", "0", seconds=3600)
        if options.fill:
            report["filled"] = filled(server, options.interactions)
        os.environ |= {name: value for name, value in server.environment.items() if name not in os.environ}
        os.environ |= {"ENV_FILE": os.devnull, "DATA_DIR": str(server.data), "DATABASE_URL": url}
        os.environ["DJANGO_SETTINGS_MODULE"] = "llmchat.settings"
        import django

        django.setup()
        from django.db import connection, connections

        report["database"] = connection.vendor
        report["record"] = of_record(connection.vendor)
        try:
            with server, visiting(server.port, largest()) as visitors:
                gateway = _asked_by_load(server)
                bench = Bench(url, directory, vendor, gateway, visitors, options)
                report |= measure(bench)
                report["record_after"] = of_record(connection.vendor)
        finally:
            connections.close_all()
            if connection.vendor == "postgresql":
                connection.close_pool()  # type: ignore[attr-defined]
    report["finished_at"] = machine.now()
    if options.keep:
        with_kept(report, options.output or _results(report["database"]))
    report["budgets"] = evaluate(report)
    return report


def _results(engine: str) -> Path:
    return RESULTS / f"operators{'_sqlite' if engine == 'sqlite' else ''}.json"


def _asked_by_load(server: LiveServer) -> Gateway:
    """With a key of an organization that has no limits."""
    from accounts.models import Organization, Plan
    from accounts.services import create_api_key

    organization, _ = Organization.objects.get_or_create(
        name=ASKING, defaults={"plan": Plan.objects.get(slug="unlimited")}
    )
    _, raw = create_api_key(organization, name=f"bench-{os.getpid()}-{time.time_ns()}")
    return Gateway(
        name="llmchat",
        title="llmchat",
        version=machine.commit(),
        command=[],
        port=server.port,
        process=server.pid,
        headers={"Authorization": f"Bearer {raw}"},
        models={model: f"openai/{model}" for model in WORDS},
    )


def arguments_of(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.operators", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", metavar="URL", help="a record that is there; it is migrated and written to")
    parser.add_argument("--interactions", type=int, default=1_000_000, metavar="N", help="seeded without a URL")
    parser.add_argument("--sqlite", action="store_true", help="seeded into a SQLite file instead of PostgreSQL")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS), metavar="NAME,...")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="times that each page is asked for (20)")
    parser.add_argument("--only", default="", metavar="TEXT", help="pages whose names have this, no others")
    parser.add_argument("--fill", action="store_true", help="fill the database of the URL, too")
    parser.add_argument("--keep", action="store_true", help="keep the parts of the JSON file that are not measured now")
    parser.add_argument("--remove", action="store_true", help="let retention remove the oldest month of the record")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON file")
    options = parser.parse_args(words)
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"There is no part {', '.join(unknown)}. Choose of {', '.join(PARTS)}.")
    if not options.database_url:
        options.remove = options.fill = True
    return options


def main(words: Sequence[str] | None = None) -> int:
    options = arguments_of(words)
    machine.end_orderly()
    report = run(options)
    path = options.output or _results(report["database"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=str) + "\n", encoding="utf-8")
    print(markdown(report))
    return 0 if all(row["verdict"] != "MISSED" for row in report["budgets"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
