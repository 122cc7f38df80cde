"""Answers questions from roll-ups: sums by dimensions and time, exact to the last row that is committed.

A range is taken from the longest periods that are rolled up, and what is not yet, from the rows themselves; so the cost
of an answer grows neither with the record nor with what was rolled up long ago. Knows nothing of HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Min, Q, QuerySet, Sum
from django.utils import timezone

from analytics import histogram, rolling, rows
from analytics.models import Cell, Cube, Grain, Period
from analytics.periods import Range, end_of, holds, joined, period, start_of, without
from analytics.totals import COUNTERS, Totals
from chat.models import Change

#: How much time may be read from rows, of what is not rolled up yet, before an answer does without the oldest of it.
UNROLLED_AT_MOST: Final = dt.timedelta(hours=26)

Group = tuple[Any, ...]
"""The start of an interval, None without intervals, and the values of the dimensions asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which requests to add up, from `since` until before `until`, and by what.

    `organization_id`: None for all organizations together. `only`: values of dimensions (or lists of them). `by`: names
    of dimensions. Users have a cube of their own: `user_id` goes with no other dimension, and not with hours.
    """

    organization_id: UUID | None
    since: dt.datetime
    until: dt.datetime
    only: Mapping[str, Any] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    interval: Grain | None = None

    @property
    def cube(self) -> Cube:
        if "user_id" in self.by or "user_id" in self.only:
            return Cube.USER
        return Cube.EVERYTHING if self.organization_id is None else Cube.ORGANIZATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`pending_since`: the oldest minute whose latest changes are not in the answer; None when it is exact."""

    groups: dict[Group, Totals]
    as_of: dt.datetime
    pending_since: dt.datetime | None


def answer(*questions: Question) -> list[Answer]:
    """The answers, all of one moment; the same question is answered once."""
    with _one_moment():
        now = timezone.now()
        found: list[Answer] = []
        for index, question in enumerate(questions):
            before = questions.index(question)
            found.append(found[before] if before < index else _answer(question, now=now))
        return found


def _answer(question: Question, *, now: dt.datetime) -> Answer:
    plan = plan_of(question, now=now)
    groups: dict[Group, Totals] = {}
    for group, totals in (*_from_cells(question, plan), *_from_rows(question, plan)):
        found = groups.get(group)
        if found is None:
            groups[group] = totals
        else:
            found.add(totals)
    return Answer(groups=groups, as_of=now, pending_since=plan.pending_since)


# --- Where a range is taken from -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ranges to take from cells of each grain, and ranges to take from rows; no moment is in two."""

    cells: Mapping[Grain, Sequence[Range]]
    rows: Sequence[Range]
    pending_since: dt.datetime | None


def plan_of(question: Question, *, now: dt.datetime) -> Plan:
    """Where to take the range from: changed periods from rows, others from the longest cells that are whole."""
    changed, pending_since = _changed(question, now)
    whole = [(question.since, question.until)]
    left = without(whole, changed)
    coarsest = question.interval or Grain.MONTH
    from_cells: dict[Grain, list[Range]] = {}
    listed: dict[Grain, list[Range]] = {}
    for grain in (Grain.MONTH, Grain.DAY, Grain.HOUR):
        listed[grain] = _listed(grain, left)
        from_cells[grain] = joined(span for span in listed[grain] if grain <= coarsest and holds(left, span))
        left = without(left, from_cells[grain])
    # Where a listed period is only partly wanted, there may be no shorter cells; months always have their days.
    minutes = without(left, [*listed[Grain.HOUR], *_days_without_hours(listed, question.cube)])
    edges = [edge for span in minutes for edge in _edges(span)]
    from_cells[Grain.MINUTE] = without(minutes, edges)
    from_rows = without(whole, [span for spans in from_cells.values() for span in spans])
    return Plan(cells=from_cells, rows=from_rows, pending_since=pending_since)


