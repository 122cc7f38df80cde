"""Each report's figures, held against exchanges counted by hand, half of them rolled up and half not."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Organization
from accounts.tests.factories import APIKeyFactory
from accounts.tests.fixtures import Person
from analytics import rolling
from analytics.histogram import RELATIVE_ERROR
from analytics.reports import errors, forecast, top_users
from analytics.tests.record import exchange, some_exchanges, store
from analytics.tests.reporting import faults_of, lines_of, operator, outcome_of
from chat import selection
from chat.models import Interaction

pytestmark = pytest.mark.django_db

DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)


def noon(days: int) -> dt.datetime:
    """Noon of the day that many days ago."""
    return timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - days * DAY


def failing(organization: Any, moment: dt.datetime, **fields: Any) -> Any:
    values = {"status": "failed", "error_code": "provider_timeout", "cost": None, "input_tokens": None}
    return exchange(organization, moment, **{**values, "output_tokens": None, **fields})


# --- Usage -----------------------------------------------------------------------------------------------------------


def test_usage_by_model_counts_failures_tokens_and_cost(owner: Person, stranger: Person) -> None:
    store([exchange(owner.organization, noon(3), cost=Decimal("0.5")) for _ in range(3)])
    store([failing(owner.organization, noon(3)), exchange(stranger.organization, noon(3))])
    rolling.roll_up()
    store([exchange(owner.organization, noon(1), model="gpt-4o", provider="openai", cost=None)])
    found = outcome_of("usage", owner.user, group_by="model")
    names = ("model", "requests", "failed", "failure_rate", "cost", "unpriced", "total_tokens")
    assert lines_of(found, *names) == [
        ("gemini-2.0-flash", 4, 1, 0.25, Decimal("1.5"), 0, 210),
        ("gpt-4o", 1, 0, 0.0, None, 1, 70),
    ]
    total = found.tables[0].total
    assert (total["requests"], total["failed"], total["cost"]) == (5, 1, Decimal("1.5"))
    assert "1 of 5 requests used tokens at a price that nobody knew" in found.remarks[0].text


def test_groups_add_up_to_the_total_whatever_they_are_by(owner: Person, stranger: Person) -> None:
    since = noon(20)
    organizations = [owner.organization, stranger.organization]
    told = some_exchanges(organizations, 120, since=since, until=noon(1), seed=3)
    store(told)
    rolling.roll_up()
    mine = [each.interaction for each in told if each.interaction.organization_id == owner.organization.id]
    cost = sum((row.cost or Decimal(0) for row in mine), Decimal(0))
    for word in ("provider", "plan", "status", "error_code", "cached", "route_reason", "key", "user"):
        found = outcome_of("usage", owner.user, group_by=word, range="last-30-days")
        lines = lines_of(found, "requests", "cost")
        total = found.tables[0].total
        assert sum(requests for requests, _ in lines) == len(mine) == total["requests"], word
        assert sum((spent or Decimal(0) for _, spent in lines), Decimal(0)) == cost == total["cost"], word


def test_operator_sees_each_organization(owner: Person, stranger: Person) -> None:
    store([exchange(owner.organization, noon(2)) for _ in range(2)])
    store([exchange(stranger.organization, noon(2))])
    found = outcome_of("usage", operator(), group_by="organization", then_by="provider")
    assert lines_of(found, "organization", "provider", "requests") == [
        (owner.organization.name, "gemini", 2),
        (stranger.organization.name, "gemini", 1),
    ]


def test_operator_sees_users_of_the_same_name_apart(owner: Person, stranger: Person) -> None:
    store([exchange(owner.organization, noon(2), user_id="ada") for _ in range(2)])
    store([exchange(stranger.organization, noon(2), user_id="ada")])
    found = outcome_of("usage", operator(), group_by="user")
    assert lines_of(found, "user", "organization", "requests") == [
        ("ada", owner.organization.name, 2),
        ("ada", stranger.organization.name, 1),
    ]
    assert lines_of(outcome_of("usage", owner.user, group_by="user"), "user", "requests") == [("ada", 2)]


def test_weeks_begin_on_mondays_and_days_make_them(owner: Person) -> None:
    monday = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC)
    store([exchange(owner.organization, monday + number * DAY) for number in range(9)])
    rolling.roll_up()
    said: dict[str, Any] = {
        "range": "custom",
        "since": "2026-03-03",
        "until": "2026-03-31",
        "group_by": "",
        "interval": "week",
    }
    found = outcome_of("usage", owner.user, **said)
    assert lines_of(found, "start", "requests") == [(dt.date(2026, 3, 2), 6), (dt.date(2026, 3, 9), 2)]
    # The first week's link begins where the range does.
    assert "since=2026-03-03T00" in found.tables[0].lines[0].url
    assert [value for _, value in found.chart.points] == [pytest.approx(6 * 0.0000205), pytest.approx(2 * 0.0000205)]


@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"group_by": "model", "then_by": "model"}, "then_by", "grouped by already"),
        ({"group_by": "user", "then_by": "model"}, "group_by", "counted by themselves"),
        ({"group_by": "user", "model": "gpt-4o"}, "group_by", "counted by themselves"),
        ({"group_by": "user", "interval": "day"}, "interval", "Name one user"),
        ({"interval": "hour", "range": "last-30-days"}, "interval", "14 days at most"),
        ({"interval": "hour", "range": "custom", "since": "2020-01-01", "until": "2020-01-02"}, "interval", "are kept"),
        ({"range": "custom", "since": "2026-01-02", "until": "2026-01-01"}, "until", "before the first"),
        ({"range": "custom", "since": "2026-01-02"}, "until", "Say both days"),
        ({"range": "custom", "since": "0001-01-01", "until": "9999-12-31"}, "since", "from 1970 on"),
        ({"range": "custom", "since": "1990-01-01", "until": "2026-12-31"}, "until", "shorter range"),
        ({"range": "fortnight"}, "range", "fortnight is not one of"),
        ({"group_by": "colour"}, "group_by", "colour is not one of"),
        ({"key": "llmc_nobody"}, "key", "No key that you may see"),
        ({"organization": "x"}, "organization", "not a valid UUID"),
        ({"model": "\x00"}, "model", "Null characters"),
    ],
)
def test_what_cannot_be_answered_is_explained(owner: Person, said: dict[str, str], field: str, words: str) -> None:
    assert words in " ".join(faults_of("usage", owner.user, **said)[field])


# --- Errors ----------------------------------------------------------------------------------------------------------


def test_errors_tell_shares_days_and_the_newest_examples(owner: Person) -> None:
    store([exchange(owner.organization, noon(4)) for _ in range(6)])
    store([failing(owner.organization, noon(days) - minute * HOUR / 60) for days in (5, 2) for minute in range(4)])
    rolling.roll_up()
    last = failing(owner.organization, noon(2) + HOUR, error_message="It took too long.")
    store([last, failing(owner.organization, noon(3), status="interrupted", error_code="interrupted")])
    found = outcome_of("errors", owner.user, range="last-7-days")
    assert lines_of(found, "error_code", "failed", "share", "failure_rate", "first", "last") == [
        ("provider_timeout", 9, 0.9, 9 / 16, noon(5).date(), noon(2).date()),
        ("interrupted", 1, 0.1, 1 / 16, noon(3).date(), noon(3).date()),
    ]
    examples = found.tables[1].lines
    assert [line.values["error_code"] for line in examples] == ["provider_timeout", "interrupted"]
    assert examples[0].url.endswith(f"/{last.interaction.pk}/change/")
    assert examples[0].values["message"] == "It took too long."


def test_examples_of_a_year_are_looked_for_in_the_last_hour_of_the_last_day_of_the_last_month(owner: Person) -> None:
    store([failing(owner.organization, noon(days)) for days in (200, 90, 20, 3)])
    last = failing(owner.organization, noon(3) + HOUR)
    store([last, failing(owner.organization, noon(90), error_code="long_ago")])
    rolling.roll_up()
    found = outcome_of("errors", owner.user, range="last-12-months")
    month = noon(3).date().replace(day=1)
    assert lines_of(found, "error_code", "failed", "last")[0] == ("provider_timeout", 5, month)
    assert [line.values["error_code"] for line in found.tables[1].lines] == ["provider_timeout"]
    assert found.tables[1].lines[0].url.endswith(f"/{last.interaction.pk}/change/")
    assert "more than 34 days ago have a link above only" in found.tables[1].note


def test_nothing_failed_is_said(owner: Person) -> None:
    store([exchange(owner.organization, noon(1))])
    found = outcome_of("errors", owner.user)
    assert [remark.text for remark in found.remarks] == ["1 request, and none failed."]
    assert not found.tables[0].lines


def test_examples_read_an_hour_of_rows_however_long_the_range(owner: Person) -> None:
    store([failing(owner.organization, noon(days), error_code=f"code_{days % 3}") for days in range(1, 30)])
    rolling.roll_up()
    with CaptureQueriesContext(connection) as queries:
        outcome_of("errors", owner.user, range="last-30-days")
    looking = [query["sql"] for query in queries if "error_message" in query["sql"]]
    assert len(looking) == 3
    assert errors._EXAMPLES == 3
    assert all("LIMIT 3" in sql for sql in looking)


# --- Slow calls ------------------------------------------------------------------------------------------------------


def test_slowest_calls_are_found_among_many(owner: Person) -> None:
    told = some_exchanges([owner.organization], 300, since=noon(20), until=noon(1), seed=11)
    store(told)
    rolling.roll_up()
    rows = [each.interaction for each in told if each.interaction.status == "succeeded"]
    for measure, column in (("latency", "latency_ms"), ("first_token", "time_to_first_token_ms")):
        times = sorted((getattr(row, column) for row in rows if getattr(row, column) is not None), reverse=True)
        found = outcome_of("slow", owner.user, range="last-30-days", measure=measure)
        assert [line[0] for line in lines_of(found, measure, table=1)] == times[:10]
        assert found.tables[0].total["timed"] == len(times)
        assert found.tables[0].total["slowest"] == pytest.approx(times[0], rel=RELATIVE_ERROR)


def test_slowest_calls_of_an_hour_that_is_not_rolled_up_are_found(owner: Person) -> None:
    store([exchange(owner.organization, noon(1), latency_ms=100.0) for _ in range(20)])
    rolling.roll_up()
    slow = exchange(owner.organization, noon(1) + HOUR, latency_ms=9_000.0)
    store([slow])
    found = outcome_of("slow", owner.user, range="last-7-days")
    assert found.tables[1].lines[0].url.endswith(f"/{slow.interaction.pk}/change/")


# --- Comparison ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_models(owner: Person) -> None:
    """Model `swift` is quicker, cheaper and fails less than `slack`, on each of ten days; `few` was asked thrice."""
    rows = []
    for day in range(1, 11):
        for number in range(10):
            latency = 500.0 + 10 * number
            swift: dict[str, Any] = {
                "model": "swift",
                "latency_ms": latency,
                "cost": Decimal("0.001") + Decimal(day) / 100_000,
            }
            slack: dict[str, Any] = {
                "model": "slack",
                "latency_ms": 3 * latency,
                "cost": Decimal("0.003") + Decimal(day) / 100_000,
            }
            rows.append(exchange(owner.organization, noon(day), **swift))
            rows.append((failing if number < 4 else exchange)(owner.organization, noon(day), **slack))
    rows += [exchange(owner.organization, noon(1), model="few") for _ in range(3)]
    store(rows)
    rolling.roll_up()


@pytest.mark.usefixtures("two_models")
def test_differences_are_told_in_words(owner: Person) -> None:
    found = outcome_of("comparison", owner.user, by="model", first="slack", second="swift")
    success, latency, cost = (remark.text for remark in found.remarks[:3])
    assert success.startswith("Success: swift succeeds more often, and the difference is significant. 60.0 % against")
    assert latency.startswith("Latency: swift is quicker, and the difference is significant. 1.7")
    assert cost.startswith("Cost: swift is cheaper, and the difference is significant. $0.0030")
    (turned, _, _) = (
        remark.text
        for remark in outcome_of("comparison", owner.user, by="model", first="swift", second="slack").remarks[:3]
    )
    assert turned.startswith("Success: swift succeeds more often")


@pytest.mark.usefixtures("two_models")
def test_alike_is_no_significant_difference(owner: Person, stranger: Person) -> None:
    store([exchange(stranger.organization, noon(day), model=model) for day in range(1, 11) for model in "ab" * 5])
    rolling.roll_up()
    found = outcome_of("comparison", stranger.user, by="model", first="a", second="b")
    assert [remark.text.split(".")[0] for remark in found.remarks[:3]] == [
        "Success: no significant difference",
        "Latency: no significant difference",
        "Cost: no significant difference",
    ]


@pytest.mark.usefixtures("two_models")
@pytest.mark.parametrize("other", ["few", "nobody has heard of it"])
def test_too_few_requests_conclude_nothing(owner: Person, other: str) -> None:
    found = outcome_of("comparison", owner.user, by="model", first="swift", second=other)
    assert all("too little to tell; each needs 30" in remark.text for remark in found.remarks[:3])


@pytest.mark.usefixtures("two_models")
def test_without_names_the_report_tells_what_there_is(owner: Person) -> None:
    found = outcome_of("comparison", owner.user)
    assert sorted(lines_of(found, "name", "requests")) == [("few", 3), ("slack", 100), ("swift", 100)]
    assert "Name both" in faults_of("comparison", owner.user, first="swift")["second"][0]
    assert "the same" in faults_of("comparison", owner.user, first="swift", second="swift")["second"][0]


# --- Keys ------------------------------------------------------------------------------------------------------------


def test_unused_keys_and_when_they_were_last_used(owner: Person, stranger: Person) -> None:
    used, idle, never = (APIKeyFactory.create(organization=owner.organization, name=name) for name in "uin")
    store(
        [
            exchange(owner.organization, noon(1), api_key_id=used.pk),
            exchange(owner.organization, noon(100), api_key_id=idle.pk),
            exchange(owner.organization, noon(60), api_key_id=idle.pk),
            exchange(stranger.organization, noon(1), api_key_id=stranger.key.pk),
        ]
    )
    rolling.roll_up()
    found = outcome_of("keys", owner.user, days=30)
    told = {name: (last, unused) for name, last, unused in lines_of(found, "name", "last_used", "unused_days")}
    assert told == {"i": (f"{noon(60):%Y-%m-%d}", 60), "n": ("never", 0), "owner": ("never", 0)}
    assert {name for (name,) in lines_of(outcome_of("keys", owner.user, days=90), "name")} == {"n", "owner"}
    assert never.name in {name for (name,) in lines_of(outcome_of("keys", operator(), days=1), "name")}


def test_revoked_keys_are_listed_only_when_asked_for(owner: Person) -> None:
    APIKeyFactory.create(organization=owner.organization, name="old", revoked_at=timezone.now())
    assert {name for (name,) in lines_of(outcome_of("keys", owner.user), "name")} == {"owner"}
    assert {name for (name,) in lines_of(outcome_of("keys", owner.user, keys="all"), "name")} == {"old", "owner"}


# --- Users -----------------------------------------------------------------------------------------------------------


def test_users_are_ranked_by_what_is_asked(owner: Person) -> None:
    spent = {"ana": ("0.1", 10), "bo": ("0.3", 5), "cy": ("0.2", 20)}
    store(
        [
            exchange(owner.organization, noon(2), user_id=user, cost=Decimal(cost), input_tokens=tokens)
            for user, (cost, tokens) in spent.items()
        ]
    )
    store([failing(owner.organization, noon(1), user_id="ana")])
    by = {
        measure: [user for (user,) in lines_of(outcome_of("users", owner.user, measure=measure), "user")]
        for measure in ("cost", "requests", "input_tokens", "failed")
    }
    assert by["cost"] == ["bo", "cy", "ana"]
    assert by["requests"][0] == "ana"
    assert by["input_tokens"][:2] == ["cy", "ana"] or by["input_tokens"][:2] == ["cy", "bo"]
    assert by["failed"] == ["ana"]


def test_failures_by_user_are_counted_in_the_newest_rows_and_that_is_said(
    owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_users, "ROWS_AT_MOST", 5)
    store([failing(owner.organization, noon(3), user_id="ana") for _ in range(9)])
    store([failing(owner.organization, noon(1), user_id="bo") for _ in range(5)])
    found = outcome_of("users", owner.user, measure="failed")
    assert lines_of(found, "user", "failed") == [("bo", 5)]
    assert "newest 5 requests" in found.remarks[0].text


# --- Forecast --------------------------------------------------------------------------------------------------------


def test_bill_is_foreseen_for_each_organization_and_in_all(owner: Person, stranger: Person) -> None:
    now = dt.datetime(2026, 6, 12, tzinfo=dt.UTC)
    for organization, cost in ((owner.organization, "1"), (stranger.organization, "2")):
        store([exchange(organization, now - number * DAY, cost=Decimal(cost)) for number in range(1, 43)])
    rolling.roll_up()
    found = outcome_of("forecast", operator(), now=now)
    assert lines_of(found, "organization", "spent", "expected", "low", "high", "last_month") == [
        (stranger.organization.name, 22, 60, 60, 60, 62),
        (owner.organization.name, 11, 30, 30, 30, 31),
    ]
    assert (found.tables[0].total["expected"], found.tables[0].total["last_month"]) == (90, 93)
    mine = outcome_of("forecast", owner.user, now=now)
    assert lines_of(mine, "organization", "expected") == [(owner.organization.name, 30)]
    assert "The month will cost $30.00, between $30.00 and $30.00" in mine.remarks[0].text


def test_first_day_foresees_nothing_and_says_so(owner: Person) -> None:
    store([exchange(owner.organization, timezone.now() - dt.timedelta(seconds=1))])
    assert "not one whole day" in outcome_of("forecast", owner.user).remarks[0].text


def test_organizations_beyond_the_largest_are_in_the_total_alone(
    owner: Person, stranger: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast, "LINES", 1)
    store([exchange(owner.organization, noon(1), cost=Decimal(1))])
    store([exchange(stranger.organization, noon(1), cost=Decimal(2))])
    found = outcome_of("forecast", operator())
    assert lines_of(found, "organization") == [(stranger.organization.name,)]
    assert any("the others spent $1.00" in remark.text for remark in found.remarks)
    assert [value for _, value in found.chart.points] == [3.0]


# --- What it takes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["errors", "slow", "usage", "users", "forecast"])
def test_reports_take_no_more_queries_for_a_longer_record(owner: Person, slug: str) -> None:
    ranges = ["last-7-days", "last-30-days", "last-90-days"] if slug != "forecast" else [""] * 3

    def queries(range_: str) -> int:
        with CaptureQueriesContext(connection) as taken:
            said: dict[str, Any] = {"range": range_} if range_ else {}
            outcome_of(slug, owner.user, **said)
        return len(taken)

    counts = []
    for range_, days in zip(ranges, ((1, 6), (6, 29), (29, 60)), strict=True):
        spread = range(days[0], days[1], 2)
        store([failing(owner.organization, noon(day), latency_ms=9_000.0 + day) for day in spread])
        store([exchange(owner.organization, noon(day), latency_ms=9_000.0 + day) for day in spread])
        rolling.roll_up()
        counts.append(queries(range_))
    # Closed periods and minutes are asked by themselves, where there are any.
    assert max(counts) <= min(counts) + 4, counts
    assert max(counts) <= 40


# --- Links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slug", "said"),
    [
        ("usage", {"group_by": "model", "then_by": "status"}),
        ("usage", {"group_by": "error_code", "then_by": "cached"}),
        ("usage", {"group_by": "user"}),
        ("usage", {"group_by": "organization", "interval": "month"}),
        ("slow", {}),
        ("users", {"measure": "requests"}),
    ],
)
def test_links_lead_to_as_many_rows_as_the_line_counts(owner: Person, slug: str, said: dict[str, Any]) -> None:
    told = some_exchanges([owner.organization], 60, since=noon(20), until=noon(1), seed=5)
    for each in told:
        each.interaction.user_id = each.interaction.user_id or "cy"
    store(told)
    rolling.roll_up()
    lines = outcome_of(slug, owner.user, range="last-30-days", **said).tables[0].lines
    assert lines
    for line in lines:
        path, _, query = line.url.partition("?")
        selected = selection.parse(parse_qs(query)).rows(Interaction.objects.filter(organization=owner.organization))
        assert path == "/admin/chat/interaction/"
        timed = selected.filter(latency_ms__isnull=False)
        assert (timed.count() if slug == "slow" else selected.count()) == line.values[
            "timed" if slug == "slow" else "requests"
        ]


def test_record_of_nobody_is_no_error(organization: Organization) -> None:
    person = operator()
    for slug in ("usage", "errors", "slow", "comparison", "keys", "users", "forecast"):
        outcome = outcome_of(slug, person)
        assert all(not table.lines for table in outcome.tables)
        assert all(table.empty for table in outcome.tables)
