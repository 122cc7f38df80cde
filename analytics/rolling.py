"""Rolls up: brings cells in step with the rows that changed, and closes hours, days and months that are over.

    row written, minute noted (one transaction) → minutes of open hours, from rows → hours, days, months, from these

What is recomputed is recomputed whole, so that doing it twice does no harm and no change is counted twice. Each step
reads first and then changes cells in one short transaction, for which it must still have the turn that it read.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final
from uuid import uuid4

from django.db import transaction
from django.db.models import F, Max, Min
from django.db.models.functions import TruncHour
from django.utils import timezone

from analytics import cells, rows
from analytics.models import Cell, Cube, Grain, Period, RollUpState
from analytics.periods import Range, end_of, period, start_of
from analytics.totals import Table, added
from chat import changes
from chat.models import Change, Interaction, Removal
from llmchat.lib.uuid7 import moment_of

logger = logging.getLogger(__name__)

#: For how long after its end an hour stays open: its minutes are kept, so that what comes late costs a minute's rows.
OPEN: Final = dt.timedelta(hours=3)
#: For how long hours are kept beside their day.
HOURS_KEPT: Final = dt.timedelta(days=35)
_BATCH: Final = 500
_A_DAY: Final = dt.timedelta(days=1)
_EPOCH: Final = dt.datetime.fromtimestamp(0, tz=dt.UTC)
_FINER: Final = {Grain.HOUR: Grain.MINUTE, Grain.DAY: Grain.HOUR, Grain.MONTH: Grain.DAY}


class _TurnLost(Exception):
    """Another process has changed cells since this one looked: what was read may be old."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a round did, in numbers of periods. `left`: notes that wait for the next round."""

    minutes: int = 0
    hours: int = 0
    days: int = 0
    months: int = 0
    left: int = 0


def roll_up(*, now: dt.datetime | None = None, seconds: float = float("inf")) -> Report:
    """Works off the notes of changes, the newest first, and closes what is over; begins nothing new after `seconds`.

    May run in several processes at once: each step is done by the one that is first.
    """
    began = timezone.now()
    now = now or began
    until = time.monotonic() + seconds
    report = Report()
    _drop_sealed_notes()
    with suppress(_TurnLost):
        hours = _noted_hours()
        for hour in hours:
            if time.monotonic() >= until:
                break
            _work_off(hour, now=now, report=report)
        else:
            # Not for ever: who asks looks at the few rows that have come after a quiet time.
            if hours:
                RollUpState.objects.filter(pk=1).update(whole_until=began)
        while time.monotonic() < until and _close_next(now=now, report=report):
            pass
    report.left = Change.objects.count()
    return report


def rebuild(*, since: dt.datetime | None = None, now: dt.datetime | None = None) -> None:
    """Has the next round roll up everything from `since` on anew, or everything. What is sealed stays."""
    now = now or timezone.now()
    known = [
        *(moment_of(row.pk) for row in Interaction.objects.only("pk").order_by("pk")[:1]),
        *(moment_of(row.pk) for row in Interaction.objects.only("pk").order_by("-pk")[:1]),
        *Cell.objects.aggregate(first=Min("start"), last=Max("start")).values(),
    ]
    moments = [moment for moment in known if moment is not None]
    if moments:
        first = max(min(moments), *(moment for moment in (since, sealed_until()) if moment is not None), _EPOCH)
        changes.note_range(start_of(Grain.MINUTE, first), max(now, *moments) + changes.MINUTE, now=now)


def seal(before: dt.datetime) -> dt.datetime:
    """Keeps what is rolled up of the days before this moment, whatever becomes of their rows: call it before they are
    deleted, with every change rolled up. Returns from when on the record counts as whole.

    Raises ValueError when changes before that are not rolled up yet.
    """
    until = start_of(Grain.DAY, before)
    with transaction.atomic():
        state = _state(locked=True)
        if Change.objects.filter(minute__lt=until).exists():
            raise ValueError(f"What changed before {until.isoformat()} is not rolled up yet. Run roll_up first.")
        state.sealed_until = max(until, state.sealed_until or until)
        state.save(update_fields=["sealed_until"])
    return state.sealed_until


def sealed_until() -> dt.datetime | None:
    """Before when rows may be missing that are rolled up: retention has removed some, or `seal` was told so."""
    state = RollUpState.objects.first()
    removed = Removal.objects.filter(kind=Removal.Kind.EXCHANGES).aggregate(last=Max("before"))["last"]
    # A day that has lost its first hour cannot be made anew either.
    days = [start_of(Grain.DAY, removed + _A_DAY - dt.timedelta.resolution)] if removed else []
    if state is not None and state.sealed_until is not None:
        days.append(state.sealed_until)
    return max(days, default=None)


