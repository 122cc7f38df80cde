"""The audit trail in the admin: who sees which entries, how they are found, and that nothing can be changed there."""

from __future__ import annotations

import pytest
from django.urls import reverse

from accounts import services
from accounts.models import Membership, Plan
from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import person
from audit.models import ActorKind, Entry
from chat.tests.factories import InteractionFactory

pytestmark = pytest.mark.django_db
LIST = reverse("admin:audit_entry_changelist")


@pytest.fixture
def operator():
    return UserFactory.create(is_superuser=True, username="olga")


def _as(client, user):
    client.force_login(user)
    return client


def test_owner_sees_the_entries_of_the_own_organization(client, owner, stranger):
    services.create_api_key(owner.organization, name="ours-alone")
    services.create_api_key(stranger.organization, name="theirs-alone")
    page = _as(client, owner.user).get(LIST).content.decode()
    assert "ours-alone" in page
    assert "theirs-alone" not in page


@pytest.mark.parametrize("role", [Membership.Role.MEMBER, Membership.Role.VIEWER])
def test_who_only_looks_sees_no_entries(client, owner, role):
    somebody = person(owner.organization, role)
    entry = Entry.objects.filter(organization=owner.organization).first()
    client.force_login(somebody.user)
    assert client.get(LIST).status_code == 403
    assert client.get(reverse("admin:audit_entry_change", args=[entry.pk])).status_code == 403


def test_a_role_in_one_organization_opens_no_other(client, owner, stranger):
    """Owner of one, mere member of another."""
    Membership.objects.create(user=owner.user, organization=stranger.organization, role=Membership.Role.MEMBER)
    services.create_api_key(stranger.organization, name="theirs-alone")
    entry = Entry.objects.order_by("-id").first()
    client.force_login(owner.user)
    assert "theirs-alone" not in client.get(LIST).content.decode()
    assert client.get(reverse("admin:audit_entry_change", args=[entry.pk])).status_code in {302, 403}


def test_operator_sees_all_and_from_where(client, operator, owner, stranger):
    services.create_api_key(stranger.organization, name="theirs-alone")
    client.force_login(operator)
    assert "theirs-alone" in client.get(LIST).content.decode()
    page = client.get(reverse("admin:audit_entry_change", args=[Entry.objects.order_by("-id").first().pk]))
    assert "theirs-alone" in page.content.decode()


def test_a_change_in_the_admin_names_the_person_the_address_and_the_request(client, operator):
    client.force_login(operator)
    response = client.post(
        reverse("admin:accounts_plan_add"),
        {"slug": "gold", "name": "Gold", "priority": "0", "allowed_models": "[]"},
        REMOTE_ADDR="203.0.113.9",
    )
    assert response.status_code == 302, response.content.decode()
    entry = Entry.objects.order_by("-id").first()
    assert (entry.actor_kind, entry.actor, entry.person_id) == (ActorKind.PERSON, "olga", operator.pk)
    assert (entry.address, entry.request_id) == ("203.0.113.9", response["X-Request-Id"])


def test_a_forged_proxy_header_is_not_believed(client, operator):
    client.force_login(operator)
    plan = {"slug": "gold", "name": "Gold", "priority": "0", "allowed_models": "[]"}
    client.post(reverse("admin:accounts_plan_add"), plan, REMOTE_ADDR="203.0.113.9", HTTP_X_FORWARDED_FOR="10.0.0.1")
    assert Entry.objects.order_by("-id").first().address == "203.0.113.9"


def test_owners_do_not_learn_the_address_of_others(client, operator, owner):
    client.force_login(operator)
    client.post(
        reverse("admin:accounts_apikey_add"),
        {"organization": str(owner.organization.pk), "name": "by-olga", "scopes": ["chat"]},
        REMOTE_ADDR="203.0.113.77",
    )
    entry = Entry.objects.order_by("-id").first()
    assert entry.address == "203.0.113.77"
    client.force_login(owner.user)
    page = client.get(reverse("admin:audit_entry_change", args=[entry.pk])).content.decode()
    assert "by-olga" in page
    assert "203.0.113.77" not in page


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("q=gold", {"Gold"}),
        ("object=accounts.plan:gold", {"Gold"}),
        ("object=accounts.plan:other", set()),
        ("kind=accounts.plan&action__exact=added", {"Gold", "Silver"}),
        ("kind=accounts.plan&period=hour", {"Gold", "Silver"}),
        ("who=nobody", set()),
        ("object=nonsense", {"Gold", "Silver"}),
    ],
)
def test_entries_are_found(client, operator, query, shown):
    Entry.objects.all().delete()
    Plan.objects.create(slug="gold", name="Gold")
    Plan.objects.create(slug="silver", name="Silver")
    page = _as(client, operator).get(f"{LIST}?{query}").content.decode()
    assert {name for name in ("Gold", "Silver") if f"<span>{name}</span>" in page} == shown


def test_nothing_can_be_changed_or_deleted(client, operator):
    Plan.objects.create(slug="gold", name="Gold")
    entry = Entry.objects.order_by("-id").first()
    client.force_login(operator)
    assert client.post(reverse("admin:audit_entry_change", args=[entry.pk]), {"actor": "x"}).status_code == 403
    assert client.post(reverse("admin:audit_entry_delete", args=[entry.pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse("admin:audit_entry_add")).status_code == 403
    assert Entry.objects.get(pk=entry.pk).actor == entry.actor


def test_history_of_a_thing_leads_to_its_entries(client, operator):
    Plan.objects.create(slug="gold", name="Gold")
    client.force_login(operator)
    response = client.get(reverse("admin:accounts_plan_history", args=["gold"]), follow=True)
    assert response.redirect_chain[0][0] == f"{LIST}?object=accounts.plan%3Agold"
    assert "Gold" in response.content.decode()


def test_the_list_says_which_entries_it_shows(client, operator):
    Entry.objects.all().delete()
    Plan.objects.create(slug="gold", name="Gold")
    changelist = _as(client, operator).get(LIST).context_data["cl"]
    assert (changelist.span, changelist.total) == ("1 – 1", "1")


def test_markup_in_a_name_stays_text(client, operator):
    Plan.objects.create(slug="x", name="<script>alert(1)</script>")
    client.force_login(operator)
    assert "<script>alert(1)" not in client.get(LIST).content.decode()
    entry = Entry.objects.order_by("-id").first()
    page = client.get(reverse("admin:audit_entry_change", args=[entry.pk])).content.decode()
    assert "<script>alert(1)" not in page


def test_erasing_a_person_is_entered(client, owner):
    row = InteractionFactory.create(organization=owner.organization, user_id="ana")
    client.force_login(owner.user)
    client.post(reverse("admin:chat_interaction_erase_person", args=[row.pk]))
    entry = Entry.objects.get(action="erased")
    assert (entry.actor, entry.details["user"], entry.organization_id) == (
        owner.user.username,
        "ana",
        owner.organization.pk,
    )
