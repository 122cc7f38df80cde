"""What somebody asks of the dashboard, read from the address and held against what the person may see."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.http import HttpRequest, QueryDict
from django.utils.dateparse import parse_date

from accounts.scoping import scope_of
from analytics import spans
from analytics.dashboard import Scope
from analytics.spans import Span, SpanRefused
from chat.selection import NONE, Selection, SelectionError, parse

#: What may be filtered by: the name of a selection's field, and the dimension's.
FILTERS: Final[Mapping[str, str]] = {
    "model": "model",
    "provider": "provider",
    "plan": "plan",
    "status": "status",
    "error": "error_code",
    "cached": "cached",
    "key": "api_key_id",
}
ORGANIZATION: Final = "organization"
#: Instead of a preset's name: the days `from` and `to`.
CUSTOM: Final = "custom"


class Refused(ValueError):
    """What was asked cannot be shown; the text says why, and what to do, in words for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`period` is a preset's name or CUSTOM, then with `first` and `last`."""

    period: str
    first: dt.date | None
    last: dt.date | None
    span: Span
    selection: Selection
    scope: Scope

    @property
    def parameters(self) -> dict[str, Any]:
        """As in the address."""
        if self.period == CUSTOM:
            return {"period": CUSTOM, "from": self.first, "to": self.last, **self.selection.values()}
        return {"period": self.period, **self.selection.values()}


def read(request: HttpRequest, *, now: dt.datetime) -> Asked:
    """Raises Refused."""
    period, first, last = _period(request.GET)
    try:
        selection = parse(dict(request.GET.lists()), names=(ORGANIZATION, *FILTERS))
        span = spans.days(first, last, now=now) if first and last else spans.latest(period, now=now)
    except (SelectionError, SpanRefused) as error:
        raise Refused(str(error)) from error
    scope = Scope(organizations=_organizations(request, selection), only=_dimensions(selection))
    return Asked(period=period, first=first, last=last, span=span, selection=selection, scope=scope)


def _period(asked: QueryDict) -> tuple[str, dt.date | None, dt.date | None]:
    period = asked.get("period", "") or spans.DEFAULT
    if period in spans.PRESETS:
        return period, None, None
    if period != CUSTOM:
        raise Refused(f"There is no period “{period[:60]}”. Choose one of {', '.join((*spans.PRESETS, CUSTOM))}.")
    return period, _day(asked, "from", "first"), _day(asked, "to", "last")


def _day(asked: QueryDict, name: str, which: str) -> dt.date:
    text = asked.get(name, "")
    try:
        day = parse_date(text)
    except ValueError:
        day = None
    if day is None:
        said = f"“{text[:60]}” is no day." if text else f"A range of your own needs its {which} day."
        raise Refused(f"{said} Give one such as 2026-05-31 in “{name}”.")
    return day


def _organizations(request: HttpRequest, selection: Selection) -> frozenset[UUID] | None:
    visible = scope_of(request)
    if selection.organization is None:
        return visible
    if visible is not None and selection.organization not in visible:
        # The same words as for one that does not exist.
        name = request.GET.get(ORGANIZATION, "").strip()
        raise Refused(f"There is no organization “{name[:60]}”. Give its name or its id.")
    return frozenset({selection.organization})


def _dimensions(selection: Selection) -> dict[str, Any]:
    """The filters as values of dimensions."""
    found: dict[str, Any] = {}
    for name, dimension in FILTERS.items():
        value = getattr(selection, name)
        if value in (None, "", ()):
            continue
        if isinstance(value, str) and "*" in value:
            raise Refused(f"The dashboard counts by whole names: give one without * in “{name}”.")
        found[dimension] = list(value) if isinstance(value, tuple) else "" if value == NONE else value
    return found
