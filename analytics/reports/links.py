"""The way from a figure to the very rows: addresses of the admin's list of interactions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.urls import reverse

from analytics.reports.asking import Asked
from analytics.reports.ranges import Span
from chat.selection import NONE, Selection

#: What a selection calls the roll-ups' dimensions.
_NAMES: Final = {
    "organization_id": "organization",
    "api_key_id": "key",
    "user_id": "user",
    "provider": "provider",
    "model": "model",
    "plan": "plan",
    "status": "status",
    "error_code": "error",
    "route_reason": "route",
    "cached": "cached",
}
#: Of these a selection can say that there is none.
_MAY_BE_NONE: Final = frozenset({"provider", "model", "error_code", "route_reason"})


def rows_of(asked: Asked, values: Mapping[str, Any] | None = None, *, span: Span | None = None) -> str:
    """The interactions of this question, narrowed to values of further dimensions (to a list of statuses)."""
    within = span or asked.span
    narrowed = {**asked.only, **(values or {})}
    if asked.organization_id is not None:
        narrowed["organization_id"] = asked.organization_id
    said: dict[str, Any] = {
        _NAMES[dimension]: NONE if value == "" and dimension in _MAY_BE_NONE else value
        for dimension, value in narrowed.items()
        if dimension != "status"
    }
    statuses = narrowed.get("status", ())
    selection = Selection(
        since=within.since,
        until=within.until,
        status=tuple(statuses) if isinstance(statuses, list | tuple) else (str(statuses),),
        **said,
    )
    return f"{reverse('admin:chat_interaction_changelist')}?{selection.parameters()}"
