"""How the record lies on PostgreSQL: interactions and attempts in one partition a month, by the time in their UUIDv7.

    chat_interaction          PARTITION BY RANGE (id)
    chat_attempt              PARTITION BY RANGE (interaction_id)     goes with its interaction
    chat_searchentry          PARTITION BY RANGE (interaction_id)     and so do its words, see `chat.search_index`
        ..._before            what was there before the tables were partitioned, if anything was
        ..._2026_11           a month, made ahead
        ..._default           whatever has no partition yet: no insert ever fails for lack of one

Knows tables and bounds, nothing of what the rows mean; on SQLite, which keeps one table each, there is nothing to do.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.utils import timezone

from llmchat.lib.uuid7 import floor_at, moment_of

logger = logging.getLogger(__name__)

#: Each table with the column by which it is parted.
TABLES: Final = {"chat_interaction": "id", "chat_attempt": "interaction_id", "chat_searchentry": "interaction_id"}
#: Whole months that have their partitions before they begin.
AHEAD: Final = 2
#: How long others may have to wait behind us for a table.
LOCK_TIMEOUT: Final = "500ms"
#: Ids of other years are no ids of ours: their rows stay in the default partition.
_YEARS: Final = range(2000, 2100)
_INDEX: Final = re.compile(r"^CREATE (UNIQUE )?INDEX \S+ ON (?:ONLY )?\S+ ")
_BOUNDS: Final = re.compile(r"FOR VALUES FROM \((MINVALUE|'[0-9a-f-]+')\) TO \('([0-9a-f-]+)'\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition's name and bounds: ids from `since` (None: from the first) and before `until`."""

    name: str
    since: UUID | None
    until: UUID


def is_partitioned() -> bool:
    """Whether the record is; on PostgreSQL it is not before its migration, nor after the way back."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass('chat_interaction'))"
        )
        found: Any = cursor.fetchone()
    return bool(found[0])


def partitions(table: str) -> list[Partition]:
    """The partitions of a table in the order of their bounds, without the default one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, pg_get_expr(relpartbound, pg_class.oid) FROM pg_inherits "
            "JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass",
            [table],
        )
        found = [
            Partition(name=name, since=_bound(bounds[1]), until=UUID(bounds[2]))
            for name, expression in cursor.fetchall()
            if (bounds := _BOUNDS.fullmatch(expression))
        ]
    return sorted(found, key=lambda partition: partition.until)


def make(moment: dt.datetime | None = None, *, until: dt.datetime | None = None) -> list[str]:
    """Makes the partitions of the month of `moment` (now) and of those ahead (and up to `until`), and of whatever is in
    the default partition, whose rows move. Returns the names of the new ones; what exists stays as it is.

    Inserts wait for the instant in which a partition is attached; a table that is busy for longer is tried again by
    the next call, and told in the log.
    """
    if not is_partitioned():
        return []
    first = _month_of(moment or timezone.now())
    wanted = [first]
    while len(wanted) <= AHEAD or (until is not None and wanted[-1] < until):
        wanted.append(_after(wanted[-1]))
    made = []
    for table in TABLES:
        for month in sorted({*wanted, *_strays(table)}):
            try:
                made += _make(table, month)
            except OperationalError as error:
                if "lock timeout" not in str(error):
                    raise
                logger.warning("The partition of %s for %s waits: the table is busy.", table, f"{month:%Y-%m}")
    if made:
        analyze()
    return made


def analyze() -> None:
    """The planner's figures of a partitioned table as a whole: autovacuum looks at partitions only."""
    if not is_partitioned():
        return
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ANALYZE {table}")


def drop(partition: Partition) -> None:
    """Removes a partition of interactions with that of their attempts, rows and all.

    Raises OperationalError when the tables are busy: nobody is made to wait for them.
    """
    suffix = partition.name.removeprefix("chat_interaction")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        for table in TABLES:
            cursor.execute(f'DROP TABLE IF EXISTS "{table}{suffix}"')


# --- Months that are filled before they are attached -----------------------------------------------------------------


def months(since: dt.datetime, until: dt.datetime) -> list[dt.datetime]:
    """The months that have any moment of the range, in order."""
    found = [_month_of(since)]
    while _after(found[-1]) < until:
        found.append(_after(found[-1]))
    return found


