"""Raw rows into tables as fast as the database takes them: binary COPY on PostgreSQL, prepared statements on SQLite.

Each chunk is one transaction. Texts are encrypted as the settings say. Knows kinds of columns, and nothing of what rows
mean; raw values are those of `chat.demo.story`.
"""

from __future__ import annotations

import datetime as dt
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from struct import Struct
from typing import Any, Final, Protocol

from django.db import connection, models, transaction

from chat.demo import story
from chat.demo.story import Chunk, Row
from chat.encryption import ring, seal_text
from chat.fields import EncryptedJSONField, EncryptedTextField
from chat.models import Attempt, Conversation, Interaction

Encode = Callable[[Any], Any]

_TABLES: Final = (
    (Conversation, story.CONVERSATION),
    (Interaction, story.INTERACTION),
    (Attempt, story.ATTEMPT),
)
#: Columns of which hardly two rows have the same value.
_UNIQUE: Final = frozenset({"trace_id", "request_id", "upstream_request_id"})
#: Chunks that wait for the database while the next one is told.
_WAITING: Final = 2

_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as SQLite's columns hold it, in UTC
_POSTGRESQL_EPOCH_MS: Final = 946_684_800_000
_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH, _SHORT, _INT, _LONG, _DOUBLE, _NUMERIC = (
    Struct(layout) for layout in (">i", ">ih", ">ii", ">iq", ">id", ">ihhHhHHHH")
)


class Writer(Protocol):
    def write(self, chunk: Chunk) -> None: ...


@contextmanager
def writer() -> Iterator[Writer]:
    """Takes chunks in order; all are committed when the context is left without an error."""
    if connection.vendor != "postgresql":
        yield _Prepared()
        return
    copying = _Copying()
    try:
        yield copying
    finally:
        copying.close()
    copying.check()


class _Prepared:
    def __init__(self) -> None:
        self._statements = []
        for model, names in _TABLES:
            columns = ", ".join(connection.ops.quote_name(name) for name in names)
            marks = ", ".join("%s" for _ in names)
            table = connection.ops.quote_name(model._meta.db_table)
            statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - names of our models
            self._statements.append((statement, [_for_sqlite(model, name) for name in names]))

    def write(self, chunk: Chunk) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            for (statement, encoders), rows in zip(self._statements, _rows_of(chunk), strict=True):
                cursor.executemany(
                    statement,
                    [tuple([encode(value) for encode, value in zip(encoders, row, strict=True)]) for row in rows],
                )