def is_open(hour: dt.datetime, now: dt.datetime) -> bool:
    """Whether a note in this hour is about its minute alone, not about the whole hour."""
    return end_of(Grain.HOUR, hour) + OPEN > now


def is_listed(grain: Grain, start: dt.datetime) -> bool:
    """Whether this period's cells are whole, but for notes that are open."""
    return Period.objects.filter(grain=grain, start=start).exists()


def touched_by(
    minute: dt.datetime, *, now: dt.datetime, is_listed: Callable[[Grain, dt.datetime], bool] = is_listed
) -> Range:
    """The period that a note of this minute makes unfit to read: what `roll_up` will make anew from rows."""
    hour, day = period(Grain.HOUR, minute), period(Grain.DAY, minute)
    if is_open(hour[0], now) and not is_listed(Grain.HOUR, hour[0]):
        return period(Grain.MINUTE, minute)
    return day if is_listed(Grain.DAY, day[0]) or not _keeps_hours(day, now) else hour


def without_users(table: Table) -> Table:
    """As hours are kept when their day is closed."""
    return {key: totals for key, totals in table.items() if key.cube is not Cube.USER}


# --- Working off notes -----------------------------------------------------------------------------------------------


def _noted_hours() -> list[dt.datetime]:
    hours = Change.objects.annotate(hour=TruncHour("minute")).order_by("-hour").values_list("hour", flat=True)
    return list(hours.distinct())


def _work_off(hour: dt.datetime, *, now: dt.datetime, report: Report) -> None:
    turn = _state().turn
    touched = touched_by(hour, now=now)
    if touched == period(Grain.MINUTE, hour):
        _roll_minutes(period(Grain.HOUR, hour), turn, report)
    elif touched == period(Grain.HOUR, hour):
        _roll_hour(touched, turn, report)
    else:
        _roll_day(touched, turn, now=now, report=report)


def _roll_minutes(hour: Range, turn: int, report: Report) -> None:
    notes = _notes(hour)
    minutes = {minute: rows.every_cube(minute, end_of(Grain.MINUTE, minute)) for minute in set(notes.values())}
    with transaction.atomic():
        _take(turn, changes_closed=False)
        for minute, table in minutes.items():
            cells.replace(Grain.MINUTE, period(Grain.MINUTE, minute), {minute: table})
        _forget(notes)
    report.minutes += len(minutes)


def _roll_hour(hour: Range, turn: int, report: Report) -> None:
    notes = _notes(hour)
    if not notes:
        return
    table = rows.every_cube(*hour)
    with transaction.atomic():
        _take(turn)
        _write(Grain.HOUR, hour, table)
        _clear(Grain.MINUTE, hour)
        _clear(Grain.MONTH, period(Grain.MONTH, hour[0]))
        _forget(notes)
    report.hours += 1


def _roll_day(day: Range, turn: int, *, now: dt.datetime, report: Report) -> None:
    """From rows: its hours lack what `_close_day` leaves out, or are not there any more."""
    notes = _notes(day)
    if not notes:
        return
    # What hours are not kept of costs one look at the rows.
    spans = [period(Grain.HOUR, hour) for hour in _hours_of(day)] if _keeps_hours(day, now) else [day]
    hours = {span[0]: rows.every_cube(*span) for span in spans}
    with transaction.atomic():
        _take(turn)
        _write(Grain.DAY, day, added(hours.values()))
        _clear(Grain.MINUTE, day)
        _clear(Grain.HOUR, day)
        if _keeps_hours(day, now):
            for hour, table in hours.items():
                _write(Grain.HOUR, period(Grain.HOUR, hour), without_users(table))
        _clear(Grain.MONTH, period(Grain.MONTH, day[0]))
        _forget(notes)
    report.days += 1


def _drop_sealed_notes() -> None:
    sealed = sealed_until()
    dropped, _ = Change.objects.filter(minute__lt=sealed).delete() if sealed else (0, {})
    if dropped:
        logger.warning(
            "Rows of before %s came after that time was sealed; they are on record, but not rolled up (%d notes).",
            sealed,
            dropped,
        )


# --- Closing what is over --------------------------------------------------------------------------------------------


def _close_next(*, now: dt.datetime, report: Report) -> bool:
    """Closes one hour, day or month that is over and has no open notes; whether there was one."""
    turn = _state().turn
    for grain, candidates in (
        (Grain.HOUR, _ended_hours(now)),
        (Grain.DAY, _ended(Grain.DAY, Grain.HOUR, now)),
        (Grain.MONTH, _ended(Grain.MONTH, Grain.DAY, now)),
    ):
        for start in candidates:
            span = period(grain, start)
            if _is_settled(span, finer=_FINER[grain]):
                _close(grain, span, turn)
                match grain:
                    case Grain.HOUR:
                        report.hours += 1
                    case Grain.DAY:
                        report.days += 1
                    case _:
                        report.months += 1
                return True
    return _drop_old_hours(now, turn)


