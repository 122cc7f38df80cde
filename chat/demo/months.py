"""Fills months of the record that have no rows yet on PostgreSQL: each into tables of its own, that get their indexes
when they are full and only then become partitions. Interactions and attempts are copied side by side, and the next
month while the last one is indexed.

A month is there as a whole or not at all; what an end in between leaves behind is cleared away by the next run.
"""

from __future__ import annotations

import datetime as dt
import queue
import threading
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, transaction

from chat import partitions
from chat.demo.columns import copy_statement
from chat.demo.encoding import HEADER, TRAILER, Encoder
from chat.demo.shapes import Told
from chat.models import Attempt, Conversation, Interaction

#: Pieces that wait for the database while the next one is told.
_WAITING: Final = 4
_FILLED: Final = {model._meta.db_table for model in (Interaction, Attempt)}


@dataclass(frozen=True, slots=True)
class Months:
    """Months that follow each other, by the first id of each and the one after the last."""

    starts: list[dt.datetime]
    bounds: list[int]

    @property
    def first_id(self) -> int:
        return self.bounds[0]


def fresh(since: dt.datetime, until: dt.datetime) -> Months | None:
    """The last months of the range in which there is no row, up to its end; None when there is none, or no partitions
    are kept."""
    if not partitions.is_partitioned():
        return None
    found = partitions.months(since, until)
    while found and not partitions.is_empty(found[0], found[-1]):
        found = found[1:]
    if not found:
        return None
    bounds = [partitions.bounds_of(month)[0].int for month in found]
    return Months(found, [*bounds, partitions.bounds_of(found[-1])[1].int])


class Filling:
    """Takes chunks in order."""

    def __init__(self, fresh: Months) -> None:
        self._fresh = fresh
        self._encoder = Encoder()
        self._month: _Month | None = None
        self._before: _Month | None = None
        for month in fresh.starts:
            partitions.discard(month)

    def write(self, told: Told) -> None:
        encoded = self._encoder.encode(told)
        bounds = self._fresh.bounds
        for place, month in enumerate(self._fresh.starts):
            pieces = []
            for rows in encoded:
                begin, end = bisect_left(rows.keys, bounds[place]), bisect_left(rows.keys, bounds[place + 1])
                pieces.append(b"".join(rows.encoded[begin:end]))
            if pieces[1]:
                self._turn_to(month).put(*pieces)

    def check(self) -> None:
        for month in (self._before, self._month):
            if month is not None:
                month.check()

    def close(self, *, is_broken: bool = False) -> None:
        """Ends when the months that were written are partitions; one that is `is_broken` is not."""
        if self._month is not None:
            self._month.end(is_whole=not is_broken)
        for month in (self._before, self._month):
            if month is not None:
                month.wait()

    def _turn_to(self, start: dt.datetime) -> _Month:
        if self._month is None or self._month.start != start:
            if self._before is not None:
                self._before.wait()
                self._before.check()
            if self._month is not None:
                self._month.end(is_whole=True)
            self._before, self._month = self._month, _Month(start, after=self._month)
        return self._month


class _Broken(Exception):
    """The month is not to be kept."""


class _Month:
    """Fills one month in two threads, with a connection each."""

    def __init__(self, start: dt.datetime, *, after: _Month | None) -> None:
        self.start = start
        self._after = after
        self._conversations: list[bytes] = []
        self._errors: list[BaseException] = []
        self._interactions: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._attempts: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._is_whole = False
        self._threads = [
            self._thread(self._fill_attempts, self._attempts),
            self._thread(self._fill_interactions, self._interactions),
        ]
        for thread in self._threads:
            thread.start()

    def put(self, conversations: bytes, interactions: bytes, attempts: bytes) -> None:
        self.check()
        self._conversations.append(conversations)
        self._interactions.put(interactions)
        self._attempts.put(attempts)

    def end(self, *, is_whole: bool) -> None:
        self._is_whole = is_whole
        self._interactions.put(None)
        self._attempts.put(None)

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        for error in self._errors:
            raise error

    def _thread(self, fill: Callable[[], None], waiting: queue.Queue[bytes | None]) -> threading.Thread:
        def run() -> None:
            try:
                fill()
            except _Broken:
                pass
            except BaseException as error:
                self._errors.append(error)
                # Whoever puts must not wait for ever.
                while waiting.get() is not None:
                    pass
            finally:
                connection.close()

        return threading.Thread(target=run, name=f"demo-{self.start:%Y-%m}")

    def _fill_attempts(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            self._copy(cursor, Attempt, self._attempts)

    def _fill_interactions(self) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            self._copy(cursor, Interaction, self._interactions)
            self._threads[0].join()
            if self._after is not None:
                # In order: who goes on later begins where the last month ends.
                self._after.wait()
            if self._errors or (self._after is not None and self._after._errors):  # noqa: SLF001 - our own kind
                raise _Broken
            with cursor.copy(copy_statement(Conversation)) as copy:
                for data in (HEADER, *self._conversations, TRAILER):
                    copy.write(data)
            for table in partitions.TABLES:
                if table not in _FILLED:
                    partitions.index_apart(table, partitions.create_apart(table, self.start))
                partitions.attach(table, self.start)

    def _copy(self, cursor: Any, model: Any, waiting: queue.Queue[bytes | None]) -> None:
        """Copies what comes into a table that no other transaction sees, and gives it the indexes that it will need."""
        cursor.execute("SET LOCAL synchronous_commit = off")
        cursor.execute("SET LOCAL maintenance_work_mem = '256MB'")
        table = partitions.create_apart(model._meta.db_table, self.start)
        with cursor.copy(copy_statement(model, table=table, freeze=True)) as copy:
            copy.write(HEADER)
            while (data := waiting.get()) is not None:
                copy.write(data)
            # For whoever clears the queue after an error.
            waiting.put(None)
            if not self._is_whole:
                raise _Broken
            copy.write(TRAILER)
        partitions.index_apart(model._meta.db_table, table)
