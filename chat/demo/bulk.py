"""Raw rows into tables as fast as the database takes them: binary COPY on PostgreSQL, into months that have no indexes
yet where it can be, prepared statements on SQLite.

Texts are encrypted as the settings say. Knows kinds of columns, and nothing of what rows mean; raw values are those of
`chat.demo.shapes`.
"""

from __future__ import annotations

import datetime as dt
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from django.db import connection, models, transaction

from chat.demo import months
from chat.demo.columns import TABLES, column_of, copy_statement, sealing
from chat.demo.encoding import HEADER, TRAILER, Encoder, Rows
from chat.demo.shapes import Row, Told
from chat.fields import EncryptedJSONField, EncryptedTextField

#: Chunks that wait for the database while the next one is told.
_WAITING: Final = 2
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - as SQLite's columns hold it, in UTC


class Writer(Protocol):
    def write(self, told: Told) -> None: ...


@contextmanager
def writer(fresh: months.Months | None = None) -> Iterator[Writer]:
    """Takes chunks in order; all are committed when the context is left without an error. `fresh`: PostgreSQL's months
    that have no rows; what is not in them is passed over."""
    if connection.vendor != "postgresql":
        yield _Prepared()
        return
    copying = _Copying() if fresh is None else months.Filling(fresh)
    try:
        yield copying
    except BaseException:
        copying.close(is_broken=True)
        raise
    copying.close()
    copying.check()


class _Prepared:
    def __init__(self) -> None:
        self._statements = []
        for model, names in TABLES:
            columns = ", ".join(connection.ops.quote_name(name) for name in names)
            marks = ", ".join("%s" for _ in names)
            table = connection.ops.quote_name(model._meta.db_table)
            statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608 - names of our models
            self._statements.append((statement, [_for_sqlite(model, name) for name in names]))

    def write(self, told: Told) -> None:
        tables = (told.conversations, told.interactions, told.attempts)
        with transaction.atomic(), connection.cursor() as cursor:
            for (statement, converters), rows in zip(self._statements, tables, strict=True):
                cursor.executemany(statement, _converted(converters, rows))


class _Copying:
    """Copies in a thread with a connection of its own, so that the database and the teller work at the same time. Each
    chunk is one transaction."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._queue: queue.Queue[list[Rows] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._copy_all, name="demo-copy")
        self._thread.start()

    def write(self, told: Told) -> None:
        encoded = self._encoder.encode(told)
        self.check()
        self._queue.put(encoded)

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def close(self, *, is_broken: bool = False) -> None:
        """Ends when what was written is stored, or found unfit."""
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

    def _copy(self, encoded: list[Rows]) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            for (model, _), rows in zip(TABLES, encoded, strict=True):
                with cursor.copy(copy_statement(model)) as copy:
                    copy.write(b"".join([HEADER, *rows.encoded, TRAILER]))


# --- SQLite ----------------------------------------------------------------------------------------------------------
def _converted(converters: list[Callable[[Any], Any] | None], rows: list[Row]) -> list[list[Any]]:
    """Most values are as SQLite wants them; the others by their place."""
    places = [(place, convert) for place, convert in enumerate(converters) if convert is not None]
    converted = []
    for row in rows:
        values = list(row)
        for place, convert in places:
            if (value := values[place]) is not None:
                values[place] = convert(value)
        converted.append(values)
    return converted


def _for_sqlite(model: type[models.Model], name: str) -> Callable[[Any], Any] | None:
    match column_of(model, name):
        case EncryptedTextField() | EncryptedJSONField() as field:
            return sealing(field)
        case models.UUIDField() | models.ForeignKey():
            return lambda value: f"{value:032x}"
        case models.DateTimeField():
            return lambda value: str(_EPOCH + dt.timedelta(milliseconds=value))
        case models.DecimalField():
            return lambda value: f"{value // 10**12}.{value % 10**12:012d}"
    return None
