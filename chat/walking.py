"""Pages of the record by id, newest first, at a cost that has a bound however large the record is and however rare what
is looked for.

Conditions that no index serves are asked of so many rows and no more; a page tells how far it has looked, and the next
one goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.db.models import Q, QuerySet

from chat import search_index
from chat.models import Interaction
from chat.selection import Selection, is_ours

#: Rows looked at in the first step; each next one looks at `GROWTH` times as many.
STEP: Final = 1_000
GROWTH: Final = 3
#: Rows looked at for one page.
MOST: Final = 60_000
#: Seconds after which no further step begins, and after which a statement is ended, on PostgreSQL.
PATIENCE: Final = 0.15
STATEMENT_SECONDS: Final = 2

#: Before every id: `after` it begins the record.
FIRST: Final = UUID(int=0)


class TooSlow(Exception):
    """The database has not found a page in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Rows in falling order of id. `has_more`: in the direction walked. `looked_to`: the last id looked at when it is
    not known whether more would follow; None when it is."""

    rows: list[Interaction]
    has_more: bool
    looked_to: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """From where and in which direction. `position`: the id behind which to begin; None: at the end."""

    position: UUID | None
    is_rising: bool

    @property
    def order(self) -> str:
        return "id" if self.is_rising else "-id"

    def beyond(self, position: UUID | None) -> Q:
        return Q() if position is None else Q(**{f"id__{'gt' if self.is_rising else 'lt'}": position})

    def up_to(self, edge: UUID | None) -> Q:
        return Q() if edge is None else Q(**{f"id__{'lte' if self.is_rising else 'gte'}": edge})


def page(
    rows: QuerySet[Interaction],
    chosen: Selection,
    *,
    organizations: Iterable[UUID] | None = None,
    before: UUID | None = None,
    after: UUID | None = None,
    limit: int = 50,
    are_all: bool = False,
) -> Page:
    """The page of `rows` that fit: the newest, or those next to `before` or `after`.

    `organizations`: those whose rows may be seen; None: all. `are_all`: whether `rows` leaves out none of an
    organization's rows that may be seen, so that an index may tell which come first. Raises `TooSlow`.
    """
    way = _Way(position=after or before, is_rising=after is not None)
    # Each by itself: together they have no index in the order of time.
    parts = [
        chosen.replace(organization=pk)
        for pk in organizations or ()
        if chosen.organization is None or chosen.organization == pk
    ]
    pages = [
        _page(rows, part, way, limit, are_all=are_all) for part in (parts if organizations is not None else [chosen])
    ]
    found = sorted((row for page in pages for row in page.rows), key=lambda row: row.pk, reverse=not way.is_rising)
    edges = [page.looked_to for page in pages if page.looked_to is not None]
    # What lies beyond where one of them has stopped is not known to be next.
    edge = (min if way.is_rising else max)(edges) if edges else None
    if edge is not None:
        found = [row for row in found if (row.pk <= edge if way.is_rising else row.pk >= edge)]
    shown = found[:limit]
    has_more = len(found) > limit or (edge is None and any(page.has_more for page in pages))
    return Page(rows=shown[::-1] if way.is_rising else shown, has_more=has_more, looked_to=None if has_more else edge)


def by_identifier(rows: QuerySet[Interaction], chosen: Selection) -> tuple[QuerySet[Interaction], Selection]:
    """What is searched for as a UUID is an id: of a row, of a conversation or of a request. No text is read for it.
    `rows`: those that may be seen."""
    text = chosen.q
    try:
        identifier = UUID(text)
    except ValueError:
        return rows, chosen
    rest = chosen.replace(q="")
    for condition in (Q(pk=identifier), Q(conversation_id=identifier), Q(request_id=text)):
        if rows.filter(condition).exists():
            return rows.filter(condition), rest
    return rows, rest.replace(trace=str(identifier) if is_ours(str(identifier)) else text)


def _page(rows: QuerySet[Interaction], chosen: Selection, way: _Way, limit: int, *, are_all: bool) -> Page:
    narrowed = rows.filter(chosen.by_index()).order_by(way.order)
    found: list[Interaction] = []
    begun = time.monotonic()
    edge: UUID | None = None
    with _in_time():
        for condition, edge in _steps(narrowed, chosen, way, limit, are_all=are_all):
            found += narrowed.filter(condition)[: limit + 1 - len(found)]
            if len(found) > limit:
                return Page(rows=found[:limit], has_more=True)
            if edge is not None and time.monotonic() - begun > PATIENCE:
                break
    return Page(rows=found, has_more=False, looked_to=edge)


def _steps(
    narrowed: QuerySet[Interaction], chosen: Selection, way: _Way, limit: int, *, are_all: bool
) -> Iterator[tuple[Q, UUID | None]]:
    """What to ask for, one after the other, and the last id that is then looked at; None when that is all of them."""
    if search_index.serves(chosen) and search_index.is_ready():
        test = chosen.replace(q="").by_row() & search_index.still_fits(chosen)
        for identifiers, edge in search_index.steps(chosen, position=way.position, is_rising=way.is_rising):
            yield test & Q(id__in=identifiers), edge
        return
    test = chosen.by_row()
    position = way.position
    if not test:
        latest = _latest_of_organization(chosen, way) if are_all else None
        yield way.beyond(position) if latest is None else Q(id__in=list(latest[: limit + 1])), None
        return
    step, looked = STEP, 0
    while True:
        latest = _latest_of_organization(chosen, replace(way, position=position)) if are_all else None
        ahead = narrowed.filter(way.beyond(position)).values_list("id", flat=True) if latest is None else latest
        edge = next(iter(ahead[step - 1 : step]), None)
        yield test & way.beyond(position) & way.up_to(edge), edge
        looked += step
        if edge is None or looked >= MOST:
            return
        position, step = edge, min(step * GROWTH, MOST - looked)


def _latest_of_organization(chosen: Selection, way: _Way) -> QuerySet[Interaction, UUID] | None:
    """Ids of an organization's rows from the newest on, by its own index; None when something else is asked for.

    The planner takes an organization for a share of every moment, and would walk through all that another one has just
    asked. A range from it to itself says the same as equality, and leaves it no other index in that order.
    """
    others = (chosen.user, chosen.conversation, chosen.request, chosen.trace, chosen.bounds()[1])
    if chosen.organization is None or way.position is not None or way.is_rising or any(others):
        return None
    whole = Q(organization_id__gte=chosen.organization, organization_id__lte=chosen.organization)
    rows = Interaction.objects.filter(chosen.replace(organization=None).by_index(), whole)
    return rows.order_by("organization_id", "-id").values_list("id", flat=True)


@contextmanager
def _in_time() -> Iterator[None]:
    if connection.vendor != "postgresql":
        yield
        return
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'")
            yield
            with connection.cursor() as cursor:
                # Of a transaction around this one, it would be the rest's too.
                cursor.execute("SET LOCAL statement_timeout TO DEFAULT")
    except OperationalError as error:
        if "statement timeout" not in str(error):
            raise
        raise TooSlow from error
