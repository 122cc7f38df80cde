"""The reports' pages: who sees what, sorting, files, explanations, and that nothing written by callers runs as markup
or as a formula."""

from __future__ import annotations

import csv
import datetime as dt
import io

import pytest
from django.test import Client
from django.utils import timezone

from accounts.tests.factories import APIKeyFactory, MembershipFactory, UserFactory
from accounts.tests.fixtures import Person
from analytics.reports.registry import REPORTS
from analytics.reports.showing import LINES_AT_MOST
from analytics.tests.record import exchange, store
from analytics.tests.reporting import operator
from chat.tests.test_admin_interactions import browser_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def filled(owner: Person, stranger: Person) -> None:
    now = timezone.now()
    store([exchange(owner.organization, now, user_id="mine", api_key_id=owner.key.pk) for _ in range(2)])
    store([exchange(stranger.organization, now, user_id="theirs", api_key_id=stranger.key.pk, status="failed")])


def page(client: Client, slug: str, **said: str) -> str:
    response = client.get(f"/admin/reports/{slug}/", said)
    assert response.status_code == 200, response.content
    return response.content.decode()


def file_of(client: Client, slug: str, **said: str) -> list[dict[str, str]]:
    response = client.get(f"/admin/reports/{slug}/", {**said, "format": "csv"})
    assert response["Content-Type"] == "text/csv; charset=utf-8", response.content
    return list(csv.DictReader(io.StringIO(response.content.decode())))


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("slug", REPORTS)
def test_everybody_sees_their_own_organization_alone(
    slug: str, owner: Person, member: Person, stranger: Person
) -> None:
    theirs, ours = stranger.organization.name, owner.organization.name
    for person in (owner, member):
        shown = page(browser_of(person.user), slug, range="today")
        assert theirs not in shown
        assert ours in shown
        # The choice of another organization is answered like one that does not exist.
        refused = page(browser_of(person.user), slug, range="today", organization=str(stranger.organization.pk))
        assert "There is no such organization among those you may see." in refused
        assert theirs not in refused
        assert "Download CSV" not in refused
        forced = browser_of(person.user).get(
            f"/admin/reports/{slug}/", {"organization": str(stranger.organization.pk), "format": "csv"}
        )
        assert forced["Content-Type"].startswith("text/html")
    everything = page(browser_of(operator()), slug, range="today")
    assert theirs in everything
    assert ours in everything


@pytest.mark.usefixtures("filled")
def test_key_of_another_organization_is_unknown(owner: Person, stranger: Person) -> None:
    theirs = APIKeyFactory.create(organization=stranger.organization, raw="llmc_theirs" + "0" * 37)
    shown = page(browser_of(owner.user), "usage", key=theirs.prefix)
    assert "No key that you may see begins with" in shown


def test_who_is_not_logged_in_or_not_of_the_staff_is_sent_away(owner: Person) -> None:
    outsider = UserFactory.create(is_staff=False, is_superuser=True)
    for client in (Client(), browser_of(outsider)):
        for path in ("/admin/reports/", *(f"/admin/reports/{slug}/" for slug in REPORTS)):
            response = client.get(path)
            assert (response.status_code, response["Location"].split("?")[0]) == (302, "/admin/login/")


def test_staff_without_an_organization_are_told_what_to_do() -> None:
    client = browser_of(UserFactory.create())
    assert "You belong to no organization yet" in page(client, "usage")
    assert "You belong to no organization yet" in client.get("/admin/reports/").content.decode()
    assert "Reports" not in [group.get("title") for group in client.get("/admin/").context["sidebar_navigation"]]


@pytest.mark.usefixtures("filled")
def test_member_of_two_organizations_chooses_one(owner: Person, stranger: Person) -> None:
    MembershipFactory.create(user=owner.user, organization=stranger.organization)
    client = browser_of(owner.user)
    for person, count in ((owner, "2"), (stranger, "1")):
        (line,) = file_of(client, "usage", range="today", organization=str(person.organization.pk))
        assert line["requests"] == count


@pytest.mark.usefixtures("filled")
def test_side_bar_and_index_lead_to_every_report(owner: Person) -> None:
    client = browser_of(owner.user)
    shown = client.get("/admin/reports/").content.decode()
    for report in REPORTS.values():
        # Once in the side bar, once as a card.
        assert shown.count(f'href="/admin/reports/{report.slug}/"') == 2
    assert client.get("/admin/reports/nothing/").status_code == 404


def test_table_sorts_by_what_is_clicked(owner: Person) -> None:
    now = timezone.now()
    store([exchange(owner.organization, now, model=model) for model in ("a", "b", "b", "c", "c", "c")])
    client = browser_of(owner.user)

    def order(sort: str) -> list[str]:
        response = client.get("/admin/reports/usage/", {"range": "today", "sort": sort})
        return [line[0].text for line in response.context["tables"][0].lines]

    assert order("requests") == ["a", "b", "c"]
    assert order("-requests") == ["c", "b", "a"]
    assert order("-model") == ["c", "b", "a"]
    assert order("nothing of the kind") == ["c", "b", "a"]
    assert 'aria-sort="descending"' in page(client, "usage", range="today", sort="-requests")


def test_file_holds_plain_values_and_no_formula(owner: Person) -> None:
    store([exchange(owner.organization, timezone.now(), model="=HYPERLINK(1)", provider="openai")])
    (line,) = file_of(browser_of(owner.user), "usage", range="today", group_by="model")
    assert line["model"] == "'=HYPERLINK(1)"
    assert (line["requests"], line["cost"], line["failure_rate"]) == ("1", "0.0000205", "0.0")


def test_file_of_errors_has_no_text_of_the_record(owner: Person) -> None:
    store([exchange(owner.organization, timezone.now(), status="failed", error_code="x", error_message="secret words")])
    client = browser_of(owner.user)
    assert "secret words" in page(client, "errors", range="today")
    assert "secret words" not in client.get("/admin/reports/errors/?range=today&format=csv").content.decode()


def test_page_is_cut_where_the_file_is_whole(owner: Person) -> None:
    now = timezone.now()
    store([exchange(owner.organization, now, user_id=f"u{number}") for number in range(LINES_AT_MOST + 3)])
    client = browser_of(owner.user)
    assert "3 more lines are in the CSV file." in page(client, "usage", range="today", group_by="user")
    assert len(file_of(client, "usage", range="today", group_by="user")) == LINES_AT_MOST + 3


def test_names_by_callers_are_no_markup(owner: Person) -> None:
    store([exchange(owner.organization, timezone.now(), model="<script>alert(1)</script>")])
    shown = page(browser_of(owner.user), "usage", range="today", group_by="model")
    assert "<script>alert(1)" not in shown
    assert "&lt;script&gt;alert(1)" in shown


def test_what_is_wrong_is_said_beside_the_field(owner: Person) -> None:
    shown = page(browser_of(owner.user), "usage", range="custom", since="2026-02-02", until="2026-01-01")
    assert "The last day is before the first, 2026-02-02. Exchange the two." in shown
    assert "This cannot be answered as it is asked" in shown


def test_changes_that_are_not_added_up_yet_are_announced(owner: Person) -> None:
    now = timezone.now()
    store([exchange(owner.organization, now - dt.timedelta(hours=hours)) for hours in range(1, 40)])
    assert "are still being added up" in page(browser_of(owner.user), "usage")