def bounds_of(month: dt.datetime) -> tuple[UUID, UUID]:
    """The least id of the month, and that of the next one."""
    return floor_at(month), floor_at(_after(month))


def is_empty(first: dt.datetime, last: dt.datetime) -> bool:
    """Whether the record has no rows of these months, and no partition that has them and others."""
    since, until = floor_at(first), floor_at(_after(last))
    own = {f"chat_interaction_{month:%Y_%m}" for month in months(first, _after(last))}
    if any(
        (partition.since is None or partition.since < until) and since < partition.until and partition.name not in own
        for partition in partitions("chat_interaction")
    ):
        return False
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM chat_interaction WHERE id >= %s AND id < %s)", [since, until])
        found: Any = cursor.fetchone()
    return not found[0]


def discard(month: dt.datetime) -> None:
    """Removes the partitions of an empty month, and what is left of tables that were to become them."""
    with transaction.atomic(), connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS {table}_{month:%Y_%m}")


def create_apart(table: str, month: dt.datetime) -> str:
    """Makes the table that `attach` will make the month's partition; it has no indexes, and nobody sees its rows. Call
    it in a transaction. Returns its name."""
    name = f"{table}_{month:%Y_%m}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)")
    return name


def index_apart(table: str, name: str) -> None:
    """Gives a table that was made apart the keys and indexes that partitions of `table` have."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE conrelid = %s::regclass AND contype IN ('p', 'u')",
            [table],
        )
        keys = [definition for (definition,) in cursor.fetchall()]
        cursor.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass AND NOT EXISTS "
            "(SELECT FROM pg_constraint WHERE conindid = indexrelid)",
            [table],
        )
        indexes = [_INDEX.sub(rf"CREATE \1INDEX ON {name} ", definition) for (definition,) in cursor.fetchall()]
        for definition in keys:
            cursor.execute(f"ALTER TABLE {name} ADD {definition}")
        for definition in indexes:
            cursor.execute(definition)


def attach(table: str, month: dt.datetime) -> None:
    """Makes the table that was made apart the month's partition, with what has come for it since. Call it in a
    transaction."""
    with connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE")
        _attach(cursor, table, f"{table}_{month:%Y_%m}", month)


def _attach(cursor: Any, table: str, name: str, month: dt.datetime) -> None:
    column, (since, until) = TABLES[table], bounds_of(month)
    cursor.execute(
        f"WITH strays AS (DELETE FROM {table}_default WHERE {column} >= %s AND {column} < %s RETURNING *) "  # noqa: S608 - our own names
        f"INSERT INTO {name} SELECT * FROM strays",
        [since, until],
    )
    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{since}') TO ('{until}')")


def _strays(table: str) -> Iterator[dt.datetime]:
    """The months of which rows are in the default partition."""
    column, after = TABLES[table], floor_at(dt.datetime(_YEARS.start, 1, 1, tzinfo=dt.UTC))
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {column} FROM {table}_default "  # noqa: S608 - our own names
                f"WHERE {column} >= %s ORDER BY {column} LIMIT 1",
                [after],
            )
            found: Any = cursor.fetchone()
        if found is None or found[0] >= floor_at(dt.datetime(_YEARS.stop, 1, 1, tzinfo=dt.UTC)):
            return
        month = _month_of(_moment_of(found[0]))
        yield month
        after = floor_at(_after(month))


def _make(table: str, month: dt.datetime) -> list[str]:
    since = floor_at(month)
    if _is_covered(table, since):
        return []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # Readers go on. An insert that had chosen the default partition already would be refused by it afterwards.
        cursor.execute(f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE")
        if _is_covered(table, since):
            return []
        name = create_apart(table, month)
        _attach(cursor, table, name, month)
    return [name]


def _is_covered(table: str, bound: UUID) -> bool:
    return any(
        (partition.since is None or partition.since <= bound) and bound < partition.until
        for partition in partitions(table)
    )


def _bound(text: str) -> UUID | None:
    return None if text == "MINVALUE" else UUID(text.strip("'"))


def _moment_of(identifier: UUID) -> dt.datetime:
    """As `moment_of`, of whatever has found its way into the default partition."""
    return moment_of(UUID(int=identifier.int & ~(0xF << 76) | 0x7 << 76))


def _month_of(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _after(month: dt.datetime) -> dt.datetime:
    return (month + dt.timedelta(days=32)).replace(day=1)
