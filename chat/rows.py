"""What an exchange leaves: its rows as one value, as JSON facts for the journal and back, and how rows are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from django.db import transaction
from django.db.models import DateTimeField, Model, Value
from django.db.models.functions import Greatest

from chat import changes, inserts
from chat.models import Attempt, Conversation, Interaction, Status
from chat.privacy import erased
from llmchat.lib.frozen import dataclass

Row = TypeVar("Row", bound=Model)

INTERRUPTED_CODE = "interrupted"
_INTERRUPTED_MESSAGE = "The server process ended before the answer did. What is not known of it stays empty."


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRows:
    """An interaction, its attempts, and its conversation if that is not stored yet. A stored conversation is only
    touched: its `updated_at` moves on."""

    interaction: Interaction
    attempts: Sequence[Attempt]
    new_conversation: Conversation | None = None

    @property
    def id(self) -> UUID:
        return self.interaction.id


def as_facts(rows: ExchangeRows) -> dict[str, Any]:
    """The rows as values that JSON can hold."""
    facts: dict[str, Any] = {
        "interaction": _columns(rows.interaction),
        "attempts": [_columns(attempt) for attempt in rows.attempts],
    }
    if rows.new_conversation is not None:
        facts["conversation"] = _columns(rows.new_conversation)
    return facts


def from_facts(facts: Mapping[str, Any]) -> ExchangeRows:
    """The rows of which `as_facts` made these. Raises KeyError, TypeError, ValueError or ValidationError for others."""
    conversation = facts.get("conversation")
    return ExchangeRows(
        interaction=_row(Interaction, facts["interaction"]),
        attempts=[_row(Attempt, attempt) for attempt in facts["attempts"]],
        new_conversation=_row(Conversation, conversation) if conversation else None,
    )


def interrupted(facts: Mapping[str, Any]) -> ExchangeRows:
    """The rows of an exchange that began with these facts and whose process died before its end."""
    rows = from_facts(facts)
    row = rows.interaction
    row.status = Status.INTERRUPTED
    row.error_type, row.error_code, row.error_message = "server_error", INTERRUPTED_CODE, _INTERRUPTED_MESSAGE
    if rows.attempts:
        row.provider = rows.attempts[-1].provider
        routes = [(attempt.provider, attempt.model) for attempt in rows.attempts]
        row.fallback = len(set(routes)) > 1
        row.retries = len(routes) - len(set(routes))
    return rows


def store(batch: Sequence[ExchangeRows]) -> None:
    """Stores all rows of the batch in one transaction; what is stored already stays as it is. What belongs to a
    conversation that was deleted meanwhile lands without texts, as its siblings are.

    Raises Django's DatabaseError, or what a value that no column can hold makes of itself.
    """
    begun = []
    for rows in batch:
        if rows.new_conversation is not None:
            # It may have been made a moment before the interaction that it came with.
            rows.new_conversation.updated_at = max(rows.new_conversation.updated_at, rows.interaction.created_at)
            begun.append(rows.new_conversation)
    touched = _touched(batch)
    if not touched:
        inserts.insert(begun, *_tables(batch))
        return
    with transaction.atomic():
        inserts.insert(begun)
        inserts.insert(*_tables(_without_deleted(batch, touched)))


def _tables(batch: Sequence[ExchangeRows]) -> tuple[Sequence[Model], ...]:
    """The rows by their tables, with the notes that they have changed."""
    return (
        [rows.interaction for rows in batch],
        [attempt for rows in batch for attempt in rows.attempts],
        changes.notes_of(rows.id for rows in batch),
    )


def _without_deleted(batch: Sequence[ExchangeRows], touched: Mapping[UUID, datetime]) -> Sequence[ExchangeRows]:
    """Touches the conversations that go on, and erases what belongs to those that are there no more.

    The touched rows stay locked until the end of the transaction: `services.delete_conversation` takes the same lock
    first, and so either sees the new rows or is seen here.
    """
    deleted = set()
    for conversation_id, moment in touched.items():
        later = Greatest("updated_at", Value(moment, output_field=DateTimeField()))
        if not Conversation.objects.filter(id=conversation_id).update(updated_at=later):
            deleted.add(conversation_id)
    if not deleted:
        return batch
    return [_erased(rows) if rows.interaction.conversation_id in deleted else rows for rows in batch]


def _erased(rows: ExchangeRows) -> ExchangeRows:
    interaction, attempts = erased(rows.interaction, rows.attempts)
    return ExchangeRows(interaction=interaction, attempts=attempts)


def _touched(batch: Iterable[ExchangeRows]) -> dict[UUID, datetime]:
    """Stored conversations that go on in this batch, with the latest moment of each."""
    latest: dict[UUID, datetime] = {}
    for rows in batch:
        row = rows.interaction
        if row.conversation_id is not None and rows.new_conversation is None:
            latest[row.conversation_id] = max(row.created_at, latest.get(row.conversation_id, row.created_at))
    # In one order everywhere, so that two processes never wait for each other's rows.
    return dict(sorted(latest.items()))


def _columns(row: Model) -> dict[str, Any]:
    columns = inserts.columns_of(row)
    # orjson writes UUIDs and datetimes by itself.
    if isinstance(cost := columns.get("cost"), Decimal):
        columns["cost"] = str(cost)
    return columns


def _row(model: type[Row], columns: Mapping[str, Any]) -> Row:
    """Columns that the model no longer has are left out; those that it has gained take their default."""
    known = {field.attname: field for field in model._meta.concrete_fields}
    return model(
        **{name: known[name].to_python(value) for name, value in columns.items() if name in known},
    )
