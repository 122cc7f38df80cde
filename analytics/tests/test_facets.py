"""The numbers beside the list of interactions: right, of what one may see, and at a cost that the record's size does
not change."""

from __future__ import annotations

import datetime as dt
import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Membership
from accounts.tests.factories import MembershipFactory, UserFactory
from accounts.tests.fixtures import Person
from analytics import facets, rolling
from chat import walking
from chat.selection import Selection
from chat.tests.factories import InteractionFactory
from chat.tests.test_admin_interactions import LIST, browser_of

FACETS = "/admin/facets/"


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


@pytest.fixture
def record(owner: Person, stranger: Person) -> None:
    """Three of Acme's, one of Umbrella's, one before all of them."""
    mine = {"organization": owner.organization}
    InteractionFactory.create(**mine, model="gpt-4o", provider="openai", metadata={"screen": "help"})
    InteractionFactory.create(**mine, model="gpt-4o", provider="openai", user_id="ben")
    InteractionFactory.create(**mine, failed=True, model="", provider="gemini")
    InteractionFactory.create(organization=stranger.organization, model="claude", provider="anthropic")
    InteractionFactory.create(**mine, model="old", provider="openai", age=dt.timedelta(days=60))


def words_of(response: Any) -> str:
    """The fragment's text, without its tags."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", response.content.decode())).split()).replace(" .", ".")


def numbers(client: Client, query: str = "") -> dict[str, dict[str, str]]:
    """By facet, as the page tells them."""
    response = client.get(f"{FACETS}?{query}")
    assert response.status_code == 200
    return {
        facet["title"]: {value["label"]: value["number"] for value in facet["values"]}
        for facet in response.context["facets"]
    }


@pytest.mark.parametrize("rolled_up", [False, True])
def test_numbers_of_each_value_are_told_of_the_last_30_days(
    operator: Client, owner: Person, stranger: Person, record: None, rolled_up: bool
) -> None:
    if rolled_up:
        rolling.roll_up()
    assert numbers(operator) == {
        "Status": {"Succeeded": "3", "Failed": "1"},
        "Provider": {"openai": "2", "anthropic": "1", "gemini": "1"},
        "Model": {"gpt-4o": "2", "claude": "1", "none": "1"},
        "Error": {"provider_unavailable": "1"},
        "Organization": {owner.organization.name: "3", stranger.organization.name: "1"},
    }
    assert "the last 30 days, as no time is chosen" in words_of(operator.get(FACETS))


def test_each_number_leads_to_as_many_rows(operator: Client, record: None) -> None:
    for query in ("", "status=failed", "model=gpt-*", "provider=openai&period=week", "q=cancel"):
        response = operator.get(f"{FACETS}?{query}")
        for facet in response.context["facets"]:
            for value in facet["values"]:
                if not value["is_chosen"]:
                    listed = operator.get(value["url"]).context["cl"].result_list
                    assert str(len(listed)) == value["number"], (query, facet["title"], value)


def test_facet_counts_what_fits_the_other_filters(operator: Client, owner: Person, record: None) -> None:
    told = numbers(operator, "model=gpt-*")
    assert told["Status"] == {"Succeeded": "2"}
    assert told["Model"] == {"gpt-4o": "2", "claude": "1", "none": "1"}
    # Each cell of every organization would have to be read.
    assert "Organization" not in told
    assert "Organizations are counted when" in words_of(operator.get(f"{FACETS}?model=gpt-*"))
    told = numbers(operator, f"organization={owner.organization.pk}&status=failed")
    assert told["Status"] == {"Succeeded": "2", "Failed": "1"}
    assert told["Model"] == {"none": "1"}
    assert told["Organization"] == {owner.organization.name: "1"}


def test_chosen_value_is_marked_and_taken_off(operator: Client, record: None) -> None:
    [status, *_] = operator.get(f"{FACETS}?status=failed&period=week").context["facets"]
    chosen = next(value for value in status["values"] if value["is_chosen"])
    assert (chosen["label"], chosen["url"]) == ("Failed", f"{LIST}?period=week")


@pytest.mark.parametrize(
    ("query", "expected", "words"),
    [
        ("q=cancel", {"openai": "3", "gemini": "1", "anthropic": "1"}, "search"),
        ("metadata=screen", {"openai": "1"}, "metadata"),
        ("user=ben", {"openai": "1"}, "user"),
    ],
)
def test_what_roll_ups_do_not_know_is_counted_among_the_newest(
    operator: Client, record: None, query: str, expected: dict[str, str], words: str
) -> None:
    assert numbers(operator, query)["Provider"] == expected
    content = words_of(operator.get(f"{FACETS}?{query}"))
    assert "Counted among all" in content
    assert f"Whole numbers are known without {words}." in content


def test_no_more_than_so_many_rows_are_counted(operator: Client, record: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facets, "NEWEST", 2)
    response = operator.get(f"{FACETS}?q=cancel")
    assert "Counted among the newest 2 that fit." in words_of(response)
    assert sum(response.context["counts"].by["status"].values()) == 2


def test_number_of_queries_does_not_grow_with_what_is_rolled_up(operator: Client, owner: Person) -> None:
    def queries() -> int:
        rolling.roll_up()
        with CaptureQueriesContext(connection) as captured:
            operator.get(FACETS)
        return len(captured)

    InteractionFactory.create(organization=owner.organization)
    few = queries()
    for hours in range(1, 30):
        InteractionFactory.create(organization=owner.organization, age=dt.timedelta(hours=hours))
    assert queries() <= few + 2


def test_long_ranges_are_rounded_to_what_is_rolled_up(db: None) -> None:
    now = dt.datetime(2026, 6, 15, 10, 20, 30, tzinfo=dt.UTC)
    at = dt.datetime(2026, 6, 15, 8, 40, tzinfo=dt.UTC)

    def counted(**chosen: Any) -> tuple[dt.datetime | None, dt.datetime | None]:
        counts = facets.count(Selection(**chosen), organizations=frozenset(), now=now)
        return counts.since, counts.until

    assert counted(since=at) == (at, now)
    assert counted(period="day") == (dt.datetime(2026, 6, 14, 10, tzinfo=dt.UTC), now)
    assert counted(since=at - dt.timedelta(days=90), until=at - dt.timedelta(days=80)) == (
        dt.datetime(2026, 3, 17, tzinfo=dt.UTC),
        dt.datetime(2026, 3, 28, tzinfo=dt.UTC),
    )
    future = now + dt.timedelta(days=1)
    assert counted(since=future) == (future, future)


# --- Who sees what ---------------------------------------------------------------------------------------------------
def test_member_counts_the_own_organizations_requests_alone(
    owner: Person, member: Person, stranger: Person, record: None
) -> None:
    told = numbers(browser_of(member.user))
    assert told["Provider"] == {"openai": "2", "gemini": "1"}
    assert "Organization" not in told
    assert numbers(browser_of(member.user), "q=cancel")["Model"] == {"gpt-4o": "2", "old": "1", "none": "1"}
    MembershipFactory.create(user=member.user, organization=stranger.organization, role=Membership.Role.VIEWER)
    assert set(numbers(browser_of(member.user))["Organization"]) == {
        owner.organization.name,
        stranger.organization.name,
    }


@pytest.mark.parametrize("more", ["", "&q=cancel", "&status=failed"])
def test_stranger_counts_nothing_of_others(owner: Person, stranger: Person, record: None, more: str) -> None:
    asked = f"organization={owner.organization.pk}{more}"
    assert numbers(browser_of(stranger.user), asked) == {}
    assert owner.organization.name not in browser_of(stranger.user).get(f"{FACETS}?{asked}").content.decode()


def test_staff_without_an_organization_count_nothing(record: None) -> None:
    client = browser_of(UserFactory.create(is_staff=True))
    assert (numbers(client), numbers(client, "q=cancel")) == ({}, {})


def test_who_is_no_staff_is_led_to_the_log_in(client: Client, db: None) -> None:
    assert client.get(FACETS).headers["Location"].startswith("/admin/login/")


def test_what_makes_no_sense_is_told(operator: Client) -> None:
    response = operator.get(f"{FACETS}?status=odd")
    assert (response.status_code, "status cannot be “odd”" in words_of(response)) == (400, True)


def test_what_takes_too_long_is_told(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(*args: Any, **kwargs: Any) -> Any:
        raise walking.TooSlow

    monkeypatch.setattr(walking, "page", too_slow)
    assert "Choose less time" in words_of(operator.get(f"{FACETS}?q=cancel"))


def test_list_asks_for_the_numbers_of_what_it_shows(operator: Client, record: None) -> None:
    content = operator.get(f"{LIST}?status=failed&model=gpt-*").content.decode()
    assert 'data-fragment="/admin/facets/?status=failed&amp;model=gpt-%2A"' in content