def _ended_hours(now: dt.datetime) -> list[dt.datetime]:
    first = Cell.objects.filter(grain=Grain.MINUTE).aggregate(first=Min("start"))["first"]
    if first is None or is_open(start_of(Grain.HOUR, first), now):
        return []
    starts = Cell.objects.filter(grain=Grain.MINUTE, start__lt=start_of(Grain.HOUR, now - OPEN))
    return sorted({start_of(Grain.HOUR, start) for start in starts.values_list("start", flat=True).distinct()})


def _ended(grain: Grain, finer: Grain, now: dt.datetime) -> list[dt.datetime]:
    """Periods that are over and not listed, although finer ones within them are."""
    before = start_of(grain, now - OPEN)
    starts = Period.objects.filter(grain=finer, start__lt=before).values_list("start", flat=True)
    listed = set(Period.objects.filter(grain=grain).values_list("start", flat=True))
    return sorted({start_of(grain, start) for start in starts} - listed)


def _is_settled(span: Range, *, finer: Grain) -> bool:
    """Whether all that is known of the period is in cells of `finer`: no note is open, no shorter cell waits."""
    since, until = span
    if Change.objects.filter(minute__gte=since, minute__lt=until).exists():
        return False
    if finer is Grain.MINUTE:
        return True
    if Cell.objects.filter(grain=Grain.MINUTE, start__gte=since, start__lt=until).exists():
        return False
    if finer is Grain.HOUR:
        return True
    hours = Period.objects.filter(grain=Grain.HOUR, start__gte=since, start__lt=until).values_list("start", flat=True)
    days = Period.objects.filter(grain=Grain.DAY, start__gte=since, start__lt=until).values_list("start", flat=True)
    return {start_of(Grain.DAY, hour) for hour in hours} <= set(days)


def _close(grain: Grain, span: Range, turn: int) -> None:
    finer = _FINER[grain]
    table = cells.fold(finer, span)
    with transaction.atomic():
        _take(turn)
        _write(grain, span, table)
        if grain is Grain.HOUR:
            _clear(Grain.MINUTE, span)
        if grain is Grain.DAY:
            # Nearly as many as interactions, and nobody asks for users by the hour.
            Cell.objects.filter(grain=Grain.HOUR, cube=Cube.USER, start__gte=span[0], start__lt=span[1]).delete()


def _drop_old_hours(now: dt.datetime, turn: int) -> bool:
    day = start_of(Grain.DAY, now - HOURS_KEPT)
    old = Period.objects.filter(grain=Grain.HOUR, start__lt=day).order_by("start").first()
    if old is None or not is_listed(Grain.DAY, start_of(Grain.DAY, old.start)):
        return False
    with transaction.atomic():
        _take(turn)
        _clear(Grain.HOUR, period(Grain.DAY, old.start))
    return True


# --- Steps of a transaction ------------------------------------------------------------------------------------------


def _state(*, locked: bool = False) -> RollUpState:
    states = RollUpState.objects.select_for_update() if locked else RollUpState.objects
    return states.get_or_create(pk=1)[0]


def _take(turn: int, *, changes_closed: bool = True) -> None:
    """Takes the turn and keeps others from the cells until the transaction ends. `changes_closed`: cells of an hour or
    longer are about to change, of which readers keep what they have read."""
    revised = {"revision": uuid4()} if changes_closed else {}
    if RollUpState.objects.filter(pk=1, turn=turn).update(turn=F("turn") + 1, **revised) != 1:
        raise _TurnLost


def _notes(span: Range) -> dict[int, dt.datetime]:
    return dict(Change.objects.filter(minute__gte=span[0], minute__lt=span[1]).values_list("id", "minute"))


def _forget(notes: dict[int, dt.datetime]) -> None:
    """Clears the notes that were seen before rows were read. Those that have come since stay."""
    identifiers = iter(sorted(notes))
    while some := list(islice(identifiers, _BATCH)):
        Change.objects.filter(id__in=some).delete()


def _write(grain: Grain, span: Range, table: Table) -> None:
    """Makes `table` the period's cells and lists it; a period without requests needs no mention."""
    _clear(grain, span)
    if table:
        cells.replace(grain, span, {span[0]: table})
        Period.objects.create(grain=grain, start=span[0])


def _clear(grain: Grain, span: Range) -> None:
    cells.replace(grain, span, {})
    Period.objects.filter(grain=grain, start__gte=span[0], start__lt=span[1]).delete()


def _keeps_hours(day: Range, now: dt.datetime) -> bool:
    return day[0] >= start_of(Grain.DAY, now - HOURS_KEPT)


def _hours_of(day: Range) -> list[dt.datetime]:
    return [day[0] + index * changes.HOUR for index in range(24)]
