"""The quick way into the database leaves what the ORM leaves, value by value, and makes the rows that models make."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, DataError, IntegrityError, connection, models, transaction

from accounts.tests.factories import OrganizationFactory
from chat import inserts, rows, storing
from chat.fields import UnreadableText
from chat.models import Attempt, Change, Conversation, Interaction, QuarantinedExchange, Status
from chat.rows import ExchangeRows
from chat.tests.factories import AttemptFactory, ConversationFactory, InteractionFactory
from llmchat.lib.uuid7 import uuid7

pytestmark = pytest.mark.django_db(transaction=True)

MOMENT = dt.datetime(2026, 2, 28, 23, 59, 59, 999_001, tzinfo=dt.UTC)
#: Values of every column that are hard on somebody: a JSON text, a prepared statement, an encryption, a reader.
HARD: dict[str, Any] = {
    "user_id": 'O\'Brien "%s" \\ ☃ \U0001f642',
    "trace_id": "{}[],:%(x)s",
    "request_id": None,
    "created_at": MOMENT.replace(microsecond=0),
    "finished_at": MOMENT.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))),
    "erased_at": None,
    "status": Status.SUCCEEDED,
    "prompt": "line\r\nline\t\\u0041 \u2028 'quoted' ; DROP TABLE chat_interaction; --",
    "system_prompt": "enc1:looks encrypted",
    "response": "enc0:looks plain",
    "reasoning": "",
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "ä ☃ \\ \" '"}], "deep": {"a": [None, True, 1]}}
    ],
    "parameters": {"temperature": 0.1, "big": 2**80, "tiny": 1e-300, "huge": 1e22, "on": True, "none": None},
    "tool_calls": [],
    "metadata": {"": "", "%s": "?"},
    "input_tokens": 2**31 - 1,
    "output_tokens": 0,
    "cached_input_tokens": None,
    "cost": Decimal("12345678.000000000001"),
    "latency_ms": 0.1 + 0.2,
    "provider_latency_ms": None,
    "usage_estimated": True,
}


def stored(model: type[models.Model], identifier: UUID) -> tuple[Any, ...]:
    """The row as the database holds it, JSON and moments as its driver gives them."""
    with connection.cursor() as cursor:
        columns = ", ".join(f'"{field.column}"' for field in model._meta.concrete_fields)
        value = identifier.hex if connection.vendor == "sqlite" else identifier
        cursor.execute(f'SELECT {columns} FROM "{model._meta.db_table}" WHERE id = %s', [value])
        row: tuple[Any, ...] = cursor.fetchone()
        return row


def by_both_ways(row: models.Model) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What the ORM and what the quick way leave of the same row."""
    model = type(row)
    ways: list[Callable[[], object]] = [
        lambda: model._default_manager.bulk_create([row], ignore_conflicts=True),
        lambda: inserts.insert([row]),
    ]
    found = []
    for store in ways:
        with transaction.atomic():
            store()
            found.append(stored(model, row.pk))
            transaction.set_rollback(True)
    return found[0], found[1]


@pytest.mark.parametrize("trait", ["", "failed", "cancelled", "interrupted", "tools", "unpriced", "long", "markup"])
def test_every_kind_of_interaction_is_stored_as_the_orm_stores_it(owner, trait) -> None:
    row = InteractionFactory.build(organization=owner.organization, attempt=None, **({trait: True} if trait else {}))
    ours, theirs = by_both_ways(row)
    assert ours == theirs


def test_hard_values_are_stored_as_the_orm_stores_them(owner) -> None:
    ours, theirs = by_both_ways(InteractionFactory.build(organization=owner.organization, attempt=None, **HARD))
    assert ours == theirs


def test_rows_of_which_only_some_know_a_value_are_stored_together_as_the_orm_stores_them(owner) -> None:
    build = InteractionFactory.build
    batch = [build(organization=owner.organization, attempt=None, **values) for values in ({}, HARD, {"failed": True})]
    with transaction.atomic():
        Interaction.objects.bulk_create(batch)
        theirs = [stored(Interaction, row.pk) for row in batch]
        transaction.set_rollback(True)
    inserts.insert(batch)
    ours = [stored(Interaction, row.pk) for row in batch]
    assert ours == theirs


def test_attempts_and_conversations_are_stored_as_the_orm_stores_them(owner) -> None:
    interaction = InteractionFactory.create(organization=owner.organization, attempt=None)
    for row in (
        AttemptFactory.build(interaction=interaction, price_id=uuid7(), cost=Decimal("1E-12"), upstream_status=429),
        AttemptFactory.build(interaction=interaction, number=2, failed=True, error_message="It's \x7f ☃"),
        ConversationFactory.build(organization=owner.organization, title="enc1:"),
    ):
        ours, theirs = by_both_ways(row)
        assert ours == theirs


