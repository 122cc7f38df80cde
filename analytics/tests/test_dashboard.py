"""The admin's first page: its figures are those of the rows, each person sees the own organizations' alone, and each
figure leads to what it counts."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.html import escape

from accounts.models import Organization
from accounts.tests.factories import APIKeyFactory, MembershipFactory, OrganizationFactory, UserFactory
from accounts.tests.fixtures import Person
from analytics import dashboard, reading, rolling, sources, spans
from analytics.admin import page, tiles
from analytics.dashboard import Part, Scope
from analytics.histogram import RELATIVE_ERROR, bucket_of
from analytics.models import Grain, RollUpState
from analytics.tests.record import exchange, some_exchanges, store
from analytics.totals import Totals
from chat.admin import exchange as admin_exchange
from chat.models import Interaction, Status
from chat.tests.factories import InteractionFactory
from chat.tests.test_admin_interactions import browser_of, text_of

pytestmark = pytest.mark.django_db

PAGE = "/admin/"


@pytest.fixture
def operator() -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


def ago(**span: float) -> dt.datetime:
    moment = timezone.now() - dt.timedelta(**span)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def shown(client: Client, **query: Any) -> Any:
    response = client.get(PAGE, query)
    assert response.status_code == 200
    return response.context


def tile(context: Any, key: str) -> Any:
    return next(tile for tile in context["tiles"] if tile.key == key)


def values(context: Any) -> dict[str, str]:
    return {tile.key: tile.value for tile in context["tiles"]}


def lines(context: Any, key: str) -> dict[str, str]:
    (ranking,) = [ranking for ranking in context["rankings"] if ranking["key"] == key]
    return {line["name"]: line["requests"] for line in ranking["lines"]}


def lines_of(drawn: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The lines of a chart's table: where each leads to, and its values."""
    found = re.findall(r'<tr><th scope="row"><a id="[^"]+" href="([^"]+)">[^<]+</a></th>(.*?)</tr>', drawn["table"])
    return [(unescape(url), re.findall(r'<td class="rec-right">([^<]*)</td>', cells)) for url, cells in found]


def counted(client: Client, url: str) -> int:
    """The rows that a link leads to."""
    response = client.get(url)
    assert response.status_code == 200, url
    return len(response.context["cl"].result_list)


def rolled_up_before(age: dt.timedelta) -> dt.datetime:
    """As if the last round had begun so long ago."""
    moment = timezone.now() - age
    assert RollUpState.objects.update(whole_until=moment) == 1
    return moment


# --- Figures ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rolled", [True, False])
@pytest.mark.parametrize("period", ["day", "quarter"])
def test_figures_are_those_of_the_rows(organization: Organization, rolled: bool, period: str) -> None:
    other = OrganizationFactory.create()
    now = timezone.now()
    # What is not rolled up is read from rows, but only the newest of it.
    oldest = now - (dt.timedelta(days=130) if rolled else dt.timedelta(hours=20))
    stored = some_exchanges([organization, other], 120, since=oldest, until=now, seed=len(period))
    store(stored)
    if rolled:
        rolling.roll_up()
        late = some_exchanges([organization], 10, since=now - dt.timedelta(hours=20), until=now, seed=7)
        store(late)
        rolled_up_before(2 * reading.BEHIND_AT_MOST)
        stored += late
    span = spans.latest(period, now=now)
    found = dashboard.look_at(Scope(organizations=None), span)
    rows = Interaction.objects.filter(pk__in=[each.interaction.pk for each in stored])
    for part, (since, until) in ((found.now, (span.since, span.until)), (found.before, span.before)):
        mine = [row for row in rows if since <= row.created_at < until]
        assert part.requests == len(mine)
        assert part.failures == sum(row.status in dashboard.FAILURES for row in mine)
        assert part.hits == sum(row.cached for row in mine)
        assert part.tokens == sum((row.input_tokens or 0) + (row.output_tokens or 0) for row in mine)
        assert part.totals.cost == sum(int((row.cost or Decimal(0)).scaleb(12)) for row in mine)
        assert part.totals.fallbacks == sum(row.fallback for row in mine)
        assert part.totals.retries == sum(row.retries for row in mine)
        times = sorted(row.latency_ms for row in mine if row.latency_ms is not None)
        expected = [times[int(share * (len(times) - 1))] for share in dashboard.PERCENTILES] if times else [None] * 3
        assert part.latencies == [time and pytest.approx(time, rel=RELATIVE_ERROR + 0.001) for time in expected]
    assert [part.requests for _, part in found.series] == [
        sum(since <= row.created_at < until for row in rows) for since, until in map(span.within, span.starts())
    ]
    for name in ("model", "provider"):
        ranking = found.rankings[name]
        assert dict(ranking.groups)
        for value, part in ranking.groups:
            assert part.requests == sum(
                getattr(row, name) == value and span.since <= row.created_at < span.until for row in rows
            )
    assert sum(part.requests for _, part in found.rankings["organization"].groups) == found.now.requests
    assert sum(part.requests for _, part in found.rankings["user"].groups) == found.now.requests
    assert found.pending_since is None


