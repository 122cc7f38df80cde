"""The forecast: exact where days follow a pattern, honest where there are few, and as sure as it says it is."""

from __future__ import annotations

import datetime as dt
import math
import random
from statistics import mean, variance

import pytest

from analytics.reports import statistics
from analytics.reports.forecast import forecast

pytestmark = pytest.mark.once

#: A Friday at midnight; nineteen days of June 2026 are left.
NOW = dt.datetime(2026, 6, 12, tzinfo=dt.UTC)
TODAY = NOW.date()


def days_back(count: int) -> list[dt.date]:
    return [TODAY - dt.timedelta(days=number) for number in range(count, 0, -1)]


def test_days_alike_go_on_alike() -> None:
    found = forecast(dict.fromkeys(days_back(42), 2.0), now=NOW)
    assert (found.spent, found.expected, found.low, found.high) == pytest.approx((22.0, 60.0, 60.0, 60.0))


def test_weekdays_go_on_as_they_were() -> None:
    costs = {day: 10.0 if day.weekday() < 5 else 1.0 for day in days_back(42)}
    found = forecast(costs, now=NOW)
    june = [dt.date(2026, 6, day) for day in range(1, 31)]
    assert found.is_seasonal
    assert found.expected == pytest.approx(sum(10.0 if day.weekday() < 5 else 1.0 for day in june))
    assert (found.low, found.high) == pytest.approx((found.expected, found.expected))


def test_part_of_today_that_is_over_is_not_expected_again() -> None:
    noon = NOW + dt.timedelta(hours=12)
    found = forecast({**dict.fromkeys(days_back(42), 2.0), TODAY: 5.0}, now=noon)
    assert found.spent == pytest.approx(27.0)
    assert found.expected == pytest.approx(27.0 + 1.0 + 18 * 2.0)


def test_interval_without_weekdays_is_students() -> None:
    costs = dict(zip(days_back(6), [3.0, 1.0, 4.0, 1.0, 5.0, 9.0], strict=True))
    found = forecast(costs, now=NOW)
    seen = list(costs.values())
    left = 19
    half = statistics.t_quantile(0.975, 5) * math.sqrt(variance(seen) * (left + left**2 / 6))
    assert not found.is_seasonal
    assert found.expected == pytest.approx(sum(seen) + left * mean(seen))
    assert found.high == pytest.approx(found.expected + half)
    assert found.low == pytest.approx(max(sum(seen), found.expected - half))


@pytest.mark.parametrize("days", [1, 2, 3])
def test_few_days_give_no_interval(days: int) -> None:
    found = forecast(dict.fromkeys(days_back(days), 2.0), now=NOW)
    assert (found.low, found.high) == (None, None)
    assert found.expected == pytest.approx(2.0 * days + 19 * 2.0)


def test_nothing_before_today_foresees_nothing() -> None:
    found = forecast({TODAY: 3.0}, now=NOW)
    assert (found.spent, found.expected, found.low, found.days) == (3.0, 3.0, None, 0)


def test_days_before_the_first_request_are_no_days_without_cost() -> None:
    found = forecast(dict.fromkeys(days_back(10), 2.0), now=NOW)
    assert found.days == 10
    assert found.expected == pytest.approx(2.0 * 10 + 19 * 2.0)


def test_days_in_between_without_requests_cost_nothing() -> None:
    costs = {day: 2.0 for number, day in enumerate(days_back(6)) if number % 2 == 0}
    assert forecast(costs, now=NOW).expected == pytest.approx(6.0 + 19 * 6.0 / 6)


def test_no_month_ends_below_what_is_spent() -> None:
    costs = dict(zip(days_back(5), [0.0, 0.0, 0.0, 0.0, 100.0], strict=True))
    assert forecast(costs, now=NOW).low == pytest.approx(100.0)


def test_last_day_of_a_month_has_only_itself_left() -> None:
    last = dt.datetime(2026, 6, 30, 18, tzinfo=dt.UTC)
    costs = {last.date() - dt.timedelta(days=number): 4.0 for number in range(1, 43)}
    assert forecast(costs, now=last).expected == pytest.approx(29 * 4.0 + 1.0)


@pytest.mark.parametrize("seen", [42, 10])
def test_interval_holds_the_truth_as_often_as_it_says(seen: int) -> None:
    chance = random.Random(7)
    rounds, held = 1500, 0
    for _ in range(rounds):
        level = [chance.uniform(80, 120) for _ in range(7)] if seen > 14 else [100.0] * 7

        def cost(day: dt.date, level: list[float] = level) -> float:
            return level[day.weekday()] + chance.gauss(0, 10)

        costs = {day: cost(day) for day in days_back(seen)}
        truth = sum(cost for day, cost in costs.items() if day.month == 6)
        truth += sum(cost(TODAY + dt.timedelta(days=number)) for number in range(19))
        found = forecast(costs, now=NOW)
        held += found.low <= truth <= found.high
    # Of 1,500 rounds at 95 %, four standard errors are 2.3 %.
    assert held / rounds == pytest.approx(0.95, abs=0.023)
