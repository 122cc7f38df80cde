"""Ranges of time: whole intervals up to now, and a period before of the same length."""

from __future__ import annotations

import datetime as dt

import pytest

from analytics import spans
from analytics.models import Grain
from analytics.spans import SpanRefused

NOW = dt.datetime(2026, 5, 31, 12, 34, 56, 789000, tzinfo=dt.UTC)


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("name", "since", "interval", "before"),
    [
        ("hour", "2026-05-31T11:35", Grain.MINUTE, ("2026-05-31T10:35", "2026-05-31T11:35")),
        ("day", "2026-05-30T13:00", Grain.HOUR, ("2026-05-29T13:00", "2026-05-30T12:35")),
        ("week", "2026-05-25", Grain.DAY, ("2026-05-18", "2026-05-24T13:00")),
        ("month", "2026-05-02", Grain.DAY, ("2026-04-02", "2026-05-01T13:00")),
        ("quarter", "2026-03-03", Grain.DAY, ("2025-12-03", "2026-03-03")),
        ("year", "2025-06-01", Grain.MONTH, ("2024-06-01", "2025-06-01")),
    ],
)
def test_latest(name: str, since: str, interval: Grain, before: tuple[str, str]) -> None:
    span = spans.latest(name, now=NOW)
    assert (span.since, span.until, span.interval) == (moment(since), NOW, interval)
    assert span.before == (moment(before[0]), moment(before[1]))


@pytest.mark.parametrize("name", spans.PRESETS)
def test_intervals_fill_the_range_and_no_moment_is_in_both_periods(name: str) -> None:
    for minutes in range(0, 60 * 24 * 40, 60 * 11 + 7):
        span = spans.latest(name, now=NOW + dt.timedelta(minutes=minutes))
        starts = span.starts()
        assert len(starts) == spans.PRESETS[name].intervals
        ranges = [span.within(start) for start in starts]
        assert ranges[0][0] == span.since
        assert ranges[-1][1] == span.until
        assert [end for _, end in ranges[:-1]] == [begin for begin, _ in ranges[1:]]
        assert span.before[0] < span.before[1] <= span.since


@pytest.mark.parametrize(
    ("first", "last", "until", "interval", "before"),
    [
        ("2026-05-30", "2026-05-30", "2026-05-31", Grain.HOUR, ("2026-05-29", "2026-05-30")),
        ("2026-05-31", "2026-06-02", None, Grain.DAY, ("2026-05-28", "2026-05-28T13:00")),
        ("2025-05-30", "2025-05-30", "2025-05-31", Grain.DAY, ("2025-05-29", "2025-05-30")),
        ("2026-01-01", "2026-03-31", "2026-04-01", Grain.DAY, ("2025-10-03", "2026-01-01")),
        ("2025-01-01", "2025-12-31", "2026-01-01", Grain.MONTH, ("2024-01-02", "2025-01-01")),
    ],
)
def test_days_of_ones_own(first: str, last: str, until: str | None, interval: Grain, before: tuple[str, str]) -> None:
    span = spans.days(dt.date.fromisoformat(first), dt.date.fromisoformat(last), now=NOW)
    assert (span.since, span.until) == (moment(first), moment(until) if until else NOW)
    assert (span.interval, span.before) == (interval, (moment(before[0]), moment(before[1])))


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("2026-05-02", "2026-05-01", "Exchange the two days"),
        ("2026-06-01", "2026-06-02", "begins in the future"),
        ("0001-01-01", "9999-12-31", "Choose a shorter or a later one"),
        ("1989-12-31", "1990-01-02", "Choose a shorter or a later one"),
        ("2000-01-01", "2026-01-01", "3,660 days at most"),
    ],
)
def test_range_that_cannot_be_looked_at_is_refused_in_words(first: str, last: str, words: str) -> None:
    with pytest.raises(SpanRefused, match=words):
        spans.days(dt.date.fromisoformat(first), dt.date.fromisoformat(last), now=NOW)
