"""Organizations, members, plans and people in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import Membership, Organization, Plan, User
from accounts.tests.asking import ask_sync, body, code
from accounts.tests.factories import PASSWORD, PlanFactory, UserFactory
from accounts.tests.fixtures import Person, person

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/accounts/organization/"
Role = Membership.Role


def logged_in(who: Person) -> Client:
    client = Client()
    client.force_login(who.user)
    return client


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(UserFactory.create(username="operator", is_superuser=True))
    return client


def page_of(organization: Organization) -> str:
    return reverse("admin:accounts_organization_change", args=[organization.pk])


def members_form(organization: Organization, *rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What the page posts: the organization's fields, its present members and further `rows` (changes by username)."""
    members = list(organization.memberships.select_related("user").order_by("id"))
    changes = {row["username"]: row for row in rows}
    posted: list[dict[str, Any]] = [
        {
            "id": member.pk,
            "username": member.user.username,
            "role": member.role,
            **changes.pop(member.user.username, {}),
        }
        for member in members
    ]
    posted += changes.values()
    data = {
        "name": organization.name,
        "memberships-TOTAL_FORMS": len(posted),
        "memberships-INITIAL_FORMS": len(members),
        "api_keys-TOTAL_FORMS": 0,
        "api_keys-INITIAL_FORMS": 0,
        **fields,
    }
    for number, row in enumerate(posted):
        data |= {f"memberships-{number}-{name}": value for name, value in row.items()}
        data[f"memberships-{number}-organization"] = organization.pk
    return data


def roles(organization: Organization) -> dict[str, str]:
    return dict(organization.memberships.values_list("user__username", "role"))


def test_list_shows_one_s_own_organizations(owner: Person, stranger: Person, operator: Client) -> None:
    pages = [client.get(LIST).content.decode() for client in (logged_in(owner), logged_in(stranger), operator)]

    assert [(owner.organization.name in page, stranger.organization.name in page) for page in pages] == [
        (True, False),
        (False, True),
        (True, True),
    ]


def test_search_finds_by_name_and_by_key(operator: Client, owner: Person, stranger: Person) -> None:
    by_name = operator.get(LIST, {"q": "Acm"}).content.decode()
    by_key = operator.get(LIST, {"q": owner.raw[:12]}).content.decode()

    assert ("Acme" in by_name, "Umbrella" in by_name) == (True, False)
    assert "Acme" in by_key


def test_page_shows_members_and_keys_of_this_organization_alone(owner: Person, stranger: Person) -> None:
    page = logged_in(owner).get(page_of(owner.organization)).content.decode()

    assert (owner.user.username in page, owner.key.prefix in page) == (True, True)
    assert (stranger.user.username in page, owner.raw in page) == (False, False)


def test_stranger_cannot_open_the_page(owner: Person, stranger: Person) -> None:
    assert logged_in(stranger).get(page_of(owner.organization)).status_code == 302


def test_member_looks_and_changes_nothing(owner: Person, member: Person) -> None:
    client = logged_in(member)

    assert client.get(page_of(owner.organization)).status_code == 200
    assert client.post(page_of(owner.organization), members_form(owner.organization, name="Mine")).status_code == 403
    owner.organization.refresh_from_db()
    assert owner.organization.name == "Acme"


def test_owner_adds_a_person_by_username(owner: Person) -> None:
    newcomer = UserFactory.create(username="newcomer")

    response = logged_in(owner).post(
        page_of(owner.organization), members_form(owner.organization, {"username": "newcomer", "role": Role.VIEWER})
    )

    assert response.status_code == 302
    assert roles(owner.organization) == {owner.user.username: "owner", newcomer.username: "viewer"}


def test_unknown_username_is_refused(owner: Person) -> None:
    response = logged_in(owner).post(
        page_of(owner.organization), members_form(owner.organization, {"username": "nobody", "role": Role.VIEWER})
    )

    assert "There is nobody of this name." in response.content.decode()
    assert roles(owner.organization) == {owner.user.username: "owner"}


def test_person_cannot_be_a_member_twice(owner: Person, member: Person) -> None:
    form = members_form(owner.organization)
    form |= {
        "memberships-TOTAL_FORMS": 3,
        "memberships-2-username": member.user.username,
        "memberships-2-role": "viewer",
        "memberships-2-organization": owner.organization.pk,
    }

    response = logged_in(owner).post(page_of(owner.organization), form)

    assert "Each person can be a member once." in response.content.decode()
    assert roles(owner.organization) == {owner.user.username: "owner", member.user.username: "member"}


def test_administrator_changes_members_but_never_owners(owner: Person, member: Person) -> None:
    administrator = person(owner.organization, Role.ADMIN)
    client, page = logged_in(administrator), page_of(owner.organization)
    before = roles(owner.organization)

    for row in (
        {"username": administrator.user.username, "role": Role.OWNER},
        {"username": member.user.username, "role": Role.OWNER},
        {"username": owner.user.username, "role": Role.VIEWER},
        {"username": owner.user.username, "DELETE": "on"},
    ):
        response = client.post(page, members_form(owner.organization, row))
        assert "Only an owner can make, change or remove owners." in response.content.decode()
    assert roles(owner.organization) == before

    client.post(page, members_form(owner.organization, {"username": member.user.username, "role": Role.VIEWER}))
    assert roles(owner.organization) == {**before, member.user.username: "viewer"}


