"""Encrypted texts in the admin: read like any other, not searched, and a placeholder when their key is lost."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.tests.factories import UserFactory
from chat.admin.conversations import TURN_LIMIT
from chat.fields import PLACEHOLDER
from chat.models import Conversation, Interaction
from chat.tests.factories import ConversationFactory, InteractionFactory

pytestmark = pytest.mark.django_db(transaction=True)

INTERACTIONS = "/admin/chat/interaction/"
CONVERSATIONS = "/admin/chat/conversation/"


@pytest.fixture
def operator(db: None) -> Client:
    client = Client()
    client.force_login(UserFactory.create(is_superuser=True))
    return client


@pytest.fixture
def key(settings: Any) -> None:
    settings.TEXT_ENCRYPTION_KEYS = (secrets.token_bytes(32),)


def exchange(**columns: Any) -> Interaction:
    conversation = ConversationFactory.create(title="A thread's title")
    return InteractionFactory.create(
        conversation=conversation, organization=conversation.organization, tools=True, **columns
    )


def pages(row: Interaction) -> list[str]:
    return [
        "/admin/",
        INTERACTIONS,
        CONVERSATIONS,
        reverse("admin:chat_interaction_change", args=[row.pk]),
        reverse("admin:chat_interaction_download", args=[row.pk]),
        reverse("admin:chat_conversation_change", args=[row.conversation_id]),
    ]


def read(client: Client, path: str) -> str:
    response = client.get(path)
    assert response.status_code == 200
    return response.content.decode()


def test_pages_show_texts_and_no_ciphertext(operator, key) -> None:
    row = exchange(response="Everything is fine.")
    InteractionFactory.create(failed=True)
    shown = [read(operator, page) for page in pages(row)]
    assert [("enc1:" in page, "encrypted with a key" in page) for page in shown] == [(False, False)] * len(shown)
    overview, interactions, conversations, interaction, download, thread = shown
    assert "gemini could not be reached" in overview
    assert "Where is order A-1042?" in interactions
    assert "A thread&#x27;s title" in conversations
    assert "Everything is fine." in interaction
    assert "find_order" in download
    assert "Everything is fine." in thread


def test_a_long_encrypted_text_is_cut_in_a_thread_like_a_plain_one(operator, settings) -> None:
    conversation = ConversationFactory.create()
    for keys in ((), (secrets.token_bytes(32),)):
        settings.TEXT_ENCRYPTION_KEYS = keys
        InteractionFactory.create(
            conversation=conversation,
            organization=conversation.organization,
            prompt="x" * (TURN_LIMIT + 7),
            response="y" * (TURN_LIMIT - 7),
        )
    page = read(operator, reverse("admin:chat_conversation_change", args=[conversation.pk]))
    assert page.count("7 more characters on the interaction's page.") == 2
    assert page.count("more characters") == 2
    assert (page.count("x" * TURN_LIMIT), page.count("y" * (TURN_LIMIT - 7))) == (2, 2)


def test_a_lost_key_shows_placeholders(operator, key, settings) -> None:
    row = exchange()
    settings.TEXT_ENCRYPTION_KEYS = ()
    for page in pages(row)[1:]:
        shown = read(operator, page)
        assert PLACEHOLDER in shown
        assert "enc1:" not in shown


@pytest.mark.parametrize(
    ("path", "word", "with_key", "without_key"),
    [
        (INTERACTIONS, "A-1042", "User, id, request id. Texts are encrypted: no search in them", "Prompt, response,"),
        (CONVERSATIONS, "title", "User, id. Titles are encrypted: no search in them", "Title, user, id"),
    ],
)
def test_the_search_says_that_it_does_not_look_into_encrypted_texts(
    operator, settings, path, word, with_key, without_key
) -> None:
    exchange()
    assert Conversation.objects.count() == 1

    def found() -> int:
        return operator.get(path, {"q": word}).context["cl"].result_count

    assert (found(), without_key in read(operator, path), with_key in read(operator, path)) == (1, True, False)
    settings.TEXT_ENCRYPTION_KEYS = (secrets.token_bytes(32),)
    assert (found(), without_key in read(operator, path), with_key in read(operator, path)) == (0, False, True)
    assert operator.get(path, {"q": "ana"}).context["cl"].result_count == 1