def test_rows_are_not_read_while_roll_ups_are_seconds_behind(organization: Organization) -> None:
    """Else each look would add up the whole minute that is running, which under load is the most of the work."""
    scope = Scope(organizations=None)

    def look() -> tuple[int, dt.datetime, bool]:
        with CaptureQueriesContext(connection) as asked:
            found = dashboard.look_at(scope, spans.latest("day", now=timezone.now()))
        return found.now.requests, found.as_of, any("chat_interaction" in query["sql"] for query in asked)

    store([exchange(organization, ago(seconds=1)) for _ in range(3)])
    rolling.roll_up()
    state = RollUpState.objects.get()
    assert state.whole_until is not None
    store([exchange(organization, ago(seconds=1)) for _ in range(2)])
    assert look() == (3, state.whole_until, False)
    rolled_up_before(2 * reading.BEHIND_AT_MOST)
    requests, as_of, reads_rows = look()
    assert (requests, reads_rows) == (5, True)
    assert as_of > state.whole_until
    # What somebody has changed of earlier is seen at once.
    rolling.roll_up()
    store([exchange(organization, ago(minutes=5))])
    assert look()[::2] == (6, True)
    # A clock that is ahead proves nothing.
    rolling.roll_up()
    store([exchange(organization, ago(seconds=1))])
    rolled_up_before(-2 * reading.BEHIND_AT_MOST)
    assert look()[0] == 7


def test_groups_beyond_the_largest_are_told_together(organization: Organization) -> None:
    store([exchange(organization, ago(minutes=1), model=f"model-{number}") for number in range(dashboard.TOP + 3)])
    store([exchange(organization, ago(minutes=1), model="model-0", status="failed", error_code="provider_timeout")])
    ranking = dashboard.look_at(Scope(organizations=None), spans.latest("hour", now=timezone.now())).rankings["model"]
    assert ranking.groups[0][0] == "model-0"
    assert (ranking.groups[0][1].requests, ranking.groups[0][1].failures) == (2, 1)
    assert len(ranking.groups) == dashboard.TOP
    assert ranking.rest.requests == 3


def test_day_in_words(operator: Client) -> None:
    InteractionFactory.create(cost=Decimal("0.5"), latency_ms=1000)
    InteractionFactory.create(cost=Decimal("0.25"), latency_ms=3000)
    InteractionFactory.create(failed=True, latency_ms=1000)
    InteractionFactory.create(unpriced=True, latency_ms=1000, retries=2, fallback=True)
    InteractionFactory.create(age=dt.timedelta(hours=50), cost=Decimal(100))
    context = shown(operator)
    assert values(context) | {"p50": "", "p95": "", "p99": "", "first_token": ""} == {
        "requests": "4",
        "errors": "25.0 %",
        "cost": "$0.750",
        "unpriced": "1",
        "tokens": "210",
        "p50": "",
        "p95": "",
        "p99": "",
        "first_token": "",
        "cache": "0.0 %",
        "fallbacks": "1",
        "retries": "2",
    }
    assert tile(context, "errors").remark == "1 failed or interrupted"


