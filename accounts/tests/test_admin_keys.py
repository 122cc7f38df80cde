"""Keys in the admin: issued, shown once, changed, revoked and rotated, by those who may."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import APIKey, Membership
from accounts.services import DEFAULT_GRACE, RAW_KEY
from accounts.tests.asking import ask_sync, body, code
from accounts.tests.factories import APIKeyFactory, MembershipFactory, UserFactory
from accounts.tests.fixtures import Person, person

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/accounts/apikey/"
ADD = "/admin/accounts/apikey/add/"


def page_of(key: APIKey) -> str:
    return reverse("admin:accounts_apikey_change", args=[key.pk])


def logged_in(who: Person) -> Client:
    client = Client()
    client.force_login(who.user)
    return client


def issue(client: Client, organization: Any, **changes: Any) -> Any:
    data = {"organization": organization.pk, "name": "issued", "scopes": ["chat"], "budget_usd": "5.00"}
    return client.post(ADD, {**data, **changes})


def shown_keys(response: Any) -> list[str]:
    return RAW_KEY.findall(response.content.decode())


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(UserFactory.create(is_superuser=True))
    return client


def test_issued_key_is_shown_on_the_next_page_and_works(owner: Person) -> None:
    response = issue(logged_in(owner), owner.organization)

    (raw,) = shown_keys(response)
    assert (response.status_code, "no-store" in response["Cache-Control"]) == (200, True)
    assert "shown this once" in response.content.decode()
    assert body(ask_sync(x_api_key=raw))["key"] == "issued"
    key = APIKey.objects.get(name="issued")
    assert (key.organization, key.scopes, str(key.budget_usd), key.created_by) == (
        owner.organization,
        ["chat"],
        "5.00",
        owner.user,
    )


def test_issued_key_is_kept_nowhere(owner: Person, caplog: pytest.LogCaptureFixture) -> None:
    client = logged_in(owner)
    (raw,) = shown_keys(issue(client, owner.organization))

    pages = [
        client.get(path).content.decode() for path in ("/admin/", LIST, page_of(APIKey.objects.get(name="issued")))
    ]

    kept = [
        *pages,
        *(str(entry) + entry.change_message for entry in LogEntry.objects.all()),
        *(str(session.get_decoded()) for session in Session.objects.all()),
        str(client.cookies),
        str(list(APIKey.objects.values())),
        caplog.text,
    ]
    assert [text for text in kept if raw in text] == []
    assert LogEntry.objects.get().get_change_message() == "Added."


def test_list_shows_prefix_and_status_and_never_the_digest(owner: Person) -> None:
    APIKeyFactory.create(organization=owner.organization, expires_at=timezone.now())
    APIKeyFactory.create(organization=owner.organization, revoked_at=timezone.now())

    page = logged_in(owner).get(LIST).content.decode()

    assert owner.key.prefix in page
    assert all(status in page for status in ("active", "expired", "revoked"))
    assert re.search(r"[0-9a-f]{64}", page) is None
    assert owner.raw not in page


def test_key_is_found_by_its_prefix(operator: Client) -> None:
    wanted, other = APIKeyFactory.create(raw="llmc_wanted" + "0" * 37), APIKeyFactory.create()

    page = operator.get(LIST, {"q": "llmc_wanted"}).content.decode()

    assert (wanted.prefix in page, other.prefix in page) == (True, False)


def test_name_scopes_budget_and_end_can_be_changed_and_count_at_once(owner: Person) -> None:
    assert ask_sync(x_api_key=owner.raw, scope="chat").status_code == 200

    response = logged_in(owner).post(page_of(owner.key), {"name": "renamed", "scopes": ["read"], "budget_usd": ""})

    assert response.status_code == 302
    owner.key.refresh_from_db()
    assert (owner.key.name, owner.key.scopes) == ("renamed", ["read"])
    assert code(ask_sync(x_api_key=owner.raw, scope="chat")) == (403, "insufficient_scope")


def test_nothing_else_of_a_key_can_be_changed(owner: Person, stranger: Person) -> None:
    before = APIKey.objects.filter(pk=owner.key.pk).values().get()
    changes = {
        "organization": stranger.organization.pk,
        "digest": "0" * 64,
        "prefix": "x",
        "revoked_at_0": "2020-01-01",
    }

    logged_in(owner).post(page_of(owner.key), {"name": before["name"], "scopes": before["scopes"], **changes})

    assert APIKey.objects.filter(pk=owner.key.pk).values().get() == before


def test_key_needs_a_scope(owner: Person) -> None:
    response = logged_in(owner).post(page_of(owner.key), {"name": "renamed", "scopes": []})

    assert response.status_code == 200
    assert "This field is required." in response.content.decode()


def test_revoking_in_the_list_is_logged_and_counts_at_once(owner: Person) -> None:
    assert ask_sync(x_api_key=owner.raw).status_code == 200

    logged_in(owner).post(LIST, {"action": "revoke_selected", "_selected_action": [owner.key.pk]})

    assert code(ask_sync(x_api_key=owner.raw)) == (401, "api_key_revoked")
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.get_change_message()) == (owner.user, str(owner.key.pk), "Revoked.")


def test_revoking_on_the_key_s_page(owner: Person) -> None:
    client = logged_in(owner)
    assert b"accounts_apikey_revoke_this" in client.get(page_of(owner.key)).content

    client.post(page_of(owner.key), {"name": "owner", "scopes": ["chat"], "accounts_apikey_revoke_this": ""})

    assert code(ask_sync(x_api_key=owner.raw)) == (401, "api_key_revoked")
    assert b"accounts_apikey_revoke_this" not in client.get(page_of(owner.key)).content


@pytest.mark.parametrize("where", ["list", "page"])
def test_rotating_shows_a_new_key_and_lets_the_old_one_run_out(owner: Person, where: str) -> None:
    client = logged_in(owner)
    before = timezone.now()

    if where == "list":
        response = client.post(LIST, {"action": "rotate_selected", "_selected_action": [owner.key.pk]})
    else:
        form = {"name": "owner", "scopes": ["chat", "read"], "accounts_apikey_rotate_this": ""}
        response = client.post(page_of(owner.key), form)

    (raw,) = shown_keys(response)
    assert [ask_sync(x_api_key=key).status_code for key in (owner.raw, raw)] == [200, 200]
    owner.key.refresh_from_db()
    assert owner.key.expires_at is not None
    assert before + DEFAULT_GRACE <= owner.key.expires_at <= timezone.now() + DEFAULT_GRACE
    successor = APIKey.objects.get(prefix=raw[:12], name="owner", expires_at=None)
    assert (successor.scopes, successor.organization) == (["chat", "read"], owner.organization)


def test_key_cannot_be_deleted(operator: Client, owner: Person) -> None:
    assert operator.post(f"{LIST}{owner.key.pk}/delete/", {"post": "yes"}).status_code == 403
    operator.post(LIST, {"action": "delete_selected", "_selected_action": [owner.key.pk], "post": "yes"})
    assert APIKey.objects.filter(pk=owner.key.pk).exists()


@pytest.mark.parametrize("role", [Membership.Role.OWNER, Membership.Role.ADMIN])
def test_owner_and_administrator_manage_keys(owner: Person, role: str) -> None:
    client = logged_in(person(owner.organization, role))

    assert len(shown_keys(issue(client, owner.organization))) == 1


@pytest.mark.parametrize("role", [Membership.Role.MEMBER, Membership.Role.VIEWER])
def test_member_and_viewer_look_only(owner: Person, role: str) -> None:
    client = logged_in(person(owner.organization, role))

    assert client.get(LIST).status_code == 200
    assert client.get(page_of(owner.key)).status_code == 200
    assert client.get(ADD).status_code == 403
    assert issue(client, owner.organization).status_code == 403
    assert client.post(page_of(owner.key), {"name": "taken over", "scopes": ["chat"]}).status_code == 403
    client.post(LIST, {"action": "revoke_selected", "_selected_action": [owner.key.pk]})
    owner.key.refresh_from_db()
    assert (owner.key.name, owner.key.revoked_at) == ("owner", None)


def test_stranger_sees_and_touches_nothing(owner: Person, stranger: Person) -> None:
    client = logged_in(stranger)

    page = client.get(LIST).content.decode()
    assert (stranger.organization.name in page, owner.organization.name in page) == (True, False)
    assert client.get(page_of(owner.key)).status_code == 302
    client.post(page_of(owner.key), {"name": "taken over", "scopes": ["chat"]})
    client.post(LIST, {"action": "revoke_selected", "_selected_action": [owner.key.pk]})
    assert issue(client, owner.organization).status_code == 200
    owner.key.refresh_from_db()
    assert (owner.key.name, owner.key.revoked_at) == ("owner", None)
    assert not APIKey.objects.filter(name="issued").exists()
    assert owner.organization.name not in client.get(ADD).content.decode()


def test_manager_of_one_organization_only_looks_at_the_other(owner: Person, stranger: Person) -> None:
    MembershipFactory.create(user=owner.user, organization=stranger.organization, role=Membership.Role.VIEWER)
    both = [owner.key.pk, stranger.key.pk]

    logged_in(owner).post(LIST, {"action": "revoke_selected", "_selected_action": both})

    assert list(APIKey.objects.exclude(revoked_at=None).values_list("pk", flat=True)) == [owner.key.pk]


def test_member_who_is_not_staff_cannot_get_in(owner: Person) -> None:
    owner.user.is_staff = False
    owner.user.save()

    assert logged_in(owner).get(LIST).status_code == 302


def test_operator_sees_all(operator: Client, owner: Person, stranger: Person) -> None:
    page = operator.get(LIST).content.decode()

    assert all(key.prefix in page for key in (owner.key, stranger.key))
    assert owner.organization.name in page
    assert stranger.organization.name in page


def test_script_in_a_name_is_shown_as_text(owner: Person) -> None:
    APIKeyFactory.create(organization=owner.organization, name="<script>alert(1)</script>")

    page = logged_in(owner).get(LIST).content.decode()

    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_end_in_the_form_is_kept(owner: Person) -> None:
    end = (timezone.now() + timedelta(days=3)).replace(microsecond=0)

    issue(logged_in(owner), owner.organization, expires_at_0=f"{end:%Y-%m-%d}", expires_at_1=f"{end:%H:%M:%S}")

    assert APIKey.objects.get(name="issued").expires_at == end
