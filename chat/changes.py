"""Which minutes of the record have changed: told by whoever writes rows, read and cleared by whoever adds them up.

A note stands in the same transaction as its rows: who sees the one sees the other. Knows nothing of roll-ups.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from chat import inserts
from chat.models import Change

MINUTE: Final = dt.timedelta(minutes=1)
HOUR: Final = dt.timedelta(hours=1)
#: From this age on a note at the full hour stands for the whole hour; see `note_range`.
WHOLE_HOURS_AFTER: Final = dt.timedelta(hours=6)
_MILLISECONDS: Final = 60_000
#: The version of UUID that ids of rows have; others have no moment, and `verify_record` complains of them.
_OURS: Final = 7


def notes_of(identifiers: Iterable[UUID]) -> list[Change]:
    """What to insert along with interactions of these ids, or with what is added up of them: a note a minute. In their
    transaction, and every time: who adds up may clear an earlier one of the same minute at any moment."""
    numbers = [identifier.int for identifier in identifiers]
    minutes = sorted({(number >> 80) // _MILLISECONDS for number in numbers if number >> 76 & 0xF == _OURS})
    return [inserts.new(Change, {"minute": dt.datetime.fromtimestamp(minute * 60, tz=dt.UTC)}) for minute in minutes]


def note(identifiers: Iterable[UUID]) -> None:
    """Interactions with these ids are being written, with what is added up of them. Call it in their transaction."""
    inserts.insert(notes_of(identifiers))


def note_range(since: dt.datetime, until: dt.datetime, *, now: dt.datetime) -> None:
    """Anything from `since` until before `until` may have been written: for what is written in bulk."""
    fine = max(since, (now - WHOLE_HOURS_AFTER).replace(minute=0, second=0, microsecond=0))
    notes = [*_steps(since.replace(minute=0), min(until, fine), HOUR), *_steps(fine, until, MINUTE)]
    Change.objects.bulk_create([Change(minute=minute) for minute in notes], batch_size=1000)


def _steps(since: dt.datetime, until: dt.datetime, step: dt.timedelta) -> Iterable[dt.datetime]:
    moment = since.replace(second=0, microsecond=0)
    while moment < until:
        yield moment
        moment += step
