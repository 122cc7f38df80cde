"""Texts at rest: encrypted in every column that holds any, read back whole, and no error when their key is lost."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import F, JSONField, TextField, Value
from django.db.models.functions import Cast
from django.test.utils import CaptureQueriesContext

from chat.encryption import seal, unseal
from chat.fields import PLACEHOLDER, is_readable, length_of, start_of
from chat.journal import Journal, fetch, read
from chat.models import Attempt, Conversation, Interaction
from chat.tests.factories import ConversationFactory, InteractionFactory
from llmchat.lib.encryption import Undecryptable
from llmchat.lib.uuid7 import uuid7

pytestmark = pytest.mark.django_db(transaction=True)

KEY, OLDER = secrets.token_bytes(32), secrets.token_bytes(32)

TEXTS: dict[str, Any] = {
    "prompt": "Where is café №1? 🙂\x00",
    "system_prompt": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Where? \x00 \ud800"}]}],
    "parameters": {"temperature": 0.2, "tools": [{"type": "function", "function": {"name": "find_order"}}]},
    "response": "enc1:here",
    "reasoning": "Think.",
    "tool_calls": [{"id": "call_1", "function": {"name": "find_order", "arguments": "{}"}}],
    "metadata": {"shop": "Lisbon"},
    "error_message": "It said: Where?",
}


def stored(model: Any = Interaction) -> dict[str, str]:
    """The one row's texts as the columns hold them."""
    names = [name for name in (*TEXTS, "title") if name in {field.name for field in model._meta.fields}]
    raw = {f"raw_{name}": Cast(name, TextField()) for name in names}
    row = model.objects.annotate(**raw).values(*raw).get()
    return {name: row[f"raw_{name}"] for name in names}


@pytest.fixture
def keys(settings: Any) -> Callable[..., None]:
    def use(*ring: bytes) -> None:
        settings.TEXT_ENCRYPTION_KEYS = ring

    return use


def test_every_text_is_encrypted_in_its_column_and_plain_in_its_row(keys) -> None:
    keys(KEY)
    InteractionFactory.create(**TEXTS)
    row = Interaction.objects.get()
    assert {name: getattr(row, name) for name in TEXTS} == TEXTS
    assert [value.lstrip('"')[:5] for value in stored().values()] == ["enc1:"] * len(TEXTS)


def test_each_value_has_its_own_nonce(keys) -> None:
    keys(KEY)
    assert len({seal(b"the same") for _ in range(100)}) == 100


def test_empty_texts_stay_empty(keys) -> None:
    keys(KEY)
    InteractionFactory.create(prompt="", response="", messages=[], tool_calls=[], metadata={}, parameters={})
    assert stored() == {
        **dict.fromkeys(("prompt", "system_prompt", "response", "reasoning", "error_message"), ""),
        **dict.fromkeys(("messages", "tool_calls"), "[]"),
        **dict.fromkeys(("metadata", "parameters"), "{}"),
    }


def test_titles_and_errors_of_attempts_are_encrypted(keys) -> None:
    keys(KEY)
    ConversationFactory.create(title="T" * 80)
    InteractionFactory.create(failed=True)
    assert stored(Conversation)["title"].startswith("enc1:")
    assert stored(Attempt)["error_message"].startswith("enc1:")
    assert Conversation.objects.get().title == "T" * 80
    assert Attempt.objects.get().error_message == "Connection refused."


def test_plain_rows_from_before_are_read_as_they_are(keys) -> None:
    texts = {**TEXTS, "prompt": "Where?", "messages": []}  # what PostgreSQL takes in plain
    InteractionFactory.create(**texts)
    keys(KEY)
    row = Interaction.objects.get()
    assert {name: getattr(row, name) for name in TEXTS} == texts


@pytest.mark.parametrize("text", ["enc1:", "enc1:00000000:AAAA", "enc0:enc1:", "enc0:"])
def test_a_plain_text_that_looks_encrypted_stays_what_it_was(keys, text) -> None:
    InteractionFactory.create(prompt=text)
    assert Interaction.objects.get().prompt == text
    keys(KEY)
    assert Interaction.objects.get().prompt == text


def test_an_update_encrypts_too(keys) -> None:
    keys(KEY)
    InteractionFactory.create()
    Interaction.objects.update(prompt="Changed", messages=[{"role": "user", "content": "Changed"}])
    assert Interaction.objects.get().prompt == "Changed"
    assert stored()["prompt"].startswith("enc1:")
    assert stored()["messages"].startswith('"enc1:')
    row = Interaction.objects.get()
    row.prompt = "Again"
    Interaction.objects.bulk_update([row], ["prompt"])
    assert stored()["prompt"].startswith("enc1:")
    assert Interaction.objects.get().prompt == "Again"


def test_the_older_key_still_opens_and_the_newest_encrypts(keys) -> None:
    keys(OLDER)
    InteractionFactory.create(prompt="Old")
    old = stored()["prompt"]
    keys(KEY, OLDER)
    assert Interaction.objects.get().prompt == "Old"
    Interaction.objects.update(prompt="New")
    keys(KEY)
    assert Interaction.objects.get().prompt == "New"
    assert stored()["prompt"][:14] != old[:14]


