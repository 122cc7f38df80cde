"""On PostgreSQL, interactions and attempts become partitioned tables; see `chat.partitions`. SQLite keeps its tables.

Rows of before stay where they are: their table becomes the partition of everything until the next month. That reads
each table once, to prove the bound, and writes nothing but the few rows of a clock that was ahead. The way back copies.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import migrations

from llmchat.lib.uuid7 import floor_at

#: Each table with the UUIDv7 column by which it is parted, its key, and the model's name.
TABLES = (
    ("chat_interaction", "id", "CONSTRAINT chat_interaction_pkey PRIMARY KEY (id)", "Interaction"),
    ("chat_attempt", "interaction_id", "CONSTRAINT attempt_once UNIQUE (interaction_id, number)", "Attempt"),
)


def partition(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    bound = floor_at(next_month(dt.datetime.now(dt.UTC)))
    with connection.cursor() as cursor:
        for table, column, key, model in TABLES:
            before = f"{table}_before"
            cursor.execute(f"ALTER TABLE {table} RENAME TO {before}")
            rename_indexes(cursor, before)
            cursor.execute(f"CREATE TABLE {table} ({columns_of(cursor, before)}) PARTITION BY RANGE ({column})")
            cursor.execute(f"ALTER TABLE {table} ADD {key}")
            for name, check in checks_of(cursor, before):
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {check}")
            for index in apps.get_model("chat", model)._meta.indexes:
                schema_editor.execute(index.create_sql(apps.get_model("chat", model), schema_editor))
            cursor.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
            cursor.execute(f"SELECT EXISTS (SELECT FROM {before})")
            if not cursor.fetchone()[0]:
                cursor.execute(f"DROP TABLE {before}")
                continue
            if table == "chat_attempt":
                cursor.execute(f"ALTER TABLE {before} DROP CONSTRAINT {before}_pkey")
            names = names_of(cursor, before)
            cursor.execute(
                f"WITH ahead AS (DELETE FROM {before} WHERE {column} >= '{bound}' RETURNING {names}) "
                f"INSERT INTO {table}_default ({names}) SELECT {names} FROM ahead"
            )
            cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ('{bound}')")


def unpartition(apps: Any, schema_editor: Any) -> None:
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        for table, _, _, model in TABLES:
            whole = f"{table}_whole"
            cursor.execute(f"CREATE TABLE {whole} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            cursor.execute(f"INSERT INTO {whole} SELECT * FROM {table}")
            cursor.execute(f"DROP TABLE {table}")
            cursor.execute(f"ALTER TABLE {whole} RENAME TO {table}")
            cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (id)")
            if table == "chat_attempt":
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT attempt_once UNIQUE (interaction_id, number)")
            for index in apps.get_model("chat", model)._meta.indexes:
                schema_editor.execute(index.create_sql(apps.get_model("chat", model), schema_editor))


def next_month(moment: dt.datetime) -> dt.datetime:
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + dt.timedelta(days=32)).replace(day=1)


def rename_indexes(cursor: Any, before: str) -> None:
    cursor.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass", [before])
    for (name,) in cursor.fetchall():
        table = before.removesuffix("_before")
        new = name.replace(table, before) if name.startswith(table) else f"{name}_before"
        cursor.execute(f"ALTER INDEX {name} RENAME TO {new}")


def columns_of(cursor: Any, table: str) -> str:
    """The table's columns in the order in which a row takes the least space: widest alignment first, texts last."""
    cursor.execute(
        """
        SELECT quote_ident(attname), format_type(atttypid, atttypmod), attnotnull
        FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
        WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
        ORDER BY attlen < 0, array_position(ARRAY['d', 'i', 's', 'c'], pg_type.typalign::text),
                 array_position(ARRAY['numeric', 'varchar', 'jsonb', 'text'], typname::text) NULLS FIRST, attnum
        """,
        [table],
    )
    return ", ".join(f"{name} {kind}{' NOT NULL' if required else ''}" for name, kind, required in cursor.fetchall())


def checks_of(cursor: Any, table: str) -> list[tuple[str, str]]:
    cursor.execute(
        "SELECT quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = %s::regclass AND contype = 'c'",
        [table],
    )
    return cursor.fetchall()


def names_of(cursor: Any, table: str) -> str:
    cursor.execute(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        [table],
    )
    return cursor.fetchone()[0]


class Migration(migrations.Migration):
    dependencies = [("chat", "0005_lean_indexes")]

    operations = [migrations.RunPython(partition, unpartition)]
