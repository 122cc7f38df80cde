"""The frame of the admin: side bar, badge."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client, RequestFactory

from accounts.models import User
from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import Person
from chat.tests.test_admin_interactions import browser_of
from llmchat import admin_site


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


def side_bar(user: User) -> dict[str, list[str]]:
    request = RequestFactory().get("/admin/")
    request.user = user
    return {
        group.get("title", ""): [item["title"] for item in group["items"]] for group in admin_site.navigation(request)
    }


def test_operator_is_led_everywhere(db: None) -> None:
    assert side_bar(UserFactory.create(is_superuser=True)) == {
        "": ["Dashboard"],
        "Record": [
            *("Interactions", "Conversations", "Saved filters", "Exports"),
            *("Request ids", "Quarantine", "Removals"),
        ],
        "Reports": [
            *("Usage and cost", "Errors", "Slow calls", "A/B comparison", "Unused keys", "Top users", "Forecast"),
            *("Schedules", "Deliveries"),
        ],
        "Models": ["Models", "Aliases", "Prices", "Unpriced use", "Health"],
        "Accounts": ["Organizations", "Users", "API keys", "Plans", "Audit trail"],
        "Reference": ["API documentation", "Service health"],
    }


def test_member_is_led_to_the_organizations_own_pages(member: Person) -> None:
    shown = side_bar(member.user)
    assert shown["Record"] == [
        *("Interactions", "Conversations", "Saved filters", "Exports"),
        *("Request ids", "Removals"),
    ]
    assert shown["Accounts"] == ["Organizations", "API keys"]


def test_stranger_to_every_organization_is_led_nowhere(db: None) -> None:
    assert set(side_bar(UserFactory.create())) <= {"", "Models", "Reference"}


def test_every_entry_of_the_side_bar_opens(operator: Client) -> None:
    page = operator.get("/admin/").content.decode()
    links = re.findall(r'<a href="(/admin/[^"]+/)"', page)
    assert len(set(links)) >= 10
    assert {link: operator.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize("address", [f"/admin/{m._meta.app_label}/{m._meta.model_name}/" for m in admin.site._registry])
def test_list_without_a_filter_offers_no_way_out_of_one(operator: Client, address: str) -> None:
    content = operator.get(address).content.decode()
    assert "Show all" not in content
    assert " results (" not in content


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
