"""Asks a recorded question again, of another model: through the same pipeline as any call of the organization, with its
plan, limits and prices, and on record as an interaction of its own that says what it repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from asgiref.sync import async_to_sync

from accounts.errors import OrganizationInactive
from accounts.models import Organization
from accounts.principals import PlanLimits, Principal
from chat.calls import Call
from chat.fields import is_readable
from chat.models import Interaction
from chat.serializers import as_message
from llmchat.lib import request_id
from llmchat.lib.envelope import APIError
from providers.values import Message

#: The keys of the metadata that tell where an interaction came from.
OF, BY = "run_again_of", "run_again_by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`interaction_id`: the row of the repetition; `problem`: why it has no answer, in words."""

    interaction_id: UUID
    problem: str = ""


class NotOnRecord(Exception):
    """The question is not on record as it was asked."""


_KEY: Final = "again-{}"


def may_be_run(row: Interaction) -> bool:
    """Whether all that was asked is on record. What a conversation's history added is not part of it."""
    texts = (row.prompt, row.system_prompt, row.messages, row.parameters)
    return bool(row.prompt or row.messages) and all(is_readable(text) for text in texts)


def run_again(row: Interaction, *, model: str, by: str, token: UUID) -> Outcome:
    """Asks `model` what `row` asked, without its conversation, and waits for the answer. `by`: who wants to know.
    The same `token` never asks twice.

    Raises `NotOnRecord`, and `APIError` for what was refused before anything was spent; of both there is no row.
    """
    if not may_be_run(row):
        raise NotOnRecord
    call = Call(
        principal=_principal(row.organization),
        endpoint=row.endpoint,
        user_id=row.user_id,
        messages=_messages(row),
        model=model,
        parameters=row.parameters,
        request_id=_KEY.format(token),
        metadata={OF: str(row.pk), BY: by[:150]},
        trace_id=request_id.current(),
    )
    return async_to_sync(_ask)(call)


async def _ask(call: Call) -> Outcome:
    # Not earlier: the admin is imported before `serve` has said where counting is done, and the engine counts.
    from chat import engine

    reading = await engine.accept(call)
    try:
        interaction = await reading.whole()
    except APIError as error:
        return Outcome(interaction_id=reading.interaction.id, problem=error.message)
    return Outcome(interaction_id=interaction.id)


def _messages(row: Interaction) -> list[Message]:
    if row.messages:
        return [as_message(message) for message in row.messages]
    system = [Message(role="system", content=row.system_prompt)] if row.system_prompt else []
    return [*system, Message(role="user", content=row.prompt)]


def _principal(organization: Organization) -> Principal:
    """The organization itself, without a key."""
    if not organization.is_active:
        raise OrganizationInactive
    return Principal(
        organization_id=organization.pk,
        organization_name=organization.name,
        api_key_id=None,
        key_name="",
        scopes=frozenset({"chat"}),
        plan=PlanLimits.of(organization.plan),
        keeps_prompts=organization.keeps_prompts,
        keeps_responses=organization.keeps_responses,
    )