@pytest.mark.parametrize("ring", [(), (OLDER,)], ids=["no key", "another key"])
def test_a_lost_key_leaves_placeholders_that_are_never_stored(keys, ring) -> None:
    keys(KEY)
    InteractionFactory.create(**TEXTS)
    before = stored()
    keys(*ring)
    row = Interaction.objects.get()
    assert {name: getattr(row, name) for name in TEXTS} == {
        **dict.fromkeys(("prompt", "system_prompt", "response", "reasoning", "error_message"), PLACEHOLDER),
        **{name: [{"role": "unreadable", "content": PLACEHOLDER}] for name in ("messages", "tool_calls")},
        **{name: {"unreadable": PLACEHOLDER} for name in ("metadata", "parameters")},
    }
    assert not any(is_readable(getattr(row, name)) for name in TEXTS)
    row.save()
    assert stored() == before


def test_a_damaged_value_is_a_placeholder(keys) -> None:
    keys(KEY)
    InteractionFactory.create(prompt="Where?")
    value = stored()["prompt"]
    for damaged in (value[:-4], value[:-1], "enc1:", value[:20] + ("A" if value[20] != "A" else "B") + value[21:]):
        Interaction.objects.update(prompt=Value(damaged, output_field=TextField()))
        assert Interaction.objects.get().prompt == PLACEHOLDER
    Interaction.objects.update(messages=Value("enc1:broken", output_field=JSONField()))
    assert not is_readable(Interaction.objects.get().messages)


def test_the_beginning_of_a_text_is_plain_whether_it_was_encrypted_or_not(keys) -> None:
    InteractionFactory.create(prompt="0123456789")
    keys(KEY)
    InteractionFactory.create(prompt="abcdefghij")
    rows = Interaction.objects.order_by("id").annotate(start=start_of("prompt", 4), length=length_of("prompt"))
    assert [(row.start[:4], row.length) for row in rows] == [("0123", 10), ("abcd", None)]


def test_bytes_are_sealed_without_line_breaks_and_open_again(keys) -> None:
    data = b'{"prompt": "Where?"}'
    assert seal(data) == data
    assert unseal(data) == data
    keys(KEY)
    sealed = seal(data)
    assert data not in sealed
    assert not set(sealed) & set(b" \r\n")
    assert unseal(sealed) == data
    assert unseal(data) == data
    keys(OLDER)
    with pytest.raises(Undecryptable):
        unseal(sealed)


async def test_an_exchange_is_stored_encrypted_and_carried_on(owner, caller, keys, sent) -> None:
    keys(KEY)
    person = caller(owner.raw)
    begun = (await person.chat("Where is it?", model="simulated/echo", systemPrompt="Be brief.")).json()
    await person.chat("And now?", model="simulated/echo", conversationId=begun["conversationId"])
    assert [message.text for message in sent[-1].messages] == [
        "Be brief.",
        "Where is it?",
        "Where is it?",
        "And now?",
    ]
    history = (await person.get("/v1/interactions")).json()["data"]
    assert [row["prompt"] for row in history] == ["And now?", "Where is it?"]
    raw = [value async for value in Interaction.objects.values_list(Cast(F("prompt"), TextField()), flat=True)]
    assert all(value.startswith("enc1:") for value in raw)


async def test_a_lost_key_ends_a_conversations_history_and_nothing_else(owner, caller, keys, sent) -> None:
    keys(KEY)
    person = caller(owner.raw)
    begun = (await person.chat("Where is it?", systemPrompt="Be brief.")).json()
    keys(OLDER)
    response = await person.chat("And now?", conversationId=begun["conversationId"])
    assert response.status_code == 200
    assert [message.text for message in sent[-1].messages] == ["And now?"]
    for path in ("/v1/interactions", "/v1/conversations", f"/v1/conversations/{begun['conversationId']}"):
        answer = await person.get(path)
        assert answer.status_code == 200
        assert PLACEHOLDER in answer.content.decode()


def test_the_database_never_sees_the_text(keys) -> None:
    keys(KEY)
    with CaptureQueriesContext(connection) as captured:
        InteractionFactory.create(**TEXTS, attempt=None)
    [insert] = [query["sql"] for query in captured if '"chat_interaction"' in query["sql"]]
    assert insert.count("enc1:") == len(TEXTS)
    assert not [text for text in ("find_order", "Be brief", "café", "Lisbon") if text in insert]


def test_the_journal_is_encrypted_and_a_lost_key_is_told_as_damage(keys, tmp_path: Path) -> None:
    keys(KEY)
    journal = Journal(tmp_path, max_bytes=10**6)
    exchange = uuid7()
    place = journal.end(exchange, {"prompt": "Where is it?"})
    assert b"Where" not in place.path.read_bytes()
    assert fetch(place).facts == {"prompt": "Where is it?"}
    keys(OLDER)
    complaints: list[str] = []
    assert list(read(place.path, on_damage=complaints.append)) == []
    assert [complaint.rpartition(": ")[2] for complaint in complaints] == ["no key that is there opens it"]
    journal.settle([exchange])
    journal.close()
