"""What readers keep of closed periods: used again, never changed by who uses it, and given up when a period changes."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Organization
from analytics import kept, rolling
from analytics.kept import Kept
from analytics.models import Grain, RollUpState
from analytics.questions import Answer, Question
from analytics.reading import answer
from analytics.tests.record import exchange, store
from chat.models import Interaction

DAY = dt.timedelta(days=1)


@pytest.fixture
def now(organization: Organization) -> dt.datetime:
    """The moment of all questions: three requests of ana and two of bo are rolled up, of the day before yesterday."""
    moment = timezone.now()
    store([exchange(organization, moment - 2 * DAY, user_id=name) for name in ("ana", "ana", "ana", "bo", "bo")])
    rolling.roll_up()
    return moment


def ask(now: dt.datetime, **asked: Any) -> Answer:
    question = {"organization_id": None, "since": now - 10 * DAY, "until": now + DAY, **asked}
    return answer(Question(**question), now=now)[0]


def of_closed(queries: CaptureQueriesContext) -> list[str]:
    """Queries of cells that are not of minutes."""
    return [query["sql"] for query in queries if re.search(r'grain"? = [234]', query["sql"])]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "asked",
    [
        {"by": ("status",)},
        {"by": ("organization_id", "status"), "interval": Grain.DAY},
        {"only": {"model": ["gpt-4o", "echo"]}},
    ],
)
def test_closed_periods_are_read_once(now: dt.datetime, asked: dict[str, Any]) -> None:
    with CaptureQueriesContext(connection) as queries:
        first = ask(now, **asked)
    assert of_closed(queries)
    with CaptureQueriesContext(connection) as queries:
        again = ask(now + dt.timedelta(seconds=30), **asked)
    assert of_closed(queries) == []
    assert again.groups == first.groups


@pytest.mark.django_db
def test_the_places_of_users_are_read_once(now: dt.datetime) -> None:
    asked: dict[str, Any] = {"by": ("organization_id", "user_id"), "limit": 1, "times": False}
    with CaptureQueriesContext(connection) as queries:
        first = ask(now, **asked)
    assert any("ORDER BY requests" in sql for sql in of_closed(queries))
    with CaptureQueriesContext(connection) as queries:
        again = ask(now, **asked)
    assert not any("ORDER BY requests" in sql for sql in of_closed(queries))
    assert (again.groups, again.rest) == (first.groups, first.rest)
    assert [group[2] for group in again.groups] == ["ana"]


@pytest.mark.django_db
def test_who_changes_an_answer_changes_no_other(now: dt.datetime) -> None:
    first = ask(now)
    first.groups[None,].add(first.groups[None,].copy())
    again = ask(now).groups[None,]
    assert (again.requests, sum(again.latencies.values())) == (5, 5)


@pytest.mark.django_db
def test_what_changes_in_a_closed_period_is_seen(now: dt.datetime, organization: Organization) -> None:
    assert ask(now, by=("user_id",)).groups[None, "bo"].requests == 2
    assert ask(now).groups[None,].requests == 5
    store([exchange(organization, now - 2 * DAY, user_id="bo")])
    # From rows, and once they are rolled up, from cells.
    assert ask(now).groups[None,].requests == 6
    rolling.roll_up()
    assert ask(now).groups[None,].requests == 6
    assert ask(now, by=("user_id",)).groups[None, "bo"].requests == 3
    Interaction.objects.filter(user_id="ana").delete()
    rolling.rebuild(now=now)
    rolling.roll_up()
    assert ask(now).groups[None,].requests == 3


@pytest.mark.django_db
def test_minutes_leave_what_is_kept_alone(now: dt.datetime, organization: Organization) -> None:
    ask(now)
    before = RollUpState.objects.get().revision
    store([exchange(organization, now, user_id="ana")])
    rolling.roll_up()
    assert RollUpState.objects.get().revision == before
    assert ask(now).groups[None,].requests == 6


def test_no_more_is_kept_than_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST", 10)
    values: Kept[str] = Kept(len)
    read: list[str] = []

    def get(key: str, revision: Any) -> str:
        return values.get(revision, key, lambda: (read.append(key), key)[1])  # type: ignore[func-returns-value]

    one, two = uuid4(), uuid4()
    for key in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb"):
        get(key, one)
    # The one that was used last stays; what is heavier than half of the room is never kept.
    assert read == ["aaaa", "bbbb", "cccc", "bbbb"]
    get("dddddd", one)
    get("dddddd", one)
    assert read[4:] == ["dddddd", "dddddd"]
    get("aaaa", two)
    get("aaaa", None)
    get("aaaa", two)
    assert read[6:] == ["aaaa", "aaaa"]