def _changed(question: Question, now: dt.datetime) -> tuple[list[Range], dt.datetime | None]:
    """What has changed since it was rolled up, the newest up to UNROLLED_AT_MOST, and since when there is more."""
    notes = Change.objects.filter(minute__lt=question.until)
    if (sealed := rolling.sealed_until()) is not None:
        notes = notes.filter(minute__gte=sealed)
    is_listed = cache(rolling.is_listed)
    spans: list[Range] = []
    room = UNROLLED_AT_MOST
    for minute in notes.order_by("-minute").values_list("minute", flat=True).distinct().iterator():
        if spans and spans[-1][0] <= minute:
            continue
        span = rolling.touched_by(minute, now=now, is_listed=is_listed)
        if span[1] <= question.since:
            # Earlier notes may touch longer periods, but none as long as this.
            if minute < question.since - dt.timedelta(days=1):
                break
            continue
        if room <= dt.timedelta():
            return joined(spans), notes.aggregate(oldest=Min("minute"))["oldest"]
        room -= span[1] - span[0]
        spans.append(span)
    return joined(spans), None


def _listed(grain: Grain, ranges: Sequence[Range]) -> list[Range]:
    """Periods on the list that have any moment in `ranges`, in order."""
    if not ranges:
        return []
    starts = Period.objects.filter(grain=grain, start__gte=start_of(grain, ranges[0][0]), start__lt=ranges[-1][1])
    spans = [period(grain, start) for start in starts.order_by("start").values_list("start", flat=True)]
    return [span for span in spans if any(since < span[1] and span[0] < until for since, until in ranges)]


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


# --- Taking it -------------------------------------------------------------------------------------------------------


def _from_cells(question: Question, plan: Plan) -> Iterator[tuple[Group, Totals]]:
    wanted = Q()
    for grain, ranges in plan.cells.items():
        for since, until in ranges:
            wanted |= Q(grain=grain, start__gte=since, start__lt=until)
    if not wanted:
        return
    found = Cell.objects.filter(wanted, cube=question.cube, organization_id=question.organization_id)
    found = found.filter(_only(question, prefix="dimensions__")).order_by()
    columns = [*(["start"] if question.interval else []), *(f"dimensions__{name}" for name in question.by)]
    yield from _sums(found, columns, question)
    if question.cube is not Cube.USER:
        yield from _histograms(found, columns, question)


def _sums(found: QuerySet[Cell], columns: Sequence[str], question: Question) -> Iterator[tuple[Group, Totals]]:
    sums: dict[str, Any] = {f"sum_{name}": Sum(name) for name in COUNTERS}
    for line in found.values_list(*columns).annotate(**sums).iterator() if columns else [found.aggregate(**sums)]:
        values = tuple(line.values()) if isinstance(line, dict) else line
        totals = Totals.of(values[len(columns) :])
        if totals.requests:
            yield _group(question, values[: len(columns)]), totals


def _histograms(found: QuerySet[Cell], columns: Sequence[str], question: Question) -> Iterator[tuple[Group, Totals]]:
    groups: dict[tuple[Any, ...], Totals] = {}
    for *values, latencies, first_tokens in found.values_list(*columns, "latencies", "first_tokens").iterator():
        totals = groups.setdefault(tuple(values), Totals())
        histogram.add_encoded(totals.latencies, latencies)
        histogram.add_encoded(totals.first_tokens, first_tokens)
    for group, totals in groups.items():
        yield _group(question, group), totals


def _from_rows(question: Question, plan: Plan) -> Iterator[tuple[Group, Totals]]:
    only = _only(question, prefix="")
    if question.organization_id is not None:
        only &= Q(organization_id=question.organization_id)
    add_up = rows.by_user if question.cube is Cube.USER else rows.by_organization
    for since, until in plan.rows:
        for begin, end in _within_intervals(since, until, question.interval):
            for key, totals in add_up(begin, end, only=only).items():
                values = tuple(getattr(key, name) for name in question.by)
                yield _group(question, ((begin, *values) if question.interval else values)), totals


def _within_intervals(since: dt.datetime, until: dt.datetime, interval: Grain | None) -> Iterator[Range]:
    """The range cut where intervals end."""
    while interval is not None and (end := period(interval, since)[1]) < until:
        yield since, end
        since = end
    yield since, until


def _group(question: Question, values: Sequence[Any]) -> Group:
    if question.interval is None:
        return (None, *values)
    return (start_of(question.interval, values[0]), *values[1:])


def _only(question: Question, *, prefix: str) -> Q:
    return Q(
        **{f"{prefix}{name}{'__in' if isinstance(value, list) else ''}": value for name, value in question.only.items()}
    )


@contextmanager
def _one_moment() -> Iterator[None]:
    """On PostgreSQL all that is read within is of one moment, whatever is committed meanwhile. SQLite would keep
    writers out for that: there, a row that comes while the answer is made may be in a part of its figures only."""
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield
