"""Where the dashboard's figures lead: to the rows that they count, and to the dashboard itself with other filters.

Built here alone, from `chat.selection`, which the list of interactions reads.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from analytics.admin.asking import Asked
from chat.selection import NONE, Selection


def _list() -> str:
    return reverse("admin:chat_interaction_changelist")


@dataclass(frozen=True, slots=True)
class Links:
    """From what is looked at."""

    asked: Asked
    #: Looked up once, for a page has a hundred links.
    _list: str = field(default_factory=_list)

    def rows(self, *, since: dt.datetime | None = None, until: dt.datetime | None = None, **narrower: Any) -> str:
        """The list of the very interactions: of the whole range or a part of it, with the same filters and more."""
        span = self.asked.span
        wanted = self.asked.selection.replace(since=since or span.since, until=until or span.until, **_named(narrower))
        return f"{self._list}?{wanted.parameters()}"

    def narrowed(self, **changes: Any) -> str:
        """The dashboard of the same range with other filters; None takes one away."""
        kept = {name: value for name, value in self.asked.parameters.items() if name not in changes}
        added = Selection(**_named({name: value for name, value in changes.items() if value is not None}))
        return dashboard({**kept, **added.values()})

    def period(self, name: str) -> str:
        """The dashboard of another range with the same filters."""
        return dashboard({"period": name, **self.asked.selection.values()})


def rows(wanted: Selection) -> str:
    """The list of the interactions that are wanted."""
    return f"{_list()}?{wanted.parameters()}"


def dashboard(parameters: dict[str, Any]) -> str:
    return f"{reverse('admin:index')}?{urlencode(parameters, doseq=True)}"


def _named(changes: dict[str, Any]) -> dict[str, Any]:
    """What has no name is asked for by a sign of its own."""
    return {name: NONE if value == "" else value for name, value in changes.items()}
