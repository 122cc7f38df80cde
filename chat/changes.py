"""Which minutes of the record have changed: told by whoever writes rows, read and cleared by whoever adds them up.

A note stands in the same transaction as its rows: who sees the one sees the other. Knows nothing of roll-ups.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from django.db import connection

from chat.models import Change

MINUTE: Final = dt.timedelta(minutes=1)
HOUR: Final = dt.timedelta(hours=1)
#: From this age on a note at the full hour stands for the whole hour; see `note_range`.
WHOLE_HOURS_AFTER: Final = dt.timedelta(days=1)
_MILLISECONDS: Final = 60_000
_TABLE: Final = Change._meta.db_table
#: The version of UUID that ids of rows have; others have no moment, and `verify_record` complains of them.
_OURS: Final = 7


def note(identifiers: Iterable[UUID]) -> None:
    """Interactions with these ids are being written, with what is added up of them. Call it in their transaction."""
    numbers = [identifier.int for identifier in identifiers]
    minutes = sorted({(number >> 80) // _MILLISECONDS for number in numbers if number >> 76 & 0xF == _OURS})
    if not minutes:
        return
    # Each transaction of the record does this: past the ORM it is half the work.
    field = Change._meta.get_field("minute")
    moments = [dt.datetime.fromtimestamp(minute * 60, tz=dt.UTC) for minute in minutes]
    values = ", ".join("(%s)" for _ in moments)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {_TABLE} (minute) VALUES {values}",  # noqa: S608 - the name of our model's table
            [field.get_db_prep_save(moment, connection) for moment in moments],
        )


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
