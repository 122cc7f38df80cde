"""`manage.py encrypt_texts`: from plain to encrypted, from key to key, and back."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import TextField
from django.db.models.functions import Cast

from chat import rotation
from chat.encryption import ring
from chat.fields import PLACEHOLDER
from chat.models import Attempt, Conversation, Interaction
from chat.tests.factories import ConversationFactory, InteractionFactory

pytestmark = pytest.mark.django_db(transaction=True)

KEY, OLDER = secrets.token_bytes(32), secrets.token_bytes(32)
COLUMNS: dict[Any, tuple[str, ...]] = {
    Conversation: ("title",),
    Interaction: ("prompt", "response", "messages", "parameters", "tool_calls", "error_message"),
    Attempt: ("error_message",),
}


@pytest.fixture
def keys(settings: Any) -> Callable[..., None]:
    def use(*ring: bytes) -> None:
        settings.TEXT_ENCRYPTION_KEYS = ring

    return use


def run(*arguments: str) -> str:
    said = StringIO()
    call_command("encrypt_texts", *arguments, stderr=said, no_color=True)
    return said.getvalue()


def everything() -> list[Any]:
    return [list(model.objects.order_by("pk").values_list(*columns)) for model, columns in COLUMNS.items()]


def marks() -> set[str]:
    """How the columns' values begin, as far as that tells their key; of empty ones, nothing."""
    found = set()
    for model, columns in COLUMNS.items():
        raw = {f"raw_{name}": Cast(name, TextField()) for name in columns}
        for row in model.objects.annotate(**raw).values_list(*raw):
            values = (value.lstrip('"') for value in row if value not in ("", "[]", "{}"))
            found |= {value[:14] if value.startswith("enc1:") else "plain" for value in values}
    return found


def fill(count: int = 1) -> None:
    for _ in range(count):
        ConversationFactory.create()
        InteractionFactory.create(tools=True)
        InteractionFactory.create(failed=True)


def test_plain_rows_are_encrypted_and_read_the_same(keys) -> None:
    fill()
    before = everything()
    keys(KEY)
    said = run()
    assert marks() != {"plain"}
    assert len(marks()) == 1
    assert everything() == before
    assert "interactions: 2 encrypted." in said
    assert "conversations: 1 encrypted." in said
    assert "attempts: 1 encrypted." in said


def test_rows_under_an_older_key_get_the_newest(keys) -> None:
    keys(OLDER)
    fill()
    before, old = everything(), marks()
    keys(KEY, OLDER)
    run()
    keys(KEY)
    assert everything() == before
    assert len(marks()) == 1
    assert marks() != old


def test_a_second_run_finds_nothing_to_do(keys) -> None:
    fill()
    keys(KEY)
    run()
    assert "interactions: 0 encrypted." in run()


def test_a_run_that_was_ended_goes_on_where_it_stopped(keys, monkeypatch) -> None:
    monkeypatch.setattr(rotation, "BATCH", 2)
    fill(3)
    before = everything()
    keys(KEY)
    steps = rotation.rekey(Interaction, opening=ring())
    assert next(steps).changed == 2
    steps.close()
    assert "interactions: 4 encrypted." in run()
    assert everything() == before
    assert len(marks()) == 1


def test_a_dry_run_counts_and_changes_nothing(keys) -> None:
    fill()
    keys(KEY)
    said = run("--dry-run")
    assert "interactions: 2 would be encrypted." in said
    assert marks() == {"plain"}


def test_switched_off_all_is_decrypted_with_the_keys_named(keys, tmp_path: Path) -> None:
    fill()
    InteractionFactory.create(prompt="enc1:looks encrypted")
    before = everything()
    keys(KEY, OLDER)
    run()
    keys()
    assert Interaction.objects.first().prompt == PLACEHOLDER
    file = tmp_path / "keys"
    file.write_text(f"{base64.urlsafe_b64encode(KEY).decode()}\n")
    said = run("--decrypt-with", str(file))
    assert "interactions: 3 decrypted." in said
    assert everything() == before
    assert marks() == {"plain"}
    assert "interactions: 0 decrypted." in run("--decrypt-with", str(file))


def test_a_row_that_no_key_opens_stays_and_is_reported(keys) -> None:
    keys(OLDER)
    lost = InteractionFactory.create(attempt=None)
    keys(KEY)
    InteractionFactory.create(attempt=None)
    with pytest.raises(CommandError, match="No key opens texts of 1 row; they stay"):
        run()
    keys(OLDER)
    assert Interaction.objects.get(pk=lost.pk).prompt == lost.prompt


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read: No such file or directory"),
        ("c2hvcnQ=", "key number 1 is not 32 bytes in base64"),
    ],
)
def test_keys_that_cannot_be_had_are_an_error_in_words(tmp_path: Path, content, complaint) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CommandError, match=complaint):
        run("--decrypt-with", str(file))


def test_without_any_key_there_is_nothing_to_do() -> None:
    with pytest.raises(CommandError, match="TEXT_ENCRYPTION_KEYS is empty"):
        run()
