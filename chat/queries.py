"""Reading an organization's own record: filters and keyset pages for the history endpoints."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet

from chat.models import Conversation, Interaction
from llmchat.lib.uuid7 import floor_at

#: Long or internal columns that no answer shows.
_UNSHOWN = ("system_prompt", "messages", "parameters", "reasoning")

Row = TypeVar("Row", bound=Model)

#: How many interactions a conversation is shown with.
THREAD_LENGTH = 100


def interactions(organization_id: UUID, *, filters: dict[str, Any]) -> QuerySet[Interaction]:
    """The organization's interactions, newest first, narrowed by the fields of `InteractionFilterSerializer`."""
    rows = Interaction.objects.filter(organization_id=organization_id).order_by("-id")
    columns = {
        "userId": "user_id",
        "conversationId": "conversation_id",
        "model": "model",
        "status": "status",
        "requestId": "request_id",
    }
    rows = rows.filter(**{column: filters[name] for name, column in columns.items() if name in filters})
    if "since" in filters:
        rows = rows.filter(id__gte=floor_at(filters["since"]))
    if "until" in filters:
        rows = rows.filter(id__lt=floor_at(filters["until"]))
    return rows.defer(*_UNSHOWN)


def conversations(organization_id: UUID, *, filters: dict[str, Any]) -> QuerySet[Conversation]:
    """The organization's conversations, newest first."""
    rows = Conversation.objects.filter(organization_id=organization_id).order_by("-id")
    return rows.filter(user_id=filters["userId"]) if "userId" in filters else rows


def thread(conversation: Conversation) -> list[Interaction]:
    """The newest interactions of a conversation, oldest first."""
    newest = conversation.interactions.defer(*_UNSHOWN).order_by("-id")[:THREAD_LENGTH]
    return list(reversed(newest))


def page(rows: QuerySet[Row], *, cursor: UUID | None, limit: int) -> tuple[list[Row], UUID | None]:
    """`limit` rows after `cursor` in falling order of id, and the cursor of the next page if there is one. The cost
    does not grow with the page's depth: the id is the position."""
    if cursor is not None:
        rows = rows.filter(id__lt=cursor)
    found = list(rows[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None
