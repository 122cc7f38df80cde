"""Makes rows and inserts them by the hundred, with a fraction of the ORM's work and the same result.

On SQLite the values go into one prepared statement a table. On PostgreSQL the rows of all tables travel in a single
statement, those of a table as one JSON text, which the server takes apart into the table's own types. Elsewhere the ORM
does it. Knows models' fields, and nothing of what rows mean.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import orjson
import psycopg
from django.db import DEFAULT_DB_ALIAS, connection, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import format_number
from django.db.models.base import ModelState

from chat.encryption import ring, seal_text
from chat.fields import EncryptedJSONField, EncryptedTextField
from llmchat.lib.encryption import KeyRing

Row = TypeVar("Row", bound=models.Model)
Field: TypeAlias = "models.Field[Any, Any]"
Convert = Callable[[Any], Any]

#: Fields whose values SQLite's driver takes as they are. About what is not exactly a number or a text (None, True, a
#: member of an enumeration) it first asks in three ways for something else, for ten times what it costs to take it.
_PLAIN = (
    models.CharField,
    models.FloatField,
    models.PositiveIntegerField,
    models.PositiveSmallIntegerField,
)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of a model is always the same. `fields`: those that we fill, which a counting key is not. `constants` and
    `makers`: their defaults, and those that are called anew for each row."""

    fields: tuple[Field, ...]
    names: tuple[str, ...]
    named: frozenset[str]
    texts: tuple[Field, ...]
    documents: tuple[Field, ...]
    constants: Mapping[str, Any]
    makers: Sequence[tuple[str, Callable[[], Any]]]
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]


@cache
def _shape(model: type[models.Model]) -> _Shape:
    fields = tuple(field for field in model._meta.concrete_fields if not isinstance(field, models.AutoField))
    names = tuple(field.attname for field in fields)
    called = {field.attname: field.default for field in fields if field.has_default() and callable(field.default)}
    return _Shape(
        fields=fields,
        names=names,
        named=frozenset(names),
        texts=tuple(field for field in fields if isinstance(field, EncryptedTextField)),
        documents=tuple(field for field in fields if isinstance(field, EncryptedJSONField)),
        constants={field.attname: field.get_default() for field in fields if field.attname not in called},
        makers=tuple(called.items()),
        # Of one name, it would get no tuple.
        values=itemgetter(*names) if len(names) > 1 else lambda columns: (columns[names[0]],),
    )


def new(model: type[Row], columns: Mapping[str, Any]) -> Row:
    """As `model(**columns)` by names of columns (`organization_id`), without signals and checks."""
    shape = _shape(model)
    row = model.__new__(model)
    state = row.__dict__
    state["_state"] = ModelState()
    state.update(shape.constants)
    state.update(columns)
    for name, make in shape.makers:
        if name not in columns:
            state[name] = make()
    return row


def columns_of(row: models.Model) -> dict[str, Any]:
    """The row's values by the names of its columns, as Python has them."""
    shape = _shape(type(row))
    columns = row.__dict__.copy()
    columns.pop("_state", None)
    # Nearly always it is these and no others: no deferred column, nothing annotated.
    return columns if columns.keys() == shape.named else dict(zip(shape.names, _values(row, shape), strict=True))


def insert(*tables: Sequence[models.Model]) -> None:
    """Inserts all rows or none, those of one table in each sequence; rows that are there already stay as they are.

    Raises Django's DatabaseError, or what a value that no column can hold makes of itself.
    """
    filled = [rows for rows in tables if rows]
    if not filled:
        return
    # Each look through Django's `connection` costs more than a hundred values.
    link = connections[DEFAULT_DB_ALIAS]
    if link.vendor == "postgresql":
        # A statement is a transaction: to begin and to end one besides would be two more ways to the server and back.
        _insert_into_postgresql(filled)
        return
    is_alone = link.vendor == "sqlite" and not link.in_atomic_block
    with _Transaction(link) if is_alone else transaction.atomic(savepoint=False):
        for rows in filled:
            if link.vendor == "sqlite":
                _insert_into_sqlite(rows, link)
            else:
                _manager(type(rows[0])).bulk_create(rows, ignore_conflicts=True)


def _values(row: models.Model, shape: _Shape) -> tuple[Any, ...]:
    try:
        # Past the descriptors of foreign keys.
        return shape.values(row.__dict__)
    except KeyError:
        return tuple(getattr(row, name) for name in shape.names)


def _sealed(field: Field, value: Any, keys: KeyRing) -> Any:
    return seal_text(value, keys=keys) if type(value) is str else field.get_db_prep_save(value, connection)


# --- SQLite -----------------------------------------------------------------------------------------------------------
class _Transaction:
    """As `transaction.atomic` outside of another one, where nobody asks to be told of the commit, for less."""

    __slots__ = ("_errors", "_link", "_raw")

    def __init__(self, link: BaseDatabaseWrapper) -> None:
        self._link = link

    def __enter__(self) -> None:
        self._link.ensure_connection()
        self._raw: Any = self._link.connection
        self._errors = self._link.wrap_database_errors
        with self._errors:
            self._raw.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._errors:
            try:
                if kind is None:
                    self._raw.execute("COMMIT")
            finally:
                if self._raw.in_transaction:
                    self._raw.execute("ROLLBACK")


