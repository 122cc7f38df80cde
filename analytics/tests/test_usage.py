"""`/v1/usage` and `/v1/stats`: an organization's own figures, exact, and clear refusals."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.tests.factories import APIKeyFactory
from accounts.tests.fixtures import Person
from analytics import rolling, sources
from analytics.histogram import RELATIVE_ERROR
from analytics.tests.record import exchange, store
from chat.models import Change

pytestmark = pytest.mark.django_db

DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)


def ago(**span: float) -> dt.datetime:
    moment = timezone.now() - dt.timedelta(**span)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.fixture
def ask(client: Client) -> Callable[..., Any]:
    def send(person: Person, path: str = "/v1/usage", expect: int = 200, **query: Any) -> Any:
        response = client.get(path, query, headers=person.headers)
        assert response.status_code == expect, response.content
        return response.json()

    return send


@pytest.fixture
def filled(owner: Person, stranger: Person) -> None:
    """Three of the owner's, half rolled up, and one of somebody else's."""
    store(
        [
            exchange(owner.organization, ago(days=2), user_id="ana", api_key_id=owner.key.id),
            exchange(owner.organization, ago(days=2), user_id="bo", model="gpt-4o", provider="openai", cost=None),
            exchange(stranger.organization, ago(days=2)),
        ]
    )
    rolling.roll_up()
    store(
        [
            exchange(
                owner.organization,
                ago(seconds=1),
                user_id="ana",
                status="failed",
                error_code="provider_timeout",
                input_tokens=None,
                output_tokens=None,
                cost=None,
                latency_ms=4000.0,
                time_to_first_token_ms=None,
                attempts=3,
                retries=1,
                fallback=True,
            )
        ]
    )


def test_usage_counts_what_was_asked_a_moment_ago(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    found = ask(owner)
    assert found["organization_id"] == str(owner.organization.id)
    summary = found["summary"]
    assert (summary["total_requests"], summary["total_tokens"], summary["total_cost"]) == (3, 140, 0.0000205)
    assert (summary["unpriced_requests"], summary["attempts"], summary["retries"], summary["fallbacks"]) == (1, 5, 1, 1)
    assert found["by_model"] == {
        "gemini-2.0-flash": {"requests": 2, "tokens": 70, "cost": 0.0000205, "unpriced_requests": 0},
        "gpt-4o": {"requests": 1, "tokens": 70, "cost": None, "unpriced_requests": 1},
    }
    assert found["freshness"]["is_complete"] is True
    assert found["freshness"]["pending_since"] is None
    assert {"groups", "series"} & set(found) == set()


def test_percentiles_are_told_within_two_percent(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    times = ask(owner)["summary"]["latency_ms"]
    assert times["count"] == 3
    assert times["average"] == pytest.approx((812.4 * 2 + 4000) / 3, abs=0.001)
    assert times["p50"] == pytest.approx(812.4, rel=RELATIVE_ERROR + 0.001)


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("provider", {"gemini": 2, "openai": 1}),
        ("status", {"succeeded": 2, "failed": 1}),
        ("user", {"ana": 2, "bo": 1}),
        ("error_code", {"unknown": 2, "provider_timeout": 1}),
        ("cached", {"false": 3}),
        ("plan", {"free": 3}),
    ],
)
def test_usage_is_grouped_by_any_dimension(
    group_by: str, expected: dict[str, int], owner: Person, filled: None, ask: Callable[..., Any]
) -> None:
    found = ask(owner, group_by=group_by)
    assert {group[group_by]: group["total_requests"] for group in found["groups"]} == expected


def test_usage_is_grouped_by_key(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    found = ask(owner, group_by="key")
    assert {group["key"]: group["total_requests"] for group in found["groups"]} == {str(owner.key.id): 1, "unknown": 2}
    assert ask(owner, key=str(owner.key.id))["summary"]["total_requests"] == 1


def test_groups_beyond_the_limit_are_told_together(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    first, rest = ask(owner, group_by="user", limit=1)["groups"]
    assert (first["user"], first["total_requests"]) == ("ana", 2)
    assert (rest["user"], rest["is_rest"], rest["total_requests"]) == (None, True, 1)


def test_filters_narrow_everything(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    found = ask(owner, status="succeeded", provider="openai", group_by="model")
    assert found["summary"]["total_requests"] == 1
    assert list(found["by_model"]) == ["gpt-4o"] == [group["model"] for group in found["groups"]]


def test_one_users_usage_has_no_models(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    found = ask(owner, user="ana", interval="day")
    assert found["summary"]["total_requests"] == 2
    assert found["by_model"] is None
    assert [point["requests"] for point in found["series"]] == [1, 1]


@pytest.mark.parametrize("asked", [{"interval": "day"}, {"group_by": "day"}], ids=["interval", "group_by"])
def test_a_series_by_the_day(asked: dict[str, str], owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    series = ask(owner, **asked)["series"]
    today = timezone.now().date()
    assert [(point["start"][:10], point["requests"]) for point in series] == [
        (str(today - 2 * DAY), 2),
        (str(today), 1),
    ]


def test_a_series_by_the_hour_and_model(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    series = ask(owner, interval="hour", group_by="model")["series"]
    assert [(point["model"], point["requests"]) for point in series] == [
        ("gemini-2.0-flash", 1),
        ("gpt-4o", 1),
        ("gemini-2.0-flash", 1),
    ]


def test_days_are_inclusive_and_in_utc(owner: Person, ask: Callable[..., Any]) -> None:
    first = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    last = dt.datetime(2026, 3, 2, 23, 59, 59, 999000, tzinfo=dt.UTC)
    moments = [first - dt.timedelta(milliseconds=1), first, last, last + dt.timedelta(milliseconds=1)]
    store([exchange(owner.organization, moment) for moment in moments])
    for _ in range(2):
        assert ask(owner, start_date="2026-03-01", end_date="2026-03-02")["summary"]["total_requests"] == 2
        rolling.roll_up()


def test_strangers_see_their_own_alone(stranger: Person, filled: None, ask: Callable[..., Any]) -> None:
    assert ask(stranger)["summary"]["total_requests"] == 1
    assert ask(stranger, path="/v1/stats", since=ago(days=3).isoformat())["requests"]["total"] == 1


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/stats"])
def test_a_key_without_the_scope_is_refused(path: str, owner: Person, client: Client) -> None:
    key = APIKeyFactory.create(organization=owner.organization, scopes=["chat"])
    response = client.get(path, headers={"Authorization": f"Bearer {key.raw}"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "insufficient_scope")
    assert client.get(path).status_code == 401


@pytest.mark.parametrize(
    ("query", "param", "says"),
    [
        ({"start_date": "yesterday"}, "start_date", "YYYY-MM-DD"),
        ({"start_date": "2026-05-02", "end_date": "2026-05-01"}, "start_date", "Exchange them"),
        ({"start_date": "0001-01-01"}, "start_date", "1970-01-01"),
        ({"end_date": "9999-12-31"}, "end_date", "2099-12-31"),
        ({"start_date": "2015-01-01", "end_date": "2026-05-01"}, "start_date", "Ask for fewer"),
        ({"start_date": "2026-01-01", "end_date": "2026-05-01", "interval": "hour"}, "start_date", "Ask for fewer"),
        ({"start_date": "2026-05-01", "end_date": "2026-05-02", "interval": "hour"}, "start_date", "Hours are kept"),
        ({"group_by": "colour"}, "group_by", "not a valid choice"),
        ({"group_by": "day", "interval": "day"}, "group_by", "a dimension"),
        ({"group_by": "user", "model": "gpt-4o"}, "group_by", "not together with model"),
        ({"user": "ana", "group_by": "model"}, "user", "not together with group_by=model"),
        ({"user": "ana", "interval": "hour"}, "user", "interval=day"),
        ({"status": "fine"}, "status", "not a valid choice"),
        ({"key": "1"}, "key", "UUID"),
        ({"limit": "0"}, "limit", "greater than or equal to 1"),
        ({"organization": "other"}, "organization", "not known"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_remedy(
    query: dict[str, str], param: str, says: str, owner: Person, ask: Callable[..., Any]
) -> None:
    error = ask(owner, expect=400, **query)["error"]
    assert (error["param"], error["code"]) == (param, "invalid_request")
    assert says in error["message"]


def test_statistics_since_a_moment(owner: Person, filled: None, ask: Callable[..., Any]) -> None:
    lately = ask(owner, path="/v1/stats")
    assert lately["requests"] == {"total": 1, "succeeded": 0, "failed": 1, "cancelled": 0, "interrupted": 0}
    found = ask(owner, path="/v1/stats", since=ago(days=3).isoformat())
    assert found["requests"]["total"] == 3
    assert found["errors"] == {"total": 1, "rate": 0.333333, "by_code": {"provider_timeout": 1}}
    assert found["retries"] == {"attempts": 5, "retries": 1, "fallbacks": 1}
    assert found["cost"] == {"total": 0.0000205, "currency": "USD", "unpriced_requests": 1}
    assert found["tokens"] == {"input": 50, "cached_input": 0, "output": 90, "reasoning": 0, "total": 140}
    assert found["cache"] == {"hits": 0, "hit_rate": 0.0}


@pytest.mark.parametrize("rolled_up", [False, True])
def test_statistics_begin_at_the_very_moment(rolled_up: bool, owner: Person, ask: Callable[..., Any]) -> None:
    moment = ago(hours=40, minutes=7)
    store([exchange(owner.organization, moment - dt.timedelta(milliseconds=1)), exchange(owner.organization, moment)])
    if rolled_up:
        rolling.roll_up()
    assert ask(owner, path="/v1/stats", since=moment.isoformat())["requests"]["total"] == 1


@pytest.mark.parametrize(
    ("since", "says"),
    [("2999-01-01T00:00:00Z", "future"), ("1999-01-01T00:00:00Z", "days ago"), ("now", "Datetime has wrong format")],
)
def test_statistics_since_no_moment_are_refused(since: str, says: str, owner: Person, ask: Callable[..., Any]) -> None:
    error = ask(owner, path="/v1/stats", expect=400, since=since)["error"]
    assert error["param"] == "since"
    assert says in error["message"]


def test_nothing_asked_yet_is_nothing_spent(owner: Person, ask: Callable[..., Any]) -> None:
    found = ask(owner)
    assert (found["summary"]["total_requests"], found["summary"]["total_cost"], found["by_model"]) == (0, 0.0, {})
    assert found["summary"]["latency_ms"]["p99"] is None
    assert ask(owner, path="/v1/stats")["errors"]["rate"] is None


def test_an_answer_that_cannot_be_exact_yet_says_so(
    owner: Person, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    store([exchange(owner.organization, ago(hours=hours), cost=Decimal("0.5")) for hours in (1, 30, 60, 90)])
    monkeypatch.setattr(sources, "UNROLLED_AT_MOST", HOUR)
    found = ask(owner)
    assert found["freshness"]["is_complete"] is False
    oldest = Change.objects.order_by("minute").values_list("minute", flat=True)[0]
    assert found["freshness"]["pending_since"].startswith(oldest.strftime("%Y-%m-%dT%H:%M"))
    rolling.roll_up()
    found = ask(owner)
    assert found["freshness"]["is_complete"] is True
    assert found["summary"]["total_cost"] == 2.0
