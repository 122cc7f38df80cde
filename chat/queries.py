"""Reading an organization's own record: filters and keyset pages for the history endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet

from chat import walking
from chat.models import Conversation, Interaction
from chat.selection import Selection
from chat.walking import Page

#: Long or internal columns that no answer shows.
_UNSHOWN = ("system_prompt", "messages", "parameters", "reasoning")

#: Query parameters and the fields of a selection that mean the same.
_FIELDS: Final[Mapping[str, str]] = {
    "userId": "user",
    "conversationId": "conversation",
    "model": "model",
    "requestId": "request",
    "since": "since",
    "until": "until",
    "search": "q",
}

Row = TypeVar("Row", bound=Model)

#: How many interactions a conversation is shown with.
THREAD_LENGTH = 100


def interactions(organization_id: UUID, *, filters: dict[str, Any]) -> Page:
    """A page of the organization's interactions, newest first, narrowed by the fields of `InteractionFilterSerializer`.

    Raises `walking.TooSlow`.
    """
    own = Interaction.objects.filter(organization_id=organization_id).defer(*_UNSHOWN)
    given = {field: filters[name] for name, field in _FIELDS.items() if name in filters}
    status = (filters["status"],) if "status" in filters else ()
    chosen = Selection(organization=organization_id, status=status, **given)
    rows, chosen = walking.by_identifier(own, chosen)
    return walking.page(rows, chosen, before=filters.get("cursor"), limit=filters["limit"], are_all=rows is own)


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