def test_cost_without_any_price_is_unknown(operator: Client) -> None:
    InteractionFactory.create(unpriced=True)
    assert (values(shown(operator))["cost"], values(shown(operator))["unpriced"]) == ("unknown", "1")


# --- Against the period before ---------------------------------------------------------------------------------------
def part(requests: int, *, failures: int = 0, hits: int = 0, milliseconds: float | None = None, **counts: int) -> Part:
    found = Part(totals=Totals(requests=requests, priced=requests), hits=hits)
    for name, count in counts.items():
        setattr(found.totals, name, count)
    found.by_status = {Status.SUCCEEDED: requests - failures, Status.FAILED: failures}
    if milliseconds is not None:
        found.totals.latencies = {bucket_of(milliseconds): requests}
    return found


@pytest.mark.parametrize(
    ("key", "now", "before", "expected"),
    [
        ("requests", part(150), part(100), ("▲", "50 %", "")),
        ("requests", part(99), part(100), ("▼", "1.0 %", "")),
        ("requests", part(100), part(100), ("=", "the same", "")),
        ("requests", part(5), part(0), ("", "nothing before", "")),
        ("requests", part(0), part(0), ("", "nothing before", "")),
        ("requests", part(0), part(5), ("▼", "100 %", "")),
        ("requests", part(100_000), part(1), ("▲", "100,000 times", "")),
        ("errors", part(100, failures=3), part(100, failures=1), ("▲", "2.0 points", "worse")),
        ("errors", part(100), part(100, failures=1), ("▼", "1.0 points", "better")),
        ("errors", part(0), part(100, failures=1), ("", "before: 1.0 %", "")),
        ("errors", part(10_000, failures=1), part(10_000), ("▲", "under 0.1 points", "")),
        ("cache", part(100, hits=30), part(100, hits=10), ("▲", "20.0 points", "better")),
        ("cost", part(1, cost=5), part(1), ("▲", "from $0", "")),
        ("p95", part(9, milliseconds=2000), part(9, milliseconds=1000), ("▲", "95 %", "worse")),
        ("p95", part(9, milliseconds=1010), part(9, milliseconds=1000), ("=", "about the same", "")),
        ("p95", part(9), part(9, milliseconds=1000), ("", "before: 1.01 s", "")),
        ("p95", part(9, milliseconds=1000), part(9), ("", "nothing before", "")),
        ("fallbacks", part(200, fallbacks=2), part(100, fallbacks=1), ("=", "the same", "")),
        ("retries", part(100, retries=30), part(100, retries=60), ("▼", "50 %", "better")),
    ],
)
def test_change(key: str, now: Part, before: Part, expected: tuple[str, str, str]) -> None:
    change = tiles._FIGURES[key].change(now, before)
    assert (change.arrow, change.amount, change.verdict) == expected
    assert change.verdict in change.spoken
    assert change.spoken.endswith(".")


def test_change_is_told_in_words_too(operator: Client) -> None:
    for age in (0, 0, 26):
        InteractionFactory.create(age=dt.timedelta(hours=age))
    InteractionFactory.create(age=dt.timedelta(hours=26), failed=True)
    content = text_of(operator.get(PAGE))
    assert "▼ 50.0 points, better" in content
    assert "Down 50.0 points, which is better: 50.0 % in the period before." in content


# --- Where figures lead ----------------------------------------------------------------------------------------------
def test_figures_lead_to_what_they_count(operator: Client) -> None:
    InteractionFactory.create()
    for kind in ({"failed": True}, {"interrupted": True}, {"unpriced": True}, {"rescued": True}, {"cached": True}):
        InteractionFactory.create(**kind)
    InteractionFactory.create(age=dt.timedelta(days=2))
    context = shown(operator)
    assert {tile.key: counted(operator, tile.url) for tile in context["tiles"]} == {
        **dict.fromkeys(("requests", "cost", "tokens", "p50", "p95", "p99", "first_token"), 6),
        "errors": 2,
        "unpriced": 1,
        "cache": 1,
        "fallbacks": 1,
        "retries": 1,
    }
    for drawn in context["charts"]:
        assert drawn["data"]["urls"] == [url for url, _ in lines_of(drawn)]
    last = lines_of(context["charts"][0])[-2:]  # all of the six are there, even when an hour has just begun
    assert sum(counted(operator, url) for url, _ in last) == 6
    for ranking in context["rankings"]:
        for line in ranking["lines"]:
            assert str(counted(operator, line["url"])) == line["requests"]