def test_with_a_key_every_text_is_encrypted_as_the_orm_encrypts_it(owner, settings) -> None:
    settings.TEXT_ENCRYPTION_KEYS = (secrets.token_bytes(32),)
    # Encrypted, characters that no database takes are as good as any others.
    texts = {**HARD, "cost": None, "prompt": "\x00 \ud800", "messages": [{"role": "user", "content": "\x00 \ud800"}]}
    row = InteractionFactory.build(organization=owner.organization, attempt=None, **texts)
    inserts.insert([row])
    found = Interaction.objects.get()
    assert {name: getattr(found, name) for name in texts} == texts
    ours = dict(
        zip([field.attname for field in Interaction._meta.concrete_fields], stored(Interaction, row.id), strict=True)
    )
    for name in ("prompt", "system_prompt", "response", "messages", "parameters", "metadata"):
        assert ours[name].strip('"').startswith("enc1:"), name
    assert ours["reasoning"] == ""


def test_an_unreadable_text_is_stored_as_it_was(owner) -> None:
    row = InteractionFactory.build(organization=owner.organization, attempt=None, prompt=UnreadableText("enc1:lost"))
    ours, theirs = by_both_ways(row)
    assert ours == theirs
    assert "enc1:lost" in ours


def test_a_row_that_is_there_already_stays_as_it_is(owner) -> None:
    first = InteractionFactory.build(organization=owner.organization, attempt=None, response="first")
    second = InteractionFactory.build(id=first.id, organization=owner.organization, attempt=None, response="second")
    inserts.insert([first])
    inserts.insert([second, InteractionFactory.build(organization=owner.organization, attempt=None)])
    assert Interaction.objects.count() == 2
    assert Interaction.objects.get(id=first.id).response == "first"


def test_rows_of_several_tables_are_stored_together_or_not_at_all(owner) -> None:
    conversation = ConversationFactory.build(organization=owner.organization)
    interaction = InteractionFactory.build(organization=owner.organization, attempt=None)
    attempt = AttemptFactory.build(interaction=interaction)
    bad = AttemptFactory.build(interaction=interaction, number=2, input_tokens=-1)
    batch = ExchangeRows(interaction=interaction, attempts=[attempt, bad], new_conversation=conversation)
    counted = (Conversation, Interaction, Attempt, Change)
    with pytest.raises(DatabaseError):
        rows.store([batch])
    assert [model.objects.count() for model in counted] == [0, 0, 0, 0]
    bad.input_tokens = 1
    rows.store([batch])
    assert [model.objects.count() for model in counted] == [1, 1, 2, 1]
    assert Change.objects.get().minute == interaction.created_at.replace(second=0, microsecond=0)


REFUSED: dict[str, dict[str, Any]] = {
    "a number that is too large": {"cost": Decimal(123456789)},
    "a negative count": {"input_tokens": -1},
    "a missing value": {"user_id": None},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_what_the_database_refuses_is_refused_and_its_neighbours_are_stored(owner, fields) -> None:
    made = [InteractionFactory.build(organization=owner.organization, attempt=None) for _ in range(5)]
    made[2] = InteractionFactory.build(id=made[2].id, organization=owner.organization, attempt=None, **fields)
    with pytest.raises((DataError, IntegrityError, InvalidOperation)):
        inserts.insert(made)
    storing.store_or_quarantine([ExchangeRows(interaction=row, attempts=[]) for row in made])
    assert set(Interaction.objects.values_list("id", flat=True)) == {row.id for row in made if row is not made[2]}
    assert QuarantinedExchange.objects.get().id == made[2].id


def test_an_organization_that_is_not_there_is_refused(owner) -> None:
    row = ConversationFactory.build(organization=OrganizationFactory.build(plan=owner.organization.plan))
    with pytest.raises(DatabaseError), transaction.atomic():
        inserts.insert([row])


@pytest.mark.parametrize(
    ("model", "columns"),
    [
        (Interaction, {"id": uuid7(), "organization_id": uuid7(), "user_id": "u", "parameters": {"a": 1}}),
        (Attempt, {"id": uuid7(), "interaction_id": uuid7(), "number": 1, "started_at": MOMENT}),
        (Conversation, {"id": uuid7(), "created_at": MOMENT, "updated_at": MOMENT}),
    ],
)
def test_a_row_made_the_quick_way_is_as_the_model_makes_it(model: type[models.Model], columns) -> None:
    quick, usual = inserts.new(model, columns), model(**columns)
    assert inserts.columns_of(quick) == inserts.columns_of(usual)
    assert (quick._state.adding, quick._state.db) == (usual._state.adding, usual._state.db)
    assert quick == usual


def test_rows_made_the_quick_way_share_no_lists() -> None:
    one, two = inserts.new(Interaction, {}), inserts.new(Interaction, {})
    one.messages.append("x")
    one.metadata["x"] = "y"
    assert (two.messages, two.metadata) == ([], {})
    assert one.id != two.id
