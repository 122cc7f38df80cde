"""Ranges of time that people look at: into which intervals they are cut, and with which period they are compared.

All in UTC. Knows nothing of HTTP, nor of what is counted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from analytics.models import Grain
from analytics.periods import Range, end_of, start_of
from analytics.rolling import HOURS_KEPT

_MINUTE, _HOUR, _DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
_HALF: Final = {Grain.MINUTE: _MINUTE / 2, Grain.HOUR: _HOUR / 2, Grain.DAY: _DAY / 2}

#: Days that a range of one's own may have.
DAYS_AT_MOST: Final = 3660
#: Ranges of up to so many days are cut into hours, where there are hours; up to so many into days.
_DAYS_IN_HOURS: Final = 2
_DAYS_IN_DAYS: Final = 120


class SpanRefused(ValueError):
    """A range that cannot be looked at; the text says why, and what to do, in words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `since` until before `until`, in intervals; `before` is as long, one length of the whole earlier."""

    since: dt.datetime
    until: dt.datetime
    interval: Grain
    before: Range

    def starts(self) -> list[dt.datetime]:
        """Where the intervals begin, in order."""
        found = [self.since]
        while (end := end_of(self.interval, start_of(self.interval, found[-1]))) < self.until:
            found.append(end)
        return found

    def within(self, start: dt.datetime) -> Range:
        """The part of the interval that begins at `start` which is in the range."""
        return max(start, self.since), min(end_of(self.interval, start_of(self.interval, start)), self.until)


class Preset(NamedTuple):
    label: str
    interval: Grain
    #: How many intervals there are, the one that is running included.
    intervals: int


#: By name; the first four are named as in the list of interactions.
PRESETS: Final = {
    "hour": Preset("Last hour", Grain.MINUTE, 60),
    "day": Preset("Last 24 hours", Grain.HOUR, 24),
    "week": Preset("Last 7 days", Grain.DAY, 7),
    "month": Preset("Last 30 days", Grain.DAY, 30),
    "quarter": Preset("Last 90 days", Grain.DAY, 90),
    "year": Preset("Last 12 months", Grain.MONTH, 12),
}
DEFAULT: Final = "day"


def latest(name: str, *, now: dt.datetime) -> Span:
    """The range of that preset, up to `now`. Whole intervals and the one that is running."""
    _, interval, intervals = PRESETS[name]
    if interval is Grain.MONTH:
        since = _months_earlier(start_of(Grain.MONTH, now), intervals - 1)
        return _span(since, now, interval, lambda moment: _months_earlier(moment, intervals), now=now)
    length = {Grain.MINUTE: _MINUTE, Grain.HOUR: _HOUR, Grain.DAY: _DAY}[interval]
    since = start_of(interval, now) - length * (intervals - 1)
    return _span(since, now, interval, lambda moment: moment - length * intervals, now=now)


def days(first: dt.date, last: dt.date, *, now: dt.datetime) -> Span:
    """From one day to another, both included, but not beyond `now`. Raises SpanRefused."""
    if first > last:
        raise SpanRefused(f"The range ends ({last}) before it begins ({first}). Exchange the two days.")
    # The period before must have a date, too.
    if first.year < 1990 or (last - first).days >= DAYS_AT_MOST:
        raise SpanRefused(f"A range has {DAYS_AT_MOST:,} days at most, from 1990 on. Choose a shorter or a later one.")
    since = dt.datetime.combine(first, dt.time(), tzinfo=dt.UTC)
    if since >= now:
        raise SpanRefused(f"The range begins in the future ({first}, UTC). Choose an earlier day.")
    count = (last - first).days + 1
    until = min(since + count * _DAY, now)
    if count <= _DAYS_IN_HOURS and since > now - HOURS_KEPT + _DAY:
        interval = Grain.HOUR
    else:
        interval = Grain.DAY if count <= _DAYS_IN_DAYS else Grain.MONTH
    return _span(since, until, interval, lambda moment: moment - count * _DAY, now=now)


def _span(
    since: dt.datetime,
    until: dt.datetime,
    interval: Grain,
    earlier: Callable[[dt.datetime], dt.datetime],
    *,
    now: dt.datetime,
) -> Span:
    """Ends of a period before are rounded to what is rolled up of that time: else a part of a minute or an hour, or of
    a day when there are no hours any more, would have to be read from its rows."""
    begin, end = earlier(since), earlier(until)
    if interval is Grain.DAY:
        end = _rounded(Grain.HOUR if end > now - HOURS_KEPT + _DAY else Grain.DAY, end)
    elif interval is Grain.MONTH:
        end = _rounded(Grain.DAY, end)
    else:
        end = _rounded(Grain.MINUTE, end)
    return Span(since=since, until=until, interval=interval, before=(begin, min(end, since)))


def _rounded(grain: Grain, moment: dt.datetime) -> dt.datetime:
    return start_of(grain, moment + _HALF[grain])


def _months_earlier(moment: dt.datetime, count: int) -> dt.datetime:
    """The same day and time so many months ago, or the last day of that month when it is shorter."""
    year, month = divmod(moment.year * 12 + moment.month - 1 - count, 12)
    last = (end_of(Grain.MONTH, dt.datetime(year, month + 1, 1, tzinfo=dt.UTC)) - _DAY).day
    return moment.replace(year=year, month=month + 1, day=min(moment.day, last))
