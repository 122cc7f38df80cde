"""Periods of time as values: where an hour, a day, a month begins and ends, and what is left of a range without others.

All moments are in UTC; ranges are half-open.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Final

from analytics.models import Grain

Range = tuple[dt.datetime, dt.datetime]
"""From the first moment until before the second."""

_LENGTHS: Final = {
    Grain.MINUTE: dt.timedelta(minutes=1),
    Grain.HOUR: dt.timedelta(hours=1),
    Grain.DAY: dt.timedelta(days=1),
}


def start_of(grain: Grain, moment: dt.datetime) -> dt.datetime:
    """When the period began that `moment` is in."""
    start = moment.astimezone(dt.UTC).replace(second=0, microsecond=0)
    if grain >= Grain.HOUR:
        start = start.replace(minute=0)
    if grain >= Grain.DAY:
        start = start.replace(hour=0)
    if grain >= Grain.MONTH:
        start = start.replace(day=1)
    return start


def end_of(grain: Grain, start: dt.datetime) -> dt.datetime:
    """When the period that begins at `start` ends."""
    if grain is Grain.MONTH:
        return start_of(Grain.MONTH, start + dt.timedelta(days=32))
    return start + _LENGTHS[grain]


def period(grain: Grain, moment: dt.datetime) -> Range:
    start = start_of(grain, moment)
    return start, end_of(grain, start)


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same moments in as few ranges as possible, in order."""
    found: list[Range] = []
    for since, until in sorted(ranges):
        if since >= until:
            continue
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        else:
            found.append((since, until))
    return found


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """What is left of `ranges` when the moments of `taken` are cut out, in order."""
    left: list[Range] = []
    cuts = joined(taken)
    position = 0
    for since, until in joined(ranges):
        begin = since
        while position < len(cuts) and cuts[position][1] <= begin:
            position += 1
        index = position
        while index < len(cuts) and cuts[index][0] < until:
            if cuts[index][0] > begin:
                left.append((begin, cuts[index][0]))
            begin = max(begin, cuts[index][1])
            index += 1
        if begin < until:
            left.append((begin, until))
    return left


def holds(ranges: Iterable[Range], inner: Range) -> bool:
    """Whether one of `ranges` covers `inner`."""
    return any(since <= inner[0] and inner[1] <= until for since, until in ranges)
