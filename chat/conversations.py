"""Threads: finding a caller's conversation and carrying its history into the next prompt."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chat.fields import is_readable
from chat.models import Conversation, Interaction, Status
from llmchat.lib.envelope import APIError
from llmchat.lib.frozen import dataclass
from llmchat.lib.threads import in_thread
from llmchat.lib.uuid7 import uuid7
from providers.values import Message

#: How many earlier exchanges are looked at; far more than fit into most context windows.
MAX_TURNS = 100
#: Tokens kept free for the answer when the caller does not limit it, at most a quarter of the window.
ANSWER_RESERVE = 1024
TITLE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation as the engine needs it. `is_new`: it is not stored yet and comes with the first interaction."""

    conversation: Conversation
    is_new: bool
    history: Sequence[Message] = ()
    system_prompt: str = ""


def begin(*, organization_id: UUID, user_id: str, title: str) -> Thread:
    """A new conversation, to be stored together with its first interaction. Of `title`, the beginning is taken."""
    title = " ".join(title.split())[:TITLE_LENGTH]
    return Thread(Conversation(id=uuid7(), organization_id=organization_id, user_id=user_id, title=title), is_new=True)


async def resume(*, organization_id: UUID, user_id: str, conversation_id: UUID) -> Thread:
    """The stored conversation with its history, oldest message first.

    Raises a 404 for a conversation that is not this organization's and user's: whether it exists is not told.
    """
    return await in_thread(_resume, organization_id, user_id, conversation_id)


def _resume(organization_id: UUID, user_id: str, conversation_id: UUID) -> Thread:
    conversation = Conversation.objects.filter(
        id=conversation_id, organization_id=organization_id, user_id=user_id
    ).first()
    if conversation is None:
        raise APIError(
            "There is no such conversation for this user. Leave conversationId out to begin one.",
            status=404,
            code="conversation_not_found",
            param="conversationId",
        )
    newest_first = list(
        Interaction.objects.filter(conversation=conversation, status=Status.SUCCEEDED)
        .order_by("-id")
        .values_list("prompt", "response", "system_prompt")[:MAX_TURNS]
    )
    history: list[Message] = []
    for prompt, response, _ in reversed(newest_first):
        # What is not on record cannot be carried on, and half an exchange would mislead the model.
        if _is_on_record(prompt) and _is_on_record(response):
            history += (Message(role="user", content=prompt), Message(role="assistant", content=response))
    system_prompt = newest_first[0][2] if newest_first and _is_on_record(newest_first[0][2]) else ""
    return Thread(conversation, is_new=False, history=history, system_prompt=system_prompt)


def _is_on_record(text: str) -> bool:
    return bool(text) and is_readable(text)


def within_window(
    *, history: Sequence[Message], own: Sequence[Message], context_window: int | None, max_tokens: int | None
) -> Sequence[Message]:
    """The newest part of `history` that fits into the model's context window together with the caller's `own` messages
    and the answer. Whole exchanges are dropped, oldest first; an unknown window keeps everything."""
    if context_window is None or not history:
        return history
    reserve = max_tokens if max_tokens is not None else min(ANSWER_RESERVE, context_window // 4)
    room = context_window - reserve - sum(map(estimated_tokens, own))
    kept = 0
    for start in range(len(history) - 2, -1, -2):
        room -= estimated_tokens(history[start]) + estimated_tokens(history[start + 1])
        if room < 0:
            break
        kept += 2
    return history[len(history) - kept :]


def estimated_tokens(message: Message) -> int:
    """A cautious guess without a tokenizer: three bytes a token, and a few for the message's frame."""
    return len(message.text.encode()) // 3 + 8
