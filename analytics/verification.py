"""Proves the roll-ups: each cell must say what the rows of its period add up to.

Named in the setting RECORD_INVARIANTS, by which `manage.py verify_record` finds it. Reads only. What is noted as
changed and not rolled up yet is no breach; what was sealed before its rows were deleted cannot be judged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Iterator
from typing import Final

from django.db.models import Max, Min, Q

from analytics import cells, rolling, rows
from analytics.models import Cell, Grain, Period
from analytics.periods import Range, holds, period, start_of
from analytics.totals import DIMENSIONS, Key, Table, Totals, added
from chat.changes import HOUR
from chat.invariants import Finding
from chat.models import Change, Interaction
from chat.verification import Checked, Invariant, Window

SUBJECT: Final = "roll-ups"
#: Cells named for one period; one wrong period seldom has one wrong cell.
_NAMED: Final = 5
#: How often a difference is looked at again: a server at work may have rolled up in between.
_LOOKS: Final = 3

Findings = Generator["Finding | Checked", None, Table | None]


def roll_ups(window: Window) -> Iterator[Finding | Checked]:
    """Looks at every hour, day and month of the window that can be judged."""
    judged = _judged(window)
    if judged is None:
        return
    month: list[Table | None] = []
    day = period(Grain.DAY, judged[0])
    while day[0] < judged[1]:
        if day[0].day == 1:
            month = []
        month.append((yield from _day(day, judged)))
        of_month = period(Grain.MONTH, day[0])
        tables = [table for table in month if table is not None]
        is_whole = day[1] == of_month[1] and len(tables) == day[0].day
        if is_whole and rolling.is_listed(Grain.MONTH, of_month[0]):
            yield from _compared(Grain.MONTH, of_month, added(tables))
        day = period(Grain.DAY, day[1])


def _judged(window: Window) -> Range | None:
    """The hours that are whole within the window and not sealed, in all months that have anything."""
    known = [
        *Cell.objects.aggregate(first=Min("start"), last=Max("start")).values(),
        *Interaction.objects.order_by("pk").values_list("created_at", flat=True)[:1],
        *Interaction.objects.order_by("-pk").values_list("created_at", flat=True)[:1],
    ]
    moments = [moment for moment in known if moment is not None]
    if not moments:
        return None
    since, until = start_of(Grain.MONTH, min(moments)), period(Grain.MONTH, max(moments))[1]
    for bound in (window.since, rolling.sealed_until()):
        if bound is not None:
            since = max(since, start_of(Grain.HOUR, bound + HOUR - dt.timedelta.resolution))
    if window.until is not None:
        until = min(until, start_of(Grain.HOUR, window.until))
    return since, until


def _day(day: Range, judged: Range) -> Findings:
    """Compares the day and its hours, as far as they are kept; returns what its rows add up to, None for a part."""
    is_whole = holds([judged], day)
    if is_whole and not _has_anything(day):
        return {}
    is_listed = rolling.is_listed(Grain.DAY, day[0])
    if is_whole and is_listed and not Period.objects.filter(_within(day), grain=Grain.HOUR).exists():
        table = rows.every_cube(*day)
    else:
        tables = []
        hour = period(Grain.HOUR, max(day[0], judged[0]))
        while hour[0] < min(day[1], judged[1]):
            if _has_anything(hour):
                tables.append(rows.every_cube(*hour))
                yield from _compared(Grain.HOUR, hour, tables[-1])
            hour = period(Grain.HOUR, hour[1])
        if not is_whole:
            return None
        table = added(tables)
    if is_listed:
        yield from _compared(Grain.DAY, day, table)
    return table


def _compared(grain: Grain, span: Range, table: Table) -> Iterator[Finding | Checked]:
    """What is wrong with the cells of a period whose rows add up to `table`."""
    differences: list[str] = []
    for _ in range(_LOOKS):
        stored, is_without_users = _stored(grain, span)
        expected = rolling.without_users(table) if is_without_users else table
        differences = list(_differences(stored, expected))
        if not differences or Change.objects.filter(minute__gte=span[0], minute__lt=span[1]).exists():
            yield Checked(SUBJECT, len(stored))
            return
        table = rows.every_cube(*span)
    yield Checked(SUBJECT, len(stored))
    name = f"{grain.label.lower()} {span[0]:%Y-%m-%dT%H:%MZ}"
    for difference in differences[:_NAMED]:
        yield name, difference
    if len(differences) > _NAMED:
        yield name, f"and {len(differences) - _NAMED:,} other cells differ"


def _stored(grain: Grain, span: Range) -> tuple[Table, bool]:
    """The cells of the period, from its minutes if it is open; and whether they lack users, as hours of closed days."""
    if grain is not Grain.HOUR:
        return cells.fold(grain, span), False
    found = cells.fold(grain if rolling.is_listed(grain, span[0]) else Grain.MINUTE, span)
    return found, rolling.is_listed(Grain.DAY, start_of(Grain.DAY, span[0]))


def _differences(stored: Table, expected: Table) -> Iterator[str]:
    for key in sorted({*stored, *expected}, key=str):
        here, there = stored.get(key, Totals()), expected.get(key, Totals())
        said = [f"{name} is {_said(is_)}, its rows make {_said(make)}" for name, is_, make in here.differences(there)]
        if said:
            yield f"{_named(key)}: {'; '.join(said)}"


def _named(key: Key) -> str:
    """The dimensions in words, without what is empty."""
    told = [f"{name.removesuffix('_id')} {value}" for name, value in key._asdict().items() if value and name != "cube"]
    everybody = [] if "organization_id" in DIMENSIONS[key.cube] else ["all organizations"]
    return ", ".join([*everybody, *told])


def _said(value: object) -> str:
    return f"{sum(value.values()):,} in other buckets" if isinstance(value, dict) else str(value)


def _has_anything(span: Range) -> bool:
    return Cell.objects.filter(_within(span)).exists() or Interaction.objects.filter(rows.within(*span, "pk")).exists()


def _within(span: Range) -> Q:
    return Q(start__gte=span[0], start__lt=span[1])


INVARIANTS: Final = (Invariant("roll-ups", "roll-ups are what their rows add up to", SUBJECT, search=roll_ups),)
