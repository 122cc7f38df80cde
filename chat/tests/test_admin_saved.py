"""Saved filters: whose they are, who sees them, and what the list does with them."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from accounts.tests.factories import MembershipFactory, UserFactory
from accounts.tests.fixtures import Person
from audit.models import Entry
from chat.models import SavedFilter
from chat.tests.factories import InteractionFactory
from chat.tests.test_admin_interactions import LIST, browser_of, shown, text_of

SAVE = f"{LIST}save-filter/"


def save(client: Client, query: str = "status=failed&status=cancelled&q=parcel", **fields: str) -> str:
    """Saves the query as a filter; what the person is told."""
    response = client.post(SAVE, {"query": query, "name": "Mine", **fields}, follow=True)
    return " ".join(str(message) for message in response.context["messages"])


def test_filter_is_saved_and_leads_back_to_the_same_list(owner: Person) -> None:
    client = browser_of(owner.user)
    assert save(client) == "Saved as “Mine”."
    assert SavedFilter.objects.get().values == {"status": ["failed", "cancelled"], "q": "parcel"}
    assert (
        f'href="{LIST}?status=failed&amp;status=cancelled&amp;q=parcel"' in client.get(f"{LIST}?all=").content.decode()
    )
    assert save(client, "user=ana") == "Saved as “Mine”."
    assert SavedFilter.objects.get().values == {"user": "ana"}


@pytest.mark.parametrize(
    ("query", "fields", "words"),
    [
        ("", {}, "Nothing is filtered yet"),
        ("period=nonsense", {}, "It is one of hour"),
        ("user=ana", {"name": ""}, "The filter was not saved."),
        ("user=ana", {"name": "x" * 65}, "at most 64 characters"),
        ("user=ana", {"organization": "7"}, "The filter was not saved."),
    ],
)
def test_what_cannot_be_saved_is_told(owner: Person, query: str, fields: dict[str, str], words: str) -> None:
    assert words in save(browser_of(owner.user), query, **fields)
    assert not SavedFilter.objects.exists()


def test_trail_says_who_shared_and_deleted_a_filter(owner: Person) -> None:
    client = browser_of(owner.user)
    save(client, "user=ana", organization=str(owner.organization.pk))
    save(client, "user=bo", organization=str(owner.organization.pk))
    pk = SavedFilter.objects.get().pk
    client.post(reverse("admin:chat_savedfilter_delete", args=[pk]), {"post": "yes"})
    found = Entry.objects.filter(object_type="chat.savedfilter", object_id=str(pk)).order_by("id")
    name = owner.user.get_username()
    assert [(entry.action, entry.actor, entry.organization_id) for entry in found] == [
        (action, name, owner.organization.pk) for action in ("added", "changed", "deleted")
    ]
    assert found[1].changes == {"values": [{"user": "ana"}, {"user": "bo"}]}
    history = client.get(reverse("admin:chat_savedfilter_history", args=[pk]))
    assert history.headers["Location"].endswith(f"?object=chat.savedfilter%3A{pk}")


def test_default_opens_with_the_list(owner: Person) -> None:
    client = browser_of(owner.user)
    InteractionFactory.create(organization=owner.organization)
    save(client, "user=ben", is_default="on")
    save(client, "user=ana", name="Other", is_default="on")
    assert client.get(LIST).headers["Location"] == f"{LIST}?user=ana"
    assert list(SavedFilter.objects.filter(is_default=True).values_list("name", flat=True)) == ["Other"]
    assert len(shown(client.get(f"{LIST}?all="))) == 1
    assert client.get(f"{LIST}?user=ben").status_code == 200


def test_shared_filter_is_seen_by_the_organization_and_nobody_else(owner: Person, stranger: Person) -> None:
    colleague = browser_of(MembershipFactory.create(organization=owner.organization).user)
    mine, other = browser_of(owner.user), browser_of(stranger.user)
    save(mine, name="Private")
    save(mine, name="Common", organization=str(owner.organization.pk))
    assert "not saved" in save(other, name="Theirs", organization=str(owner.organization.pk))
    for client, names in ((mine, {"Private", "Common"}), (colleague, {"Common"}), (other, set())):
        content = text_of(client.get(f"{LIST}?all="))
        assert {name for name in ("Private", "Common") if name in content} == names
    private, common = SavedFilter.objects.get(name="Private"), SavedFilter.objects.get(name="Common")
    for client in (colleague, other):
        for row in (private, common):
            delete = reverse("admin:chat_savedfilter_delete", args=[row.pk])
            assert client.post(delete, {"post": "yes"}).status_code in {302, 403}
    assert SavedFilter.objects.count() == 2
    assert mine.post(reverse("admin:chat_savedfilter_delete", args=[private.pk]), {"post": "yes"}).status_code == 302
    assert SavedFilter.objects.count() == 1


def test_staff_without_an_organization_save_nothing(db: None) -> None:
    browser_of(UserFactory.create()).post(SAVE, {"query": "user=ana", "name": "Mine"})
    assert not SavedFilter.objects.exists()


def test_condition_without_a_field_is_shown_and_can_be_taken_off(owner: Person) -> None:
    row = InteractionFactory.create(organization=owner.organization, api_key=owner.key)
    response = browser_of(owner.user).get(f"{LIST}?key={owner.key.pk}&user=ana&since=2026-03-01")
    assert 'href="?user=ana&amp;since=2026-03-01"' in response.content.decode()
    assert f"API key {owner.key.pk} ×" in text_of(response)
    assert "since 2026-03-01T00:00:00Z ×" in text_of(response)
    assert shown(response) == ([row.pk] if row.created_at.year >= 2026 else [])