class _Copying:
    """Copies in a thread with a connection of its own, so that the database and the teller work at the same time."""

    def __init__(self) -> None:
        self._statements = []
        for model, names in _TABLES:
            columns = ", ".join(connection.ops.quote_name(name) for name in names)
            table = connection.ops.quote_name(model._meta.db_table)
            statement = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
            self._statements.append((statement, [_for_postgresql(model, name) for name in names]))
        self._queue: queue.Queue[list[bytes] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._copy_all, name="demo-copy")
        self._thread.start()

    def write(self, chunk: Chunk) -> None:
        encoded = [
            _encoded(encoders, rows) for (_, encoders), rows in zip(self._statements, _rows_of(chunk), strict=True)
        ]
        self.check()
        self._queue.put(encoded)

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _copy_all(self) -> None:
        try:
            while (encoded := self._queue.get()) is not None:
                if self._error is None:
                    try:
                        self._copy(encoded)
                    except BaseException as error:
                        self._error = error
        finally:
            connection.close()

    def _copy(self, encoded: Sequence[bytes]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            for (statement, _), data in zip(self._statements, encoded, strict=True):
                with cursor.copy(statement) as copy:
                    copy.write(data)


def _rows_of(chunk: Chunk) -> tuple[list[Row], list[Row], list[Row]]:
    return chunk.conversations, chunk.interactions, chunk.attempts


def _sealing(field: Any) -> Callable[[str], str] | None:
    """How a text or a JSON text is encrypted; None when it is not."""
    keys = ring()
    if not keys:
        return None
    if isinstance(field, EncryptedJSONField):
        return lambda text: text if text in {"[]", "{}"} else json.dumps(keys.encrypt(text.encode()))
    return lambda text: seal_text(text, keys=keys)


# --- SQLite ----------------------------------------------------------------------------------------------------------
def _for_sqlite(model: type[models.Model], name: str) -> Encode:
    field = model._meta.get_field(name.removesuffix("_id") if name in _references(model) else name)
    match field:
        case EncryptedTextField() | EncryptedJSONField():
            return _sealing(field) or _as_it_is
        case models.UUIDField() | models.ForeignKey():
            return lambda value: None if value is None else f"{value:032x}"
        case models.DateTimeField():
            return lambda value: None if value is None else str(_EPOCH + dt.timedelta(milliseconds=value))
        case models.DecimalField():
            return lambda value: None if value is None else f"{value // 10**12}.{value % 10**12:012d}"
    return _as_it_is


def _as_it_is(value: Any) -> Any:
    return value


# --- PostgreSQL ------------------------------------------------------------------------------------------------------
class _Cached(dict[Any, bytes]):
    """Values that come again and again, encoded once."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, value: Any) -> bytes:
        encoded = self[value] = self._encode(value)
        return encoded


def _encoded(encoders: Sequence[Encode], rows: Sequence[Row]) -> bytes:
    count = len(encoders).to_bytes(2, "big")
    parts = [_HEADER]
    for row in rows:
        parts.append(count)
        parts += [encode(value) for encode, value in zip(encoders, row, strict=True)]
    parts.append(_TRAILER)
    return b"".join(parts)


def _for_postgresql(model: type[models.Model], name: str) -> Encode:
    is_reference = name in _references(model)
    field = model._meta.get_field(name.removesuffix("_id") if is_reference else name)
    match field:
        case EncryptedJSONField():
            seal = _sealing(field) or _as_it_is
            # jsonb's version goes before the text.
            return _Cached(lambda value: _bytes(b"\x01" + seal(value).encode())).__getitem__
        case EncryptedTextField():
            sealing = _sealing(field)
            return _text if sealing is None else lambda value: _text(sealing(value))
        case models.UUIDField() | models.ForeignKey():
            return _uuid if name in {"id", "interaction_id", "conversation_id"} else _Cached(_uuid).__getitem__
        case models.CharField():
            return _text if name in _UNIQUE else _Cached(_text).__getitem__
        case models.DateTimeField():
            return _moment
        case models.DecimalField():
            return _cost
        case models.FloatField():
            return _float
        case models.BooleanField():
            return {True: b"\0\0\0\1\1", False: b"\0\0\0\1\0"}.__getitem__
        case models.PositiveSmallIntegerField():
            return _Cached(lambda value: _NULL if value is None else _SHORT.pack(2, value)).__getitem__
        case models.PositiveIntegerField():
            return _Cached(lambda value: _NULL if value is None else _INT.pack(4, value)).__getitem__
    raise TypeError(f"there is no way to copy a {type(field).__name__}")


def _references(model: type[models.Model]) -> frozenset[str]:
    return frozenset(field.attname for field in model._meta.concrete_fields if field.attname != field.name)


def _bytes(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def _uuid(value: int | None) -> bytes:
    return _NULL if value is None else b"\0\0\0\x10" + value.to_bytes(16, "big")


def _moment(ms: int | None) -> bytes:
    return _NULL if ms is None else _LONG.pack(8, (ms - _POSTGRESQL_EPOCH_MS) * 1000)


def _float(value: float | None) -> bytes:
    return _NULL if value is None else _DOUBLE.pack(8, value)


def _cost(value: int | None) -> bytes:
    """A numeric with 12 decimal places: four digits to the base of 10,000, the first before the point."""
    if value is None:
        return _NULL
    value, last = divmod(value, 10_000)
    value, middle = divmod(value, 10_000)
    whole, first = divmod(value, 10_000)
    return _NUMERIC.pack(16, 4, 0, 0, 12, whole, first, middle, last)