def test_links_keep_the_filters(operator: Client) -> None:
    mine = InteractionFactory.create(provider="gemini")
    InteractionFactory.create(provider="gemini", failed=True)
    InteractionFactory.create(provider="openai")
    context = shown(operator, provider="gemini", status="succeeded", organization=str(mine.organization_id))
    assert [counted(operator, tile.url) for tile in context["tiles"] if tile.key in {"requests", "tokens"}] == [1, 1]
    assert {entry["name"] for entry in context["filters"]} == {"provider", "status", "organization"}
    removed = {entry["name"]: parse_qs(urlsplit(entry["url"]).query) for entry in context["filters"]}
    assert removed["provider"] == {
        "period": ["day"],
        "status": ["succeeded"],
        "organization": [str(mine.organization_id)],
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 4),
        ({"provider": "openai"}, 1),
        ({"model": "gpt-4o"}, 1),
        ({"model": "-"}, 1),
        ({"plan": "premium"}, 1),
        ({"status": "failed"}, 1),
        ({"status": ["failed", "succeeded"]}, 4),
        ({"error": "provider_timeout"}, 1),
        ({"cached": "1"}, 1),
        ({"cached": "0"}, 3),
        ({"provider": "openai", "status": "failed"}, 0),
    ],
)
@pytest.mark.parametrize("rolled", [True, False])
def test_filters(
    operator: Client, organization: Organization, rolled: bool, query: dict[str, Any], expected: int
) -> None:
    store(
        [
            exchange(organization, ago(hours=2), provider="openai", model="gpt-4o"),
            exchange(organization, ago(hours=2), plan="premium"),
            exchange(organization, ago(hours=2), status="failed", error_code="provider_timeout", model=""),
            exchange(organization, ago(hours=2), cached=True),
        ]
    )
    if rolled:
        rolling.roll_up()
    context = shown(operator, **query)
    assert values(context)["requests"] == str(expected)
    assert counted(operator, tile(context, "requests").url) == expected
    assert sum(values[0] != "0" for _, values in lines_of(context["charts"][0])) <= 1


