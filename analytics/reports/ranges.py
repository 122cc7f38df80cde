"""Ranges of time by name, such as "last week": whole days in UTC, the same on screen and in a schedule.

Days, because roll-ups by user have no hours, and because a day once told does not change its figures by the minute.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from analytics import rolling
from analytics.models import Grain
from analytics.periods import Range, end_of, joined, start_of

DAY: Final = dt.timedelta(days=1)
CUSTOM: Final = "custom"

#: Hours are rolled up for so long, but for the day that is about to lose them; further back, one costs a day's rows.
HOURS_KEPT: Final = rolling.HOURS_KEPT - DAY

#: Days that end with today, which is not over yet.
_WITH_TODAY: Final = {"last-7-days": 7, "last-30-days": 30, "last-90-days": 90}
#: Whole days that end with yesterday.
_BEFORE_TODAY: Final = {"previous-7-days": 7, "previous-30-days": 30}

#: What to write in a form or in a schedule's parameters, and how people say it.
RELATIVE: Final = {
    "today": "Today",
    "yesterday": "Yesterday",
    "last-7-days": "Last 7 days, with today",
    "last-30-days": "Last 30 days, with today",
    "last-90-days": "Last 90 days, with today",
    "previous-7-days": "The 7 days before today",
    "previous-30-days": "The 30 days before today",
    "last-week": "Last week, Monday to Sunday",
    "this-month": "This month",
    "last-month": "Last month",
    "this-year": "This year",
    "last-12-months": "The last 12 months, with this one",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `since` until before `until`, both at midnight UTC."""

    since: dt.datetime
    until: dt.datetime

    @property
    def first_day(self) -> dt.date:
        return self.since.date()

    @property
    def last_day(self) -> dt.date:
        return (self.until - DAY).date()

    @property
    def days(self) -> int:
        return (self.until - self.since).days

    def with_hours(self, *, now: dt.datetime) -> Span:
        """The part of it whose hours are known; empty, if it is before all of them."""
        earliest = start_of(Grain.DAY, now - HOURS_KEPT)
        return Span(since=min(max(self.since, earliest), self.until), until=self.until)

    def parts(self, grain: Grain, starts: Iterable[dt.datetime]) -> tuple[Range, ...]:
        """What lies in the periods that begin at `starts`, in order and joined where they meet."""
        found = ((max(self.since, start), min(self.until, end_of(grain, start))) for start in starts)
        return tuple(joined(found))

    def __str__(self) -> str:
        if self.days == 1:
            return f"{self.first_day:%Y-%m-%d}"
        return f"{self.first_day:%Y-%m-%d} to {self.last_day:%Y-%m-%d}"


def named(name: str, *, now: dt.datetime) -> Span:
    """The range that one of RELATIVE means at the moment `now`. Raises KeyError for another name."""
    today = start_of(Grain.DAY, now)
    month = start_of(Grain.MONTH, now)
    match name:
        case "today":
            return Span(since=today, until=today + DAY)
        case "yesterday":
            return Span(since=today - DAY, until=today)
        case "last-week":
            monday = today - DAY * today.weekday()
            return Span(since=monday - 7 * DAY, until=monday)
        case "this-month":
            return Span(since=month, until=today + DAY)
        case "last-month":
            return Span(since=start_of(Grain.MONTH, month - DAY), until=month)
        case "this-year":
            return Span(since=month.replace(month=1), until=today + DAY)
        case "last-12-months":
            # 320 days before the first of a month lie in the month eleven months earlier, in every year.
            return Span(since=start_of(Grain.MONTH, month - 320 * DAY), until=today + DAY)
    if name in _WITH_TODAY:
        return Span(since=today - (_WITH_TODAY[name] - 1) * DAY, until=today + DAY)
    return Span(since=today - _BEFORE_TODAY[name] * DAY, until=today)


def of_days(first: dt.date, last: dt.date) -> Span:
    """Both days included."""
    since, until = (dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC) for day in (first, last))
    return Span(since=since, until=until + DAY)