def test_owner_makes_another_owner_but_the_last_one_stays(owner: Person, member: Person) -> None:
    client, page = logged_in(owner), page_of(owner.organization)

    leaving = {"username": owner.user.username, "DELETE": "on"}
    response = client.post(page, members_form(owner.organization, leaving))
    assert "keeps at least one owner" in response.content.decode()

    client.post(page, members_form(owner.organization, leaving, {"username": member.user.username, "role": Role.OWNER}))
    assert roles(owner.organization) == {member.user.username: "owner"}


def test_owner_cannot_choose_the_plan_or_make_organizations(owner: Person) -> None:
    client = logged_in(owner)

    client.post(page_of(owner.organization), members_form(owner.organization, plan="enterprise"))

    owner.organization.refresh_from_db()
    assert owner.organization.plan_id == "unlimited"
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(page_of(owner.organization).replace("change", "delete"), {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("field", ["log_prompts", "log_responses"])
def test_owner_may_keep_less_than_the_settings_say_but_not_more(
    owner: Person, operator: Client, settings: Any, field: str
) -> None:
    page, form = page_of(owner.organization), members_form(owner.organization, **{field: "true"})

    def kept() -> bool | None:
        owner.organization.refresh_from_db()
        value: bool | None = getattr(owner.organization, field)
        return value

    setattr(settings, field.upper(), False)
    refused = logged_in(owner).post(page, form).content.decode()
    assert f"The setting {field.upper()} is off here." in refused
    assert kept() is None

    operator.post(page, form | {"plan": "unlimited", "is_active": "on"})
    assert kept() is True
    # What the operator has allowed is no change of the owner's.
    assert logged_in(owner).post(page, form).status_code == 302
    logged_in(owner).post(page, form | {field: "false"})
    assert kept() is False


def test_operator_changes_the_plan_and_it_counts_at_once(operator: Client, owner: Person) -> None:
    assert body(ask_sync(x_api_key=owner.raw))["plan"] == "unlimited"

    operator.post(page_of(owner.organization), members_form(owner.organization, plan="premium", is_active="on"))

    assert body(ask_sync(x_api_key=owner.raw))["plan"] == "premium"


def test_operator_switches_an_organization_off(operator: Client, owner: Person) -> None:
    operator.post(page_of(owner.organization), members_form(owner.organization, plan="premium"))

    assert code(ask_sync(x_api_key=owner.raw)) == (403, "organization_inactive")


def test_operator_writes_allowed_models_line_by_line(operator: Client, owner: Person) -> None:
    plan = PlanFactory.create(slug="custom", allowed_models=["old-*"])
    page = reverse("admin:accounts_plan_change", args=[plan.pk])
    assert "old-*" in operator.get(page).content.decode()

    operator.post(page, {"name": "Custom", "priority": 5, "allowed_models": "gemini-*\r\n\r\n  local/*  "})

    plan.refresh_from_db()
    assert (plan.allowed_models, plan.priority, Plan.objects.filter(name="Custom").count()) == (
        ["gemini-*", "local/*"],
        5,
        1,
    )


@pytest.mark.parametrize("path", ["plan/", "plan/add/", "plan/free/change/", "user/", "user/add/"])
def test_plans_and_people_are_the_operator_s(operator: Client, owner: Person, path: str) -> None:
    assert operator.get(f"/admin/accounts/{path}").status_code == 200
    assert logged_in(owner).get(f"/admin/accounts/{path}").status_code == 403


def test_operator_adds_a_person_who_can_log_in(operator: Client) -> None:
    password = "a long enough passphrase"
    operator.post(
        "/admin/accounts/user/add/",
        {"username": "newcomer", "password1": password, "password2": password, "usable_password": "true"},
    )

    assert Client().login(username="newcomer", password=password)


def test_operator_reads_and_changes_a_person(operator: Client, owner: Person) -> None:
    page = reverse("admin:accounts_user_change", args=[owner.user.pk])
    content = operator.get(page).content.decode()
    assert owner.user.password not in content

    operator.post(page, {"username": owner.user.username, "first_name": "Ada", "is_active": "on"})

    changed = User.objects.get(pk=owner.user.pk)
    assert (changed.first_name, changed.is_staff, changed.password) == ("Ada", False, owner.user.password)


def test_index_lists_what_one_may_see(owner: Person, operator: Client) -> None:
    def links(client: Client) -> list[str]:
        page = client.get("/admin/").content.decode()
        return [name for name in ("organization", "apikey", "plan", "user") if f"/admin/accounts/{name}/" in page]

    assert (links(logged_in(owner)), links(operator)) == (
        ["organization", "apikey"],
        ["organization", "apikey", "plan", "user"],
    )


def test_staff_without_organization_sees_nothing() -> None:
    client = Client()
    client.login(username=UserFactory.create(username="lonely").username, password=PASSWORD)

    assert client.get(LIST).status_code == 403
