"""Where the parts of a range are taken from: from the longest periods whose cells are whole, and what has changed since
from its rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final
from uuid import UUID

from django.db.models import Min, Q

from analytics import rolling, rows
from analytics.kept import Kept, weight_of_sums
from analytics.models import Cube, Grain, Period, RollUpState
from analytics.periods import Range, end_of, holds, joined, period, start_of, without
from analytics.questions import Answer, Question
from analytics.totals import Table
from chat.models import Change

#: How much time may be read from rows, of what is not rolled up yet, before an answer does without the oldest of it.
UNROLLED_AT_MOST: Final = dt.timedelta(hours=26)

_ROWS: Final[Kept[Table]] = Kept(weight_of_sums)
_LISTED: Final[Kept[Sequence[Range]]] = Kept(len)

Spans = tuple[tuple[Grain, tuple[Range, ...]], ...]
"""Ranges of cells to add up, by their grain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ranges to take from cells of each grain, and ranges to take from rows; no moment is in two."""

    cells: Mapping[Grain, Sequence[Range]]
    rows: Sequence[Range]
    pending_since: dt.datetime | None

    @property
    def closed(self) -> Spans:
        """What is taken from cells of an hour or longer."""
        some = ((grain, tuple(ranges)) for grain, ranges in self.cells.items() if grain is not Grain.MINUTE)
        return tuple((grain, ranges) for grain, ranges in some if ranges)


class Look:
    """What several questions of one moment read alike: what changed, which periods are whole, and rows."""

    def __init__(self, questions: Sequence[Question], *, now: dt.datetime, as_of: dt.datetime | None = None) -> None:
        self._questions, self.now, self.as_of = questions, now, as_of
        state = RollUpState.objects.first()
        self.revision = state.revision if state else None
        self.sealed_until = cache(rolling.sealed_until)
        self.is_listed = cache(rolling.is_listed)
        self.changed = cache(self._changed)
        self.listed = cache(self._listed)
        self.rows_of = cache(self._rows_of)
        self.answered: list[tuple[Question, Answer]] = []

    def cut(self, question: Question) -> Grain | None:
        """By whose ends rows are cut: the shortest interval that is asked for of this range, so that all who ask of it
        read the same rows."""
        spans = (each for each in self._questions if (each.since, each.until) == (question.since, question.until))
        return min((each.interval for each in spans if each.interval is not None), default=None)

    def _listed(self, grain: Grain, ranges: tuple[Range, ...]) -> list[Range]:
        """Periods on the list that have any moment in `ranges`, in order."""
        if not ranges:
            return []
        since, until = start_of(grain, ranges[0][0]), end_of(grain, start_of(grain, ranges[-1][1]))
        spans = _LISTED.get(self.revision, (grain, since, until), lambda: _listed(grain, since, until))
        return [span for span in spans if any(since < span[1] and span[0] < until for since, until in ranges)]

    def _changed(self, since: dt.datetime, until: dt.datetime) -> tuple[list[Range], dt.datetime | None]:
        """What has changed since it was rolled up, the newest up to UNROLLED_AT_MOST, and since when there is more."""
        if self.as_of is not None:
            return [], None
        notes = Change.objects.filter(minute__lt=until)
        if (sealed := self.sealed_until()) is not None:
            notes = notes.filter(minute__gte=sealed)
        spans: list[Range] = []
        room = UNROLLED_AT_MOST
        for minute in notes.order_by("-minute").values_list("minute", flat=True).distinct().iterator():
            if spans and spans[-1][0] <= minute:
                continue
            span = rolling.touched_by(minute, now=self.now, is_listed=self.is_listed)
            if span[1] <= since:
                # Earlier notes may touch longer periods, but none as long as this.
                if minute < since - dt.timedelta(days=1):
                    break
                continue
            if room <= dt.timedelta():
                return joined(spans), notes.aggregate(oldest=Min("minute"))["oldest"]
            room -= span[1] - span[0]
            spans.append(span)
        return joined(spans), None

    def _rows_of(self, cube: Cube, since: dt.datetime, until: dt.datetime, organization_id: UUID | None) -> Table:
        # Where nothing waits to be rolled up, the rows of a closed hour have changed when its cells have.
        is_closed = self.as_of is not None and any(
            begin <= since and until <= end for begin, end in self.listed(Grain.HOUR, ((since, until),))
        )
        where = cube, since, until, organization_id
        return _ROWS.get(self.revision if is_closed else None, where, lambda: _table(*where))


def _table(cube: Cube, since: dt.datetime, until: dt.datetime, organization_id: UUID | None) -> Table:
    """The rows of a range, added up by users or by everything else."""
    only = None if organization_id is None else Q(organization_id=organization_id)
    return (rows.by_user if cube is Cube.USER else rows.by_organization)(since, until, only=only)


def planned(question: Question, look: Look) -> Plan:
    """Where to take the range from: changed periods from rows, others from the longest cells that are whole."""
    changed, pending_since = look.changed(question.since, question.until)
    whole = question.ranges
    left = without(whole, changed)
    coarsest = question.interval or Grain.MONTH
    from_cells: dict[Grain, list[Range]] = {}
    listed: dict[Grain, list[Range]] = {}
    for grain in (Grain.MONTH, Grain.DAY, Grain.HOUR):
        listed[grain] = look.listed(grain, tuple(left))
        from_cells[grain] = joined(span for span in listed[grain] if grain <= coarsest and holds(left, span))
        left = without(left, from_cells[grain])
    # Where a listed period is only partly wanted, there may be no shorter cells; months always have their days.
    minutes = without(left, [*listed[Grain.HOUR], *_days_without_hours(listed, question.cube)])
    edges = [edge for span in minutes for edge in _edges(span)]
    from_cells[Grain.MINUTE] = without(minutes, edges)
    from_rows = without(whole, [span for spans in from_cells.values() for span in spans])
    return Plan(cells=from_cells, rows=from_rows, pending_since=pending_since)


def _listed(grain: Grain, since: dt.datetime, until: dt.datetime) -> list[Range]:
    """Periods on the list, in order."""
    starts = Period.objects.filter(grain=grain, start__gte=since, start__lt=until)
    return [period(grain, start) for start in starts.order_by("start").values_list("start", flat=True)]


def _days_without_hours(listed: Mapping[Grain, Sequence[Range]], cube: Cube) -> list[Range]:
    """Days that have been closed for long have no hours any more, and of users none has."""
    if cube is Cube.USER:
        return list(listed[Grain.DAY])
    with_hours = {start_of(Grain.DAY, since) for since, _ in listed[Grain.HOUR]}
    return [day for day in listed[Grain.DAY] if day[0] not in with_hours]


def _edges(span: Range) -> Iterator[Range]:
    """What is left of a range beside its whole minutes."""
    since, until = span
    first = since if since == start_of(Grain.MINUTE, since) else end_of(Grain.MINUTE, start_of(Grain.MINUTE, since))
    last = start_of(Grain.MINUTE, until)
    if first >= last:
        yield span
        return
    yield since, first
    yield last, until