def _insert_into_sqlite(rows: Sequence[models.Model], link: BaseDatabaseWrapper) -> None:
    model, keys = type(rows[0]), ring()
    shape, manner = _shape(model), _manner_of_sqlite(model)
    prepared = []
    for row in rows:
        values = list(_values(row, shape))
        for place, convert in manner.conversions:
            if (value := values[place]) is not None:
                values[place] = convert(value)
        for place, field in manner.texts:
            if value := values[place]:
                values[place] = _sealed(field, value, keys)
        prepared.append(values)
    # A column that is left out is NULL, too, and nobody is asked about it.
    empty = tuple(place for place in manner.nullable if _is_empty(prepared, place))
    for place in reversed(empty):
        for values in prepared:
            del values[place]
    # Django's own cursor would go through the statement for its marks each time.
    with link.wrap_database_errors:
        link.connection.executemany(_sqlite_statement(model, empty), prepared)


def _is_empty(rows: Sequence[Sequence[Any]], place: int) -> bool:
    for values in rows:  # noqa: SIM110 - a generator would cost as much again
        if values[place] is not None:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a model's rows go into SQLite, by the places of columns in a row. `nullable`: those that may be left out."""

    conversions: Sequence[tuple[int, Convert]]
    texts: Sequence[tuple[int, Field]]
    nullable: Sequence[int]


@cache
def _manner_of_sqlite(model: type[models.Model]) -> _Manner:
    shape = _shape(model)
    converted = [(place, _for_sqlite(field)) for place, field in enumerate(shape.fields)]
    return _Manner(
        conversions=[(place, convert) for place, convert in converted if convert is not None],
        texts=[(shape.names.index(field.attname), field) for field in shape.texts],
        nullable=[place for place, field in enumerate(shape.fields) if field.null and not field.has_db_default()],
    )


@lru_cache(maxsize=64)
def _sqlite_statement(model: type[models.Model], empty: tuple[int, ...]) -> str:
    """`empty`: places of columns that are None in all rows."""
    fields = [field for place, field in enumerate(_shape(model).fields) if place not in empty]
    columns, marks = _column_names(fields), ", ".join("?" for _ in fields)
    # OR IGNORE would pass over a row that a check refuses, too, and nobody would learn of it.
    return f"INSERT INTO {_table(model)} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - our models


def _for_sqlite(field: Field) -> Convert | None:
    """How the driver wants the field's values that are not None; None: as they are."""
    kind: Any = field
    while isinstance(kind, models.ForeignKey):
        kind = kind.target_field

    def by_the_orm(value: Any) -> Any:
        return field.get_db_prep_save(value, connection)

    def moment(value: dt.datetime) -> str:
        # A third of what `str` costs, which asks the time zone.
        return orjson.dumps(value)[1:-7].decode().replace("T", " ") if value.tzinfo is dt.UTC else by_the_orm(value)

    def number(value: Decimal) -> str | None:
        return format_number(value, kind.max_digits, kind.decimal_places)

    def identifier(value: UUID) -> str:
        return value.hex if type(value) is UUID else by_the_orm(value)

    def document(value: Any) -> Any:
        if type(value) not in {list, dict} or (value and ring()):
            return by_the_orm(value)
        # Most are empty.
        return json.dumps(value) if value else "[]" if type(value) is list else "{}"

    by_kind: dict[type, Convert | None] = {
        **dict.fromkeys(_PLAIN),
        models.BooleanField: int,
        models.DateTimeField: moment,
        models.DecimalField: lambda value: number(value) if type(value) is Decimal else by_the_orm(value),
        models.UUIDField: identifier,
        EncryptedJSONField: document,
        EncryptedTextField: None,  # sealed by the caller
    }
    if type(kind) is models.CharField and kind.choices:
        # Members of an enumeration become mere texts.
        return str.__str__
    return by_kind.get(type(kind), by_the_orm)


# --- PostgreSQL -------------------------------------------------------------------------------------------------------
def _insert_into_postgresql(tables: Sequence[Sequence[models.Model]]) -> None:
    texts = [_as_json([_as_stored(row) for row in rows]) for rows in tables]
    statement = _postgresql_statement(tuple(type(rows[0]) for rows in tables))
    connection.ensure_connection()
    # Django's own cursor would quote the texts and put them into the statement.
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.execute(statement, texts)


def _as_stored(row: models.Model) -> dict[str, Any]:
    """The row's columns, with the texts as they are to be stored."""
    shape, keys, columns = _shape(type(row)), ring(), columns_of(row)
    for field in shape.texts:
        if value := columns[field.attname]:
            columns[field.attname] = _sealed(field, value, keys)
    for field in shape.documents:
        value = columns[field.attname]
        if hasattr(value, "stored"):
            columns[field.attname] = value.stored
        elif keys and value and isinstance(value, list | dict):
            columns[field.attname] = keys.encrypt(json.dumps(value).encode())
    return columns


def _as_json(rows: list[dict[str, Any]]) -> str:
    try:
        return orjson.dumps(rows, default=str).decode()
    except TypeError:
        # An integer beyond 64 bits, which PostgreSQL's JSON can hold.
        return json.dumps(rows, default=str)


@cache
def _postgresql_statement(of: tuple[type[models.Model], ...]) -> Any:
    inserts = []
    for model in of:
        table, columns = _table(model), _column_names(_shape(model).fields)
        inserts.append(
            f"INSERT INTO {table} ({columns}) SELECT {columns} "  # noqa: S608 - names of our models
            f"FROM json_populate_recordset(NULL::{table}, %s) ON CONFLICT DO NOTHING"
        )
    *others, last = inserts
    named = ", ".join(f"part_{number} AS ({insert})" for number, insert in enumerate(others))
    return f"WITH {named} {last}" if named else last


def _manager(model: type[models.Model]) -> Any:
    return model._default_manager  # noqa: SLF001 - documented by Django


def _column_names(fields: Iterable[Field]) -> str:
    return ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)
