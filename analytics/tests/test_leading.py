"""The users with the most: the same whether found by first places or by adding everything up."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from random import Random
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from analytics import cells, leading
from analytics.models import Cube, Grain
from analytics.periods import Range, end_of
from analytics.questions import Question
from analytics.totals import Key, Totals

pytestmark = pytest.mark.django_db

FIRST = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
DAY, MINUTE = dt.timedelta(days=1), dt.timedelta(minutes=1)
OWNER = UUID(int=7)


def fill(requests: dict[tuple[Grain, dt.datetime], dict[str, int]]) -> None:
    for (grain, start), by_user in requests.items():
        table = {
            Key(Cube.USER, organization_id=OWNER, user_id=user): Totals(requests=count, cost=count * 3)
            for user, count in by_user.items()
        }
        cells.replace(grain, (start, end_of(grain, start)), {start: table})


def some_days(random: Random, *, is_even: bool) -> dict[tuple[Grain, dt.datetime], dict[str, int]]:
    """A few who ask much, or everybody alike; and two minutes of today."""
    users = [f"u{number}" for number in range(40)]
    weights = [1] * 40 if is_even else [200 // (rank + 1) for rank in range(40)]
    periods = [(Grain.DAY, FIRST + number * DAY) for number in range(6)]
    periods += [(Grain.MINUTE, FIRST + 6 * DAY + number * MINUTE) for number in range(2)]
    return {
        period: {
            user: weight * random.randint(1, 3)
            for user, weight in zip(users, weights, strict=True)
            if weight and random.random() < 0.8
        }
        for period in periods
    }


def asked(**more: Any) -> Question:
    return Question(
        organization_id=None,
        since=FIRST,
        until=FIRST + 7 * DAY,
        **{"by": ("organization_id", "user_id"), "limit": 3, "times": False, **more},
    )


SPANS: dict[Grain, list[Range]] = {
    Grain.DAY: [(FIRST, FIRST + 2 * DAY), (FIRST + 2 * DAY, FIRST + 6 * DAY)],
    Grain.MINUTE: [(FIRST + 6 * DAY, FIRST + 6 * DAY + 2 * MINUTE)],
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("is_even", "spare"), [(True, 4), (False, 0), (False, 2)])
def test_first_places_tell_the_same_as_sums(
    monkeypatch: pytest.MonkeyPatch, is_even: bool, spare: int, seed: int
) -> None:
    monkeypatch.setattr(leading, "_PLACES", 6)
    monkeypatch.setattr(leading, "_SPARE", spare)
    told = some_days(Random(seed), is_even=is_even)
    fill(told)
    whole: Counter[str] = Counter()
    for by_user in told.values():
        whole.update(by_user)
    others = [(None, OWNER, "u39")]
    question = asked()
    with CaptureQueriesContext(connection) as queries:
        found = {group[2]: totals.requests for group, totals in leading.users(question, SPANS, others, None)}
    # Where everybody has as many, first places do not tell: all are added up.
    if is_even or not spare:
        assert any("WITH found" in query["sql"] for query in queries) is is_even
    assert found.items() <= whole.items()
    needed = sorted(whole.values(), reverse=True)[2]
    assert {user for user, count in whole.items() if count > needed} | {"u39"} <= set(found)
    assert sum(count >= needed for count in found.values()) >= 3


def test_other_counters_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told = some_days(Random(3), is_even=False)
    fill(told)
    with CaptureQueriesContext(connection) as queries:
        found = {group[2]: totals.cost for group, totals in leading.users(asked(top="cost"), SPANS, [], None)}
    assert any("WITH found" in query["sql"] for query in queries)
    assert found["u0"] == 3 * sum(by_user.get("u0", 0) for by_user in told.values())


def test_nobody_leads_where_nothing_is() -> None:
    assert list(leading.users(asked(), SPANS, [], None)) == []
    assert list(leading.users(asked(), {Grain.DAY: []}, [], None)) == []
