"""The admin's first page and its frame: figures, side bar, badge."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.utils.html import escape

from accounts.models import User
from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import Person
from chat.admin import exchange
from chat.tests.factories import InteractionFactory
from chat.tests.test_admin_interactions import browser_of, text_of
from llmchat import admin_site


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


def figures(response: Any) -> dict[str, tuple[str, str]]:
    return {figure["label"]: (figure["value"], figure["remark"]) for figure in response.context["overview"]["figures"]}


def test_day_in_figures(operator: Client) -> None:
    InteractionFactory.create(cost=Decimal("0.5"), latency_ms=1000)
    InteractionFactory.create(cost=Decimal("0.25"), latency_ms=3000)
    InteractionFactory.create(failed=True)
    InteractionFactory.create(unpriced=True, latency_ms=500)
    InteractionFactory.create(age=dt.timedelta(hours=25), cost=Decimal(100))
    assert figures(operator.get("/admin/")) == {
        "Requests": ("4", "accepted"),
        "Failed": ("1", "25.0 % of requests"),
        "Cost": ("$0.750", "and 1 unpriced"),
        "Tokens": ("210", "in and out"),
        "Average latency": ("1.50 s", "of successful answers"),
    }


def test_figures_lead_to_what_they_count(operator: Client) -> None:
    InteractionFactory.create()
    for kind in ({"failed": True}, {"interrupted": True}, {"unpriced": True}):
        InteractionFactory.create(**kind)
    InteractionFactory.create(age=dt.timedelta(days=2))
    counts = {
        figure["label"]: operator.get(figure["url"]).context["cl"].total
        for figure in operator.get("/admin/").context["overview"]["figures"]
    }
    assert counts == {"Requests": "4", "Failed": "2", "Cost": "1", "Tokens": "4", "Average latency": "2"}


def test_cost_of_a_day_without_any_price_is_unknown(operator: Client) -> None:
    InteractionFactory.create(unpriced=True)
    assert figures(operator.get("/admin/"))["Cost"] == ("unknown", "and 1 unpriced")


def test_latest_failures_come_first_and_are_few(operator: Client) -> None:
    rows = [InteractionFactory.create(failed=True, age=dt.timedelta(minutes=age)) for age in range(8)]
    listed = [failure["row"].pk for failure in operator.get("/admin/").context["overview"]["failures"]]
    assert listed == [row.pk for row in rows[:6]]


def test_models_in_use_are_sorted_by_requests(operator: Client) -> None:
    InteractionFactory.create(unpriced=True)
    for _ in range(2):
        InteractionFactory.create(cost=Decimal("0.5"))
    lines = operator.get("/admin/").context["overview"]["models"]
    assert [(line["model"], line["requests"], line["cost"], line["width"]) for line in lines] == [
        ("gemini-2.0-flash", "2", "$1.00", "100.0%"),
        ("ollama/qwen3:4b", "1", "unknown", "50.0%"),
    ]


def test_empty_record_shows_the_first_call(operator: Client) -> None:
    content = operator.get("/admin/").content.decode()
    assert escape(exchange.first_call(origin="http://testserver/")) in content


def test_quiet_day_does_not_look_like_an_empty_record(operator: Client) -> None:
    InteractionFactory.create(age=dt.timedelta(days=3))
    content = text_of(operator.get("/admin/"))
    assert "No requests in the last 24 hours." in content
    assert "Make the first call" not in content


def test_members_see_the_figures_of_their_organizations_only(member: Person, stranger: Person) -> None:
    InteractionFactory.create(organization=member.organization)
    InteractionFactory.create(organization=stranger.organization, failed=True, error_message="Umbrella's trouble")
    response = browser_of(member.user).get("/admin/")
    assert figures(response)["Requests"] == ("1", "accepted")
    assert "Umbrella" not in response.content.decode()


def test_staff_without_an_organization_are_told_what_to_do(db: None) -> None:
    InteractionFactory.create()
    content = text_of(browser_of(UserFactory.create(username="newcomer")).get("/admin/"))
    assert "You belong to no organization yet" in content
    assert "add you as newcomer , then load this page again" in content
    assert "The last 24 hours" not in content


def test_number_of_queries_is_bounded(operator: Client, django_assert_max_num_queries: Any) -> None:
    for _ in range(5):
        InteractionFactory.create(failed=True)
    with django_assert_max_num_queries(4):  # session, person, the day's groups, latest failures
        operator.get("/admin/")


# --- The frame ------------------------------------------------------------------------------------------------------
def side_bar(user: User) -> dict[str, list[str]]:
    request = RequestFactory().get("/admin/")
    request.user = user
    return {
        group.get("title", ""): [item["title"] for item in group["items"]] for group in admin_site.navigation(request)
    }


def test_operator_is_led_everywhere(db: None) -> None:
    assert side_bar(UserFactory.create(is_superuser=True)) == {
        "": ["Overview"],
        "Record": ["Interactions", "Conversations", "Request ids", "Quarantine", "Removals"],
        "Models": ["Models", "Aliases", "Prices", "Health"],
        "Accounts": ["Organizations", "Users", "API keys", "Plans"],
        "Reference": ["API documentation", "Service health"],
    }


def test_member_is_led_to_the_organizations_own_pages(member: Person) -> None:
    shown = side_bar(member.user)
    assert shown["Record"] == ["Interactions", "Conversations", "Request ids", "Removals"]
    assert shown["Accounts"] == ["Organizations", "API keys"]


def test_stranger_to_every_organization_is_led_nowhere(db: None) -> None:
    assert set(side_bar(UserFactory.create())) <= {"", "Models", "Reference"}


def test_every_entry_of_the_side_bar_opens(operator: Client) -> None:
    page = operator.get("/admin/").content.decode()
    links = re.findall(r'<a href="(/admin/[^"]+/)"', page)
    assert len(set(links)) >= 10
    assert {link: operator.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize(
    ("debug", "vendor", "badge"),
    [
        (True, "postgresql", ["Debug", "danger"]),
        (False, "sqlite", ["Embedded SQLite", "info"]),
        (False, "postgresql", None),
    ],
)
def test_badge_names_what_a_production_server_should_not_be(
    settings: Any, monkeypatch: pytest.MonkeyPatch, debug: bool, vendor: str, badge: list[str] | None
) -> None:
    settings.DEBUG = debug
    monkeypatch.setattr(connection, "vendor", vendor)
    assert admin_site.environment(RequestFactory().get("/admin/")) == badge
