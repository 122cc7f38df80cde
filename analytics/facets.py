"""How many requests there are of each status, provider, model, error and organization: the numbers beside the list of
interactions.

Taken from roll-ups, at a cost that does not grow with the record. What roll-ups do not tell apart, such as words and
metadata, is counted among the newest rows that fit, and no more of them than `NEWEST`. Knows nothing of HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from analytics import reading
from analytics.dashboard import Scope
from analytics.models import Grain
from analytics.periods import Range, end_of, start_of
from analytics.rolling import HOURS_KEPT
from analytics.totals import Totals
from chat import selection, walking
from chat.models import Interaction
from chat.selection import PERIODS, Selection

#: Facets: the name of a selection's field, and the dimension's, which is the column's too.
FACETS: Final[Mapping[str, str]] = {
    "status": "status",
    "provider": "provider",
    "model": "model",
    "error": "error_code",
    "organization": "organization_id",
}
#: Filters that roll-ups know by whole values.
_WHOLE: Final[Mapping[str, str]] = {"key": "api_key_id", "plan": "plan", "route": "route_reason", "cached": "cached"}
#: What roll-ups tell of an organization alone; with more than this, each of its cells would be read.
_OF_ORGANIZATIONS: Final = frozenset({"status", "cached"})
#: What is looked at when no time is chosen.
DEFAULT: Final = "month"
#: Rows that are counted one by one where roll-ups cannot tell.
NEWEST: Final = 1_000
#: Ranges of up to so much are counted to the moment; of longer ones, begin and end are rounded to hours or days.
_TO_THE_MOMENT: Final = dt.timedelta(hours=2)

_DAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """`by`: for each facet, the numbers by value. `selection`: what is counted, with the time that was chosen for it.

    From roll-ups, a facet counts what fits everything else that is chosen. `since`, `until`: what was counted over,
    rounded where `is_rounded`; `pending_since`: the oldest minute whose latest changes are missing.

    From rows (`counted`: how many), a facet counts what fits all that is chosen; `has_more`: whether there are more
    rows than those; `looked_to`: the moment back to which was looked, when nobody knows whether there are.
    """

    by: dict[str, Counter[Any]]
    selection: Selection
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    is_rounded: bool = False
    pending_since: dt.datetime | None = None
    counted: int | None = None
    has_more: bool = False
    looked_to: UUID | None = None
    beyond: list[str] = field(default_factory=list)


def count(chosen: Selection, *, organizations: frozenset[UUID] | None, now: dt.datetime) -> Counts:
    """The numbers of what is chosen of these organizations' requests (None: of all).

    Raises `walking.TooSlow`.
    """
    beyond = _beyond(chosen)
    return _among_newest(chosen, organizations, beyond) if beyond else _rolled_up(chosen, organizations, now=now)


def _beyond(chosen: Selection) -> list[str]:
    """What is chosen that roll-ups do not know."""
    known = {*FACETS, *_WHOLE, "period", "since", "until"}
    said = chosen.values()
    return [name for name in said if name not in known or (name in _WHOLE and "*" in str(said[name]))]


# --- From roll-ups ----------------------------------------------------------------------------------------------------
def _rolled_up(chosen: Selection, organizations: frozenset[UUID] | None, *, now: dt.datetime) -> Counts:
    if not (chosen.period or chosen.since or chosen.until):
        chosen = chosen.replace(period=DEFAULT)
    wanted = _range(chosen, now=now)
    since, until = _rounded(wanted, now=now)
    only = {_WHOLE[name]: _value(getattr(chosen, name)) for name in _WHOLE if name in chosen.values()}
    visible = organizations
    if chosen.organization is not None:
        is_visible = visible is None or chosen.organization in visible
        visible = frozenset({chosen.organization} if is_visible else ())
    shared = tuple(dimension for name, dimension in FACETS.items() if name != "organization")
    questions = [Scope(organizations=visible, only=only).question(since, until, by=shared, times=False)]
    if of_organizations := _tells_organizations(chosen, organizations):
        narrowed = {**only, **({"status": list(chosen.status)} if chosen.status else {})}
        scope = Scope(organizations=organizations, only=narrowed)
        questions.append(scope.question(since, until, by=("organization_id",), times=False))
    answers = reading.answer(*questions)
    by = _by_facet(chosen, answers[0].groups)
    if of_organizations:
        by["organization"] = Counter(
            {organization: totals.requests for (_, organization), totals in answers[1].groups.items()}
        )
    return Counts(
        by=by,
        selection=chosen,
        since=since,
        until=until,
        is_rounded=(since, until) != wanted,
        pending_since=min((each.pending_since for each in answers if each.pending_since), default=None),
    )


def _tells_organizations(chosen: Selection, organizations: frozenset[UUID] | None) -> bool:
    """Whether there may be several to tell apart, and a cube that does so with what else is chosen."""
    others = chosen.values().keys() - {"organization", "period", "since", "until"}
    return (organizations is None or len(organizations) > 1) and others <= _OF_ORGANIZATIONS


def _by_facet(chosen: Selection, groups: Mapping[tuple[Any, ...], Totals]) -> dict[str, Counter[Any]]:
    """Each facet with what fits the others."""
    names = [name for name in FACETS if name != "organization"]
    found: dict[str, Counter[Any]] = {name: Counter() for name in names}
    for (_, *values), totals in groups.items():
        misses = [name for name, value in zip(names, values, strict=True) if not _fits(chosen, name, value)]
        for name, value in zip(names, values, strict=True):
            if not set(misses) - {name}:
                found[name][value] += totals.requests
    return found


def _fits(chosen: Selection, name: str, value: str) -> bool:
    if name == "status":
        return not chosen.status or value in chosen.status
    wanted: str = getattr(chosen, name)
    return not wanted or selection.fits(wanted, value)


def _value(value: Any) -> Any:
    return "" if value == selection.NONE else value


def _range(chosen: Selection, *, now: dt.datetime) -> Range:
    """What is asked for; without an end until now, and without a beginning as long as `DEFAULT`."""
    since, until = chosen.bounds(now=now)
    until = now if until is None else min(until, now)
    return since or until - PERIODS[DEFAULT][1], until


def _rounded(wanted: Range, *, now: dt.datetime) -> Range:
    """Outwards to what is rolled up: a part of an hour, or long ago of a day, would have to be read from its rows."""
    since, until = wanted
    if until - since <= _TO_THE_MOMENT:
        return since, max(since, until)
    return _floor(since, now=now), min(now, _ceiling(until, now=now))


def _floor(moment: dt.datetime, *, now: dt.datetime) -> dt.datetime:
    return start_of(_grain(moment, now=now), moment)


def _ceiling(moment: dt.datetime, *, now: dt.datetime) -> dt.datetime:
    grain = _grain(moment, now=now)
    start = start_of(grain, moment)
    return start if start == moment else end_of(grain, start)


def _grain(moment: dt.datetime, *, now: dt.datetime) -> Grain:
    return Grain.HOUR if moment > now - HOURS_KEPT + _DAY else Grain.DAY


# --- From rows --------------------------------------------------------------------------------------------------------
def _among_newest(chosen: Selection, organizations: frozenset[UUID] | None, beyond: list[str]) -> Counts:
    rows = Interaction.objects.all()
    if organizations is not None:
        rows = rows.filter(organization_id__in=list(organizations))
    rows, narrowed = walking.by_identifier(rows, chosen)
    page = walking.page(rows.only(*FACETS.values()), narrowed, organizations=organizations, limit=NEWEST)
    return Counts(
        by={
            name: Counter(getattr(row, column) for row in page.rows)
            for name, column in FACETS.items()
            if name != "organization" or organizations is None or len(organizations) > 1
        },
        selection=chosen,
        counted=len(page.rows),
        has_more=page.has_more,
        looked_to=page.looked_to,
        beyond=beyond,
    )