def test_filter_by_key(operator: Client, organization: Organization) -> None:
    key = APIKeyFactory.create(organization=organization, name="Website")
    store([exchange(organization, ago(hours=1), api_key_id=key.id), exchange(organization, ago(hours=1))])
    context = shown(operator, organization=str(organization.pk), key=str(key.pk))
    assert values(context)["requests"] == "1"
    assert {entry["name"]: entry["value"] for entry in context["filters"]} == {
        "organization": "Acme",
        "key": str(key),
    }


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"period": "decade"}, "There is no period “decade”. Choose one of hour, day, week"),
        ({"period": "custom"}, "needs its first day"),
        ({"period": "custom", "from": "2026-05-01", "to": "2026-02-30"}, "“2026-02-30” is no day"),
        ({"period": "custom", "from": "2026-05-02", "to": "2026-05-01"}, "Exchange the two days"),
        ({"status": "eaten"}, "It is one of succeeded, failed"),
        ({"key": "x"}, "is no id"),
        ({"model": "gpt*"}, "whole names"),
        ({"model": ["a", "b"]}, "Give it once"),
        ({"provider": "a" * 1001}, "too long"),
        ({"provider": "\0"}, "NUL"),
        ({"organization": "Nowhere Ltd"}, "There is no organization “Nowhere Ltd”"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(operator: Client, query: dict[str, Any], words: str) -> None:
    InteractionFactory.create()
    context = shown(operator, **query)
    assert words in context["refusal"]
    assert "tiles" not in context


def test_days_of_ones_own(operator: Client, organization: Organization) -> None:
    store([exchange(organization, dt.datetime(2026, 3, day, 12, tzinfo=dt.UTC)) for day in (1, 2, 3, 4)])
    context = shown(operator, period="custom", **{"from": "2026-03-02", "to": "2026-03-03"})
    assert values(context)["requests"] == "2"
    assert [values[0] for _, values in lines_of(context["charts"][0])] == ["1", "1"]


# --- Who sees what ---------------------------------------------------------------------------------------------------
def test_each_sees_the_figures_of_the_own_organizations_only(owner: Person, member: Person, stranger: Person) -> None:
    store([exchange(owner.organization, ago(minutes=5), user_id="ana"), exchange(owner.organization, ago(minutes=4))])
    store(
        [
            exchange(
                stranger.organization,
                ago(minutes=3),
                user_id="umbrella-user",
                model="umbrella-model",
                provider="openai",
                status="failed",
                error_code="umbrella_error",
            )
        ]
    )
    rolling.roll_up()
    for person, expected in ((owner, "2"), (member, "2"), (stranger, "1")):
        response = browser_of(person.user).get(PAGE)
        assert values(response.context)["requests"] == expected
        assert ("umbrella" in response.content.decode().lower()) == (person is stranger)
    assert values(shown(browser_of(UserFactory.create(is_superuser=True))))["requests"] == "3"


def test_member_of_several_organizations_sees_their_sum(owner: Person, stranger: Person) -> None:
    third = OrganizationFactory.create(name="Initech")
    both = MembershipFactory.create(organization=owner.organization).user
    MembershipFactory.create(user=both, organization=third)
    for count, organization in enumerate((owner.organization, third, stranger.organization), start=1):
        store([exchange(organization, ago(hours=30, minutes=minute)) for minute in range(count)])
    rolling.roll_up()
    store([exchange(third, ago(minutes=1)), exchange(stranger.organization, ago(minutes=1))])
    rolled_up_before(2 * reading.BEHIND_AT_MOST)
    client = browser_of(both)
    context = shown(client, period="week")
    assert values(context)["requests"] == "4"
    assert lines(context, "organization") == {"Initech": "3", "Acme": "1"}
    assert lines(context, "model") == {"gemini-2.0-flash": "4"}
    (users,) = [ranking["lines"] for ranking in context["rankings"] if ranking["key"] == "user"]
    assert [(line["name"], line["remark"], line["requests"]) for line in users] == [
        ("ana", "Initech", "3"),
        ("ana", "Acme", "1"),
    ]
    assert values(shown(client, period="week", organization=str(third.pk)))["requests"] == "3"


@pytest.mark.parametrize("said", ["name", "id"])
def test_organization_of_others_is_refused_like_one_that_does_not_exist(
    member: Person, stranger: Person, said: str
) -> None:
    InteractionFactory.create(organization=stranger.organization)
    asked = stranger.organization.name if said == "name" else str(stranger.organization.pk)
    context = shown(browser_of(member.user), organization=asked)
    assert context["refusal"] == f"There is no organization “{asked}”. Give its name or its id."
    assert "tiles" not in context


def test_key_of_others_counts_nothing(member: Person, stranger: Person) -> None:
    store([exchange(stranger.organization, ago(minutes=1), api_key_id=stranger.key.id)])
    store([exchange(member.organization, ago(minutes=1))])
    assert values(shown(browser_of(member.user), key=str(stranger.key.id)))["requests"] == "0"


def test_staff_without_an_organization_are_told_what_to_do() -> None:
    InteractionFactory.create()
    response = browser_of(UserFactory.create(username="newcomer")).get(PAGE)
    content = text_of(response)
    assert "You belong to no organization yet" in content
    assert "add you as newcomer , then load this page again" in content
    assert "tiles" not in response.context


@pytest.mark.parametrize("path", ["/admin/", "/admin/figures/"])
def test_who_is_not_logged_in_is_sent_to_log_in(client: Client, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response["Location"]) == (302, f"/admin/login/?next={path}")


def test_fragment_shows_the_same_to_the_same_people(member: Person, stranger: Person) -> None:
    InteractionFactory.create(organization=member.organization)
    InteractionFactory.create(organization=stranger.organization, failed=True, error_message="Umbrella's trouble")
    response = browser_of(member.user).get("/admin/figures/", {"period": "week"})
    assert (response.status_code, "no-store" in response["Cache-Control"]) == (200, True)
    assert 'id="dash-tile-requests"' in response.content.decode()
    assert "<html" not in response.content.decode()
    assert "Umbrella" not in response.content.decode()


# --- Nothing there, or nothing to be had -----------------------------------------------------------------------------
def test_empty_record_shows_the_first_call(operator: Client) -> None:
    content = operator.get(PAGE).content.decode()
    assert escape(admin_exchange.first_call(origin="http://testserver/")) in content


def test_quiet_range_does_not_look_like_an_empty_record(operator: Client) -> None:
    InteractionFactory.create(age=dt.timedelta(days=3))
    content = text_of(operator.get(PAGE))
    assert "No requests in this range." in content
    assert "Make the first call" not in content
    assert "with these filters" in text_of(operator.get(PAGE, {"period": "week", "provider": "openai"}))


def test_latest_failures_come_first_and_are_few(operator: Client) -> None:
    rows = [InteractionFactory.create(failed=True, age=dt.timedelta(minutes=age)) for age in range(8)]
    InteractionFactory.create()
    listed = [failure["row"].pk for failure in shown(operator)["failures"]]
    assert listed == [row.pk for row in rows[:6]]
    assert shown(operator, status="succeeded")["failures"] == []


@pytest.mark.parametrize(("path", "status"), [("/admin/", 200), ("/admin/figures/", 503)])
def test_database_that_goes_away_is_told_in_words(
    operator: Client, monkeypatch: pytest.MonkeyPatch, path: str, status: int
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OperationalError("connection refused")

    monkeypatch.setattr(reading, "answer", refuse)
    response = operator.get(path)
    assert response.status_code == status
    assert "The database cannot be reached, so there are no figures to show." in response.content.decode()
    assert "connection refused" not in response.content.decode()


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (OperationalError("connection refused"), 503, "The database cannot be reached"),
        (ValueError("broken"), 500, "Something went wrong on our side"),
    ],
)
def test_page_that_fails_altogether_still_has_words(
    operator: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, words: str
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(page, "_shown", fail)
    operator.raise_request_exception = False
    response = operator.get(PAGE)
    assert (response.status_code, words in response.content.decode()) == (status, True)
    assert str(error) not in response.content.decode()


def test_page_says_how_fresh_it_is(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    InteractionFactory.create()
    assert "every request counted" in text_of(operator.get(PAGE))
    monkeypatch.setattr(sources, "UNROLLED_AT_MOST", dt.timedelta())
    assert "Not complete:" in text_of(operator.get(PAGE))


def test_names_that_callers_make_up_are_shown_as_text(operator: Client, organization: Organization) -> None:
    markup = "</script><script>alert(1)</script>"
    store([exchange(organization, ago(minutes=1), model=markup, user_id=markup, provider="gemini")])
    content = operator.get(PAGE).content.decode()
    assert "<script>alert" not in content
    assert escape(markup) in content


@pytest.mark.parametrize("period", ["day", "month"])
def test_number_of_queries_does_not_grow(operator: Client, organization: Organization, period: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            shown(operator, period=period)
        return len(captured)

    now = timezone.now()
    store(some_exchanges([organization], 20, since=now - dt.timedelta(days=40), until=now, seed=1))
    # Closed periods and minutes are asked by themselves, where there are any.
    store([exchange(organization, now - dt.timedelta(hours=hours)) for hours in (0.1, 9, 30)])
    rolling.roll_up()
    few = queries()
    others = OrganizationFactory.create_batch(5)
    store(some_exchanges(others, 150, since=now - dt.timedelta(days=40), until=now, seed=2))
    rolling.roll_up()
    # Users are asked for grain by grain, of which there may be more now, and added up where first places do not tell.
    assert queries() <= few + 1 + len(Grain)
