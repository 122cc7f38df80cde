"""What a record of this size costs to keep: exports, bytes, roll-ups that follow, retention. Needs a Django that stands
on the record; what removes rows is asked for by name."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench import storage
from bench.gateway import MODEL, Gateway
from bench.gateways import Upstream
from bench.load import Task
from bench.visitors import Visitors

#: Seconds for which each format is exported, and rows are removed.
EXPORT_SECONDS, RETENTION_SECONDS = 20.0, 60.0
_LAG_SECONDS, _LAG_RATE, _LAG_PATIENCE = 20.0, 50.0, 300.0
#: A day is sampled in so many hours of the record.
_SAMPLED = 40


def export(directory: Path) -> dict[str, Any]:
    """Rows a second of each format, of all columns, from the oldest row on; the file is made whole at the end."""
    from chat.exports import copying
    from chat.exports.files import Partial
    from chat.selection import Selection
    from llmchat.lib.tables import Format

    found = {}
    for form in Format:
        checkpoint = copying.first_checkpoint(form, Selection(), redact=False)
        path = directory / f"export.{form.value}"
        began, cpu = time.monotonic(), time.process_time()

        def goes_on(until: float = began + EXPORT_SECONDS) -> bool:
            return time.monotonic() < until

        with Partial.begin(path, form, copying.columns_of(checkpoint), checkpoint) as out:
            is_whole = copying.copy(out, copying.reader_of(checkpoint), go_on=goes_on)
            size = out.finish()
        seconds = time.monotonic() - began
        rows = out.checkpoint.rows
        found[form.value] = {
            "rows": rows,
            "is_whole": is_whole,
            "seconds": round(seconds, 2),
            "rows_per_second": round(rows / seconds),
            "rows_per_cpu_second": round(rows / (time.process_time() - cpu)),
            "bytes_per_row": round(size / rows, 1) if rows else None,
        }
        path.unlink()
    return found


def bytes_a_row(url: str) -> dict[str, Any]:
    """Of an interaction with its attempts, beyond its texts: sizes as PostgreSQL tells them; rows are estimated by its
    statistics, and texts weighed in hours spread over the record."""
    if not url.startswith("postgres"):
        from django.conf import settings

        from chat.models import Interaction

        whole = sum(
            path.stat().st_size for path in Path(settings.DATABASES["default"]["NAME"]).parent.glob("*.sqlite3")
        )
        rows = Interaction.objects.count()
        return {"rows": rows, "whole_database": round(whole / rows, 1)}
    with psycopg.connect(url, autocommit=True) as connection:
        rows = _one(
            connection,
            "SELECT sum(greatest(reltuples, 0)) FROM pg_class WHERE oid IN (SELECT relid FROM pg_partition_tree(%s))"
            " AND relkind = 'r'",
            "chat_interaction",
        )
        size = {
            table: _one(
                connection, "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(%s) WHERE isleaf", table
            )
            for table in storage.TABLES
        }
        others = {
            table: _one(connection, "SELECT pg_total_relation_size(%s::regclass)", table)
            for table in ("analytics_cell", "analytics_dimensions", "chat_finding")
            if _one(connection, "SELECT to_regclass(%s)", table)
        }
        texts = _texts(connection)
    return {
        "rows": int(rows),
        "tables": {table: round(int(found) / float(rows), 1) for table, found in size.items()},
        "texts": round(texts, 1),
        "beyond_texts": round(sum(map(int, size.values())) / float(rows) - texts, 1),
        "besides": {table: round(int(found) / float(rows), 1) for table, found in others.items()},
    }


def _texts(connection: psycopg.Connection[Any]) -> float:
    """Bytes of an interaction's texts, its attempts' included."""
    from chat.models import Interaction
    from llmchat.lib.uuid7 import floor_at, moment_of

    ends = [moment_of(Interaction.objects.order_by(order).values_list("id", flat=True)[0]) for order in ("id", "-id")]
    rows = size = 0
    for number in range(_SAMPLED):
        since = floor_at(ends[0] + (ends[1] - ends[0]) * number / _SAMPLED)
        for table, key in (("chat_interaction", "id"), ("chat_attempt", "id")):
            sums = " + ".join(f"pg_column_size({name})" for name in storage.TEXTS[table])
            told = connection.execute(
                f"SELECT count(*), coalesce(sum(found), 0) FROM (SELECT {sums} AS found FROM {table} "
                f"WHERE {key} >= %s ORDER BY {key} LIMIT 250) AS sampled",
                [since],
            ).fetchone() or (0, 0)
            rows += told[0] if table == "chat_interaction" else 0
            size += int(told[1])
    return size / rows


def _one(connection: psycopg.Connection[Any], query: str, *arguments: Any) -> Any:
    row = connection.execute(query, arguments).fetchone()
    return row[0] if row else None


def lag(gateway: Gateway, vendor: Upstream, visitors: Visitors) -> dict[str, Any]:
    """Rows come in steadily; `seconds`: from the last one's answer until no note of a change is left and the usage that
    the API tells is final, and how old the oldest note was meanwhile."""
    import orjson

    from bench.__main__ import load
    from chat.models import Change

    ask = gateway.ask(MODEL, streamed=False, max_tokens=66)
    since = datetime.now(UTC).replace(second=0, microsecond=0)
    before = vendor.calls()
    tally = load(Task("127.0.0.1", gateway.port, [ask], connections=8, seconds=_LAG_SECONDS, rate=_LAG_RATE))
    ended = time.monotonic()
    while Change.objects.filter(minute__gte=since).exists() and time.monotonic() - ended < _LAG_PATIENCE:
        time.sleep(0.05)
    seconds = time.monotonic() - ended
    told = orjson.loads(visitors.caller.get("/v1/usage").body)
    return {
        "asked": tally.asked,
        "answered": tally.answered,
        "upstream_calls": vendor.calls() - before,
        "seconds": round(seconds, 2),
        "is_rolled_up": seconds < _LAG_PATIENCE,
        "pending": told.get("pendingSince"),
    }


def retention(*, remove: bool) -> dict[str, Any]:
    """How long it takes to say what would go of the oldest month, and with `remove` how fast it goes."""
    from accounts.models import Plan
    from chat.models import Interaction
    from llmchat.lib.uuid7 import moment_of

    oldest = moment_of(Interaction.objects.order_by("id").values_list("id", flat=True)[0])
    days = (datetime.now(UTC) - oldest).days - 35
    if days < 1:
        return {"fault": "the record is younger than the month that is to go"}
    before = dict(Plan.objects.values_list("pk", "retention_days"))
    Plan.objects.update(retention_days=days)
    try:
        found: dict[str, Any] = {"days_kept": days, "dry_run": _applied(dry_run=True)}
        if remove:
            found["removed"] = _applied(dry_run=False)
        return found
    finally:
        for pk, kept in before.items():
            Plan.objects.filter(pk=pk).update(retention_days=kept)


def _applied(*, dry_run: bool) -> dict[str, Any]:
    from chat import retention as retaining

    began, cpu = time.monotonic(), time.process_time()
    removals = list(retaining.apply(dry_run=dry_run, seconds=RETENTION_SECONDS, by="bench.operators"))
    seconds = time.monotonic() - began
    rows = sum(removal.interactions for removal in removals)
    return {
        "interactions": rows,
        "partitions": [removal.partition for removal in removals if removal.partition],
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds) if seconds else None,
        "own_cpu_seconds": round(time.process_time() - cpu, 2),
    }
