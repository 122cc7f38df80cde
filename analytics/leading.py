"""The users with the most, from cells: who they are by one counter, then all that is counted of these alone.

There are as many cells of users as all others together: an index holds what finds the few (`cell_of_users`). A few by
requests are found without reading even that: who is among the first of all is among the first of some period, or the
sum of what each period's last told one has would reach him (the threshold of Fagin, Lotem, Naor: "Optimal aggregation
algorithms for middleware", 2001, without random access).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from heapq import nlargest
from operator import attrgetter, or_
from typing import Any, Final, Protocol
from uuid import UUID

from django.db import connection
from django.db.models import Q, QuerySet

from analytics import cells, summing
from analytics.kept import Kept
from analytics.models import Cell, Cube, Dimensions, Grain
from analytics.periods import Range, end_of
from analytics.summing import Wanted
from analytics.totals import Key, Totals

Spans = Mapping[Grain, Sequence[Range]]
#: So many are looked for by their first places, and of each period so many places are read.
_FEW: Final = 64
_PLACES: Final = 128
#: So many more are kept than are asked for: who comes after these has to have asked much lately to reach the first.
_SPARE: Final = 56
#: As many queries as SQLite takes in one, and some to spare.
_PERIODS: Final = 400

Leaders = Mapping[UUID, tuple[tuple[Any, ...], Totals]]
"""The group and what it has, by the id of its dimensions."""

_LEADERS: Final[Kept[Leaders]] = Kept(lambda leaders: 8 * len(leaders))


class Asked(Protocol):
    """A question that tells each user; see `analytics.questions.Question`."""

    @property
    def organization_id(self) -> UUID | None: ...
    @property
    def only(self) -> Mapping[str, Any]: ...
    @property
    def by(self) -> tuple[str, ...]: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def top(self) -> str: ...
    @property
    def asked(self) -> tuple[Hashable, ...]: ...


def users(
    asked: Asked, spans: Spans, others: Collection[tuple[Any, ...]], revision: UUID | None
) -> Iterator[tuple[tuple[Any, ...], Totals]]:
    """What the cells of `spans` have of the users with the most, and of `others`, groups that have something elsewhere.
    `revision`: of the cells; see `analytics.kept`.

    Whoever is among the first of all is among these: among the first of closed periods, which are kept, or somebody who
    has asked in one of the minutes since, or one of `others`.
    """
    closed: Spans = {grain: tuple(ranges) for grain, ranges in _some(spans) if grain is not Grain.MINUTE}
    minutes = spans.get(Grain.MINUTE)
    kept_by = (*asked.asked, asked.top, asked.limit, tuple(closed.items()))
    leaders = _LEADERS.get(revision, kept_by, lambda: _leaders(asked, closed)) if closed else {}
    lately = _lately(asked, minutes) if minutes else {}
    known = {_user(asked, group).id for group in others}
    more = _summed(asked, closed, (known | _reaching(asked, leaders, lately)) - set(leaders), lately)
    for identifier, (group, totals) in (*leaders.items(), *more.items()):
        told = totals.copy()
        if identifier in lately:
            told.add(lately[identifier], times=False)
        yield (None, *group), told


def _lately(asked: Asked, minutes: Sequence[Range]) -> dict[UUID, Totals]:
    """Counters by user, of all who have asked in these minutes."""
    wanted = Wanted(
        cube=Cube.USER, spans=[(Grain.MINUTE, minutes)], organization_id=asked.organization_id, only=asked.only
    )
    return {identifier: totals for (identifier,), totals in summing.sums(wanted, ["dimensions_id"])}


def _leaders(asked: Asked, closed: Spans) -> Leaders:
    return _summed(asked, closed, set(_most(asked, closed, count=(asked.limit or 0) + _SPARE)), {})


def _reaching(asked: Asked, leaders: Leaders, lately: Mapping[UUID, Totals]) -> set[UUID]:
    """Who may be among the first by what he has lately, if he has as much before as the last of the leaders."""
    limit, top = asked.limit or 0, attrgetter(asked.top)
    before = {identifier: top(totals) for identifier, (_, totals) in leaders.items()}
    if len(before) < limit + _SPARE:
        return set(lately)
    most = nlargest(limit + _SPARE, before.values())[-1]
    sums = (
        counted + (top(lately[identifier]) if identifier in lately else 0) for identifier, counted in before.items()
    )
    needed = nlargest(limit, sums)[-1]
    return {identifier for identifier, totals in lately.items() if most + top(totals) >= needed}


def _summed(asked: Asked, closed: Spans, wanted: Collection[UUID], others: Collection[UUID]) -> Leaders:
    """What the users `wanted` have in closed periods, if there is any of them there or in `others`."""
    sums: dict[UUID, Totals] = {}
    for found in _of(closed, wanted) if wanted else ():
        for identifier, totals in _totals(found).items():
            sums.setdefault(identifier, Totals()).add(totals, times=False)
    there = [identifier for identifier in wanted if identifier in sums or identifier in others]
    groups = {identifier: tuple(values) for identifier, *values in _dimensions(there, asked.by)}
    return {identifier: (group, sums.get(identifier, Totals())) for identifier, group in groups.items()}


def _dimensions(identifiers: Sequence[UUID], names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    return Dimensions.objects.filter(id__in=identifiers).values_list("id", *names) if identifiers else ()


def _totals(found: QuerySet[Cell]) -> dict[UUID, Totals]:
    """Counters by user."""
    sums = found.values_list("dimensions_id").annotate(**cells.SUMS)
    return {identifier: Totals.of(counted) for identifier, *counted in sums}


def _user(asked: Asked, group: tuple[Any, ...]) -> Key:
    values = dict(zip(asked.by, group[1:], strict=True))
    return Key(Cube.USER, **{"organization_id": asked.organization_id, **values})


def _most(asked: Asked, spans: Spans, *, count: int) -> list[UUID]:
    """The ids of the dimensions with the most in closed periods, and perhaps of more."""
    if asked.top == "requests" and count <= _FEW and asked.organization_id is None and not asked.only:
        found = _by_places(spans, count=count)
        if found is not None:
            return found
    return _by_sums(asked, spans, count=count)


def _by_places(spans: Spans, *, count: int) -> list[UUID] | None:
    """Those who may be among the first `count`, from the first places of each period; None when that does not tell."""
    periods = [(grain, start) for grain, ranges in _some(spans) for span in ranges for start in _starts(grain, span)]
    if len(periods) > _PERIODS:
        return None
    #: What is known of each user, and what else he may have at most, in the periods where he has no place. Ids are
    #: texts: there are thousands of places, and a UUID is slow to make and to look up.
    least: dict[str, int] = {}
    placed: dict[str, int] = {}
    beyond = 0
    for places in _places(periods):
        last = places[-1][1] if len(places) == _PLACES else 0
        beyond += last
        for user, requests in places:
            least[user] = least.get(user, 0) + requests
            placed[user] = placed.get(user, 0) + last
    needed = nlargest(count, least.values())[-1] if len(least) >= count else 0
    if beyond and beyond >= needed:
        return None
    return [UUID(user) for user, requests in least.items() if requests + beyond - placed.get(user, 0) >= needed]


def _places(periods: Sequence[tuple[Grain, dt.datetime]]) -> Iterator[list[tuple[str, int]]]:
    """The first places of each period that has any, by requests: ids of dimensions, in hexadecimal digits."""
    if not periods:
        return
    adapted = connection.ops.adapt_datetimefield_value
    # SQLite keeps them so.
    user = "replace(dimensions_id::text, '-', '')" if connection.vendor == "postgresql" else "dimensions_id"
    sql = " UNION ALL ".join(
        f"SELECT * FROM (SELECT {number} AS period, {user} AS named, requests FROM analytics_cell "  # noqa: S608 - numbers
        f"WHERE cube = {Cube.USER:d} AND grain = {grain:d} AND start = %s "
        f"ORDER BY requests DESC LIMIT {_PLACES}) AS of_{number}"
        for number, (grain, _) in enumerate(periods)
    )
    found: dict[int, list[tuple[str, int]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(sql, [adapted(start) for _, start in periods])
        for period, *place in cursor.fetchall():
            found.setdefault(period, []).append((place[0], place[1]))
    for places in found.values():
        yield sorted(places, key=lambda place: -place[1])


def _id(found: Any) -> UUID:
    """SQLite keeps them as texts."""
    return found if isinstance(found, UUID) else UUID(found)


def _by_sums(asked: Asked, spans: Spans, *, count: int) -> list[UUID]:
    """Added up by the database over all periods, from an index alone."""
    # Each range by itself: several together are found by the index, but then read from the table.
    parts = [
        _cells(asked, grain, [span]).values_list("dimensions_id", asked.top)
        for grain, ranges in _some(spans)
        for span in ranges
    ]
    union = parts[0].union(*parts[1:], all=True) if len(parts) > 1 else parts[0]
    sql, parameters = union.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH found (id, counted) AS ({sql}) "  # noqa: S608 - the ORM's own
            "SELECT id FROM found GROUP BY id ORDER BY sum(counted) DESC, id LIMIT %s",
            [*parameters, count],
        )
        return [_id(found) for (found,) in cursor.fetchall()]


def _of(closed: Spans, wanted: Collection[UUID]) -> Iterator[QuerySet[Cell]]:
    """Their cells, each looked up by its start."""
    for grain, ranges in _some(closed):
        starts = [start for span in ranges for start in _starts(grain, span)]
        yield Cell.objects.filter(
            cube=Cube.USER, grain=grain, start__in=starts, dimensions_id__in=list(wanted)
        ).order_by()


def _cells(asked: Asked, grain: Grain, ranges: Sequence[Range]) -> QuerySet[Cell]:
    within = reduce(or_, (Q(start__gte=since, start__lt=until) for since, until in ranges))
    found = Cell.objects.filter(within, cube=Cube.USER, grain=grain, **cells.that_are(asked.only)).order_by()
    return found if asked.organization_id is None else found.filter(organization_id=asked.organization_id)


def _some(spans: Spans) -> Iterator[tuple[Grain, Sequence[Range]]]:
    return ((grain, ranges) for grain, ranges in spans.items() if ranges)


def _starts(grain: Grain, span: Range) -> Iterator[dt.datetime]:
    start, until = span
    while start < until:
        yield start
        start = end_of(grain, start)
