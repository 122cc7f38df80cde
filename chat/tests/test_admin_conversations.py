"""Conversations in the admin: the list, and the page that reads as a thread."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import Person
from chat.admin import conversations
from chat.models import Conversation
from chat.tests.factories import ConversationFactory, InteractionFactory
from chat.tests.test_admin_interactions import browser_of, shown, text_of

LIST = "/admin/chat/conversation/"


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


def page_of(row: Conversation) -> str:
    return reverse("admin:chat_conversation_change", args=[row.pk])


def test_list_tells_how_long_each_conversation_is(operator: Client, owner: Person) -> None:
    empty = ConversationFactory.create(organization=owner.organization, title="Nothing said")
    busy = ConversationFactory.create(organization=owner.organization, title="", user_id="ben")
    for _ in range(3):
        InteractionFactory.create(organization=owner.organization, conversation=busy)
    response = operator.get(LIST)
    assert shown(response) == [busy.pk, empty.pk]
    content = text_of(response)
    assert f"{busy.pk} Acme ben 3" in content
    assert "Nothing said Acme ana 0" in content


def test_number_of_queries_does_not_grow_with_the_rows(operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            operator.get(LIST)
        return len(captured)

    InteractionFactory.create(conversation=ConversationFactory.create())
    one = queries()
    for _ in range(5):
        InteractionFactory.create(conversation=ConversationFactory.create())
    assert queries() == one


def test_search_by_title_user_and_id(operator: Client) -> None:
    row = ConversationFactory.create(title="Trip to Lisbon", user_id="zoe")
    ConversationFactory.create()
    for words in ("lisbon", "zoe", str(row.pk)):
        assert shown(operator.get(LIST, {"q": words})) == [row.pk]


def test_page_reads_as_a_thread(operator: Client, owner: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization, title="Trip")
    for age, prompt in ((2, "Where to?"), (1, "And when?")):
        InteractionFactory.create(
            organization=owner.organization, conversation=row, prompt=prompt, age=dt.timedelta(hours=age)
        )
    InteractionFactory.create(organization=owner.organization, conversation=row, failed=True, prompt="Hello?")
    InteractionFactory.create(organization=owner.organization, prompt="Elsewhere")
    content = text_of(operator.get(page_of(row)))
    assert [content.index(words) for words in ("Where to?", "And when?", "Hello?")] == sorted(
        content.index(words) for words in ("Where to?", "And when?", "Hello?")
    )
    assert "Failed provider_unavailable" in content
    assert "Elsewhere" not in content
    assert "Older interactions" not in content


def test_long_thread_is_read_page_by_page(operator: Client, owner: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "PAGE_LENGTH", 2)
    row = ConversationFactory.create(organization=owner.organization)
    said = [InteractionFactory.create(organization=owner.organization, conversation=row) for _ in range(5)]
    pages, url = [], page_of(row)
    while url:
        response = operator.get(url)
        pages.append([entry["row"].pk for entry in response.context["thread"]])
        older = response.context["older"]
        assert older is None or f"?before={older}" in response.content.decode()
        url = f"{page_of(row)}?before={older}" if older else ""
    assert pages == [[said[3].pk, said[4].pk], [said[1].pk, said[2].pk], [said[0].pk]]
    assert "Newest interactions" in text_of(operator.get(f"{page_of(row)}?before={said[1].pk}"))


def test_place_in_the_thread_that_makes_no_sense_is_ignored(operator: Client) -> None:
    row = ConversationFactory.create()
    assert operator.get(f"{page_of(row)}?before=yesterday").status_code == 200


def test_long_texts_are_cut_in_the_thread(operator: Client) -> None:
    row = ConversationFactory.create()
    said = InteractionFactory.create(organization=row.organization, conversation=row, long=True)
    response = operator.get(page_of(row))
    assert f"{len(said.prompt) - conversations.TURN_LIMIT} more characters" in text_of(response)
    assert len(response.content) < 100_000


def test_conversations_cannot_be_changed_by_anybody(operator: Client, owner: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization, title="As it was")
    for client in (operator, browser_of(owner.user)):
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.post(page_of(row), {"title": "changed"}).status_code == 403
        client.post(LIST, {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
    assert Conversation.objects.get().title == "As it was"


def test_stranger_cannot_read_a_conversation(owner: Person, stranger: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization, title="Acme's plans")
    client = browser_of(stranger.user)
    assert shown(client.get(LIST)) == []
    response = client.get(page_of(row), follow=True)
    assert response.redirect_chain == [(reverse("admin:index"), 302)]
    assert "plans" not in response.content.decode()


def test_member_reads_a_conversation_of_the_organization(owner: Person, member: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization)
    client = browser_of(member.user)
    assert shown(client.get(LIST)) == [row.pk]
    assert client.get(page_of(row)).status_code == 200
