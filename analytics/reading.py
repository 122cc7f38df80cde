"""Answers questions from roll-ups: sums by dimensions and time, exact to the last row that is committed.

A range is taken from the longest periods that are rolled up, and what is not yet, from the rows themselves; so the cost
of an answer grows neither with the record nor with what was rolled up long ago. Knows nothing of HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Min, Q
from django.utils import timezone

from analytics import histogram, leading, planning, rolling, rows, summing
from analytics.kept import Kept, weight_of_sums
from analytics.models import Cube, Grain, Period, RollUpState
from analytics.periods import Range, end_of, holds, joined, period, start_of, without
from analytics.summing import Wanted
from analytics.totals import COUNTERS, DIMENSIONS, Table, Totals
from chat.changes import MINUTE
from chat.models import Change

#: How much time may be read from rows, of what is not rolled up yet, before an answer does without the oldest of it.
UNROLLED_AT_MOST: Final = dt.timedelta(hours=26)

#: By how much an answer may be behind the latest row that is taken from roll-ups alone; see `whole_until`.
BEHIND_AT_MOST: Final = dt.timedelta(seconds=15)

_SUMS: Final[Kept[Mapping[tuple[Any, ...], Totals]]] = Kept(weight_of_sums)
_ROWS: Final[Kept[Table]] = Kept(weight_of_sums)
_LISTED: Final[Kept[Sequence[Range]]] = Kept(len)
#: Groups that are told apart without asking what it costs.
_FEW: Final = 300

Spans = tuple[tuple[Grain, tuple[Range, ...]], ...]
"""Ranges of cells to add up, by their grain."""

Group = tuple[Any, ...]
"""The start of an interval, None without intervals, and the values of the dimensions asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which requests to add up, from `since` until before `until`, and by what.

    `organization_id`: None for all organizations together. `only`: values of dimensions (or lists of them). `by`: names
    of dimensions. Users have a cube of their own: `user_id` goes with no other dimension but `organization_id`, and not
    with hours. `limit`: that many groups with the most of the counter `top`, without intervals; the answer's `rest` is
    what all others add up to. `times`: whether histograms are wanted, which cost more than all counters together;
    `counters`: False when nothing else is, and counters may be 0.
    `within`: parts of the range, in order and apart, when not all of it is asked for.
    """

    organization_id: UUID | None
    since: dt.datetime
    until: dt.datetime
    only: Mapping[str, Any] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    interval: Grain | None = None
    limit: int | None = None
    top: str = "requests"
    times: bool = True
    counters: bool = True
    within: tuple[Range, ...] = ()

    @property
    def ranges(self) -> list[Range]:
        return list(self.within) or [(self.since, self.until)]

    @property
    def cube(self) -> Cube:
        asked = {*self.by, *self.only, *(["organization_id"] if self.organization_id else [])}
        for cube, dimensions in DIMENSIONS.items():
            if asked <= dimensions:
                return cube
        raise ValueError(f"No cube tells {', '.join(sorted(asked))} apart together.")

    @property
    def asked(self) -> tuple[Hashable, ...]:
        """What is asked, whatever the range."""
        only = ((name, tuple(value) if isinstance(value, list) else value) for name, value in self.only.items())
        return self.cube, self.organization_id, frozenset(only), self.by, self.interval, self.times, self.counters

    @property
    def tells_each_user(self) -> bool:
        """Whether the users with the most are asked for, each by itself: there may be as many as requests."""
        whose = {*self.by, *(["organization_id"] if self.organization_id else [])}
        if self.limit is None or self.interval is not None or self.top not in COUNTERS:
            return False
        return whose == {"organization_id", "user_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`as_of`: what was committed before is counted. `pending_since`: the oldest minute whose latest changes are not in
    the answer; None when there are none of before `as_of`. `rest`: with a limit, all that is not told by groups."""

    groups: dict[Group, Totals]
    as_of: dt.datetime
    pending_since: dt.datetime | None
    rest: Totals | None = None


def whole_until(now: dt.datetime) -> dt.datetime | None:
    """The moment before which everything is rolled up, if it is just past and nothing but the last minutes has changed
    since. Else what has changed has to be read from its rows: it is little, or somebody has just changed what was."""
    state = RollUpState.objects.first()
    moment = state.whole_until if state else None
    if moment is None or not dt.timedelta() <= now - moment <= BEHIND_AT_MOST:
        return None
    latest = start_of(Grain.MINUTE, moment - MINUTE)
    return None if Change.objects.filter(minute__lt=latest).exists() else moment


def answer(*questions: Question, now: dt.datetime | None = None, as_of: dt.datetime | None = None) -> list[Answer]:
    """The answers, all of one moment; the same question is answered once, and rows are read once for all.

    With `as_of`, which `whole_until` has told, nothing that has changed since is looked for: under load the rows of the
    minute that is running are the most expensive part of an answer.
    """
    with _one_moment():
        look = _Look(questions, now=now or timezone.now(), as_of=as_of)
        found: dict[int, Answer] = {}
        # Those of each user last: what all requests add up to may be known by then.
        for index in sorted(range(len(questions)), key=lambda index: questions[index].tells_each_user):
            before = questions.index(questions[index])
            found[index] = found[before] if before in found else _answer(questions[index], look)
            look.answered.append((questions[index], found[index]))
        return [found[index] for index in range(len(questions))]


def _answer(question: Question, look: _Look) -> Answer:
    plan = _plan(question, look)
    from_rows = _added(_from_rows(question, plan, look))
    if question.tells_each_user and len(from_rows) <= _FEW:
        groups = _added([*from_rows.items(), *leading.users(question, plan.cells, from_rows, look.revision)])
        told, _ = _top(groups, question)
        others = _whole(question, look).without(told.values())
        # The cells of users do not count them.
        others.attempts = 0
        rest: Totals | None = others
    else:
        told, rest = _top(_added([*_from_cells(question, plan, look), *from_rows.items()]), question)
    return Answer(groups=told, as_of=look.as_of or look.now, pending_since=plan.pending_since, rest=rest)


def _whole(question: Question, look: _Look) -> Totals:
    """The counters of all requests that the question is about, from what has been answered if that tells."""
    asked = question.organization_id, question.only, question.ranges
    for other, answer in look.answered:
        if other.limit is None and other.counters and asked == (other.organization_id, other.only, other.ranges):
            groups: Iterable[Totals] = answer.groups.values()
            break
    else:
        groups = _answer(replace(question, by=(), limit=None, times=False), look).groups.values()
    whole = Totals()
    for totals in groups:
        whole.add(totals, times=False)
    return whole


def _added(found: Iterable[tuple[Group, Totals]]) -> dict[Group, Totals]:
    groups: dict[Group, Totals] = {}
    for group, totals in found:
        known = groups.get(group)
        if known is None:
            groups[group] = totals
        else:
            known.add(totals)
    return groups


def _top(groups: dict[Group, Totals], question: Question) -> tuple[dict[Group, Totals], Totals | None]:
    """The groups that were asked for, the largest first, and the sum of the others."""
    if question.limit is None:
        return groups, None
    ordered = sorted(groups.items(), key=lambda pair: (-getattr(pair[1], question.top), str(pair[0])))
    rest = Totals()
    for _, totals in ordered[question.limit :]:
        rest.add(totals)
    return dict(ordered[: question.limit]), rest


# --- Where a range is taken from -------------------------------------------------------------------------------------


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


class _Look:
    """What several questions of one moment read alike: what changed, which periods are whole, and rows."""

    def __init__(self, questions: Sequence[Question], *, now: dt.datetime, as_of: dt.datetime | None = None) -> None:
        self._questions, self.now, self.as_of = questions, now, as_of
        state = RollUpState.objects.first()
        self.revision = state.revision if state else None
        self.sealed_until = cache(rolling.sealed_until)
        self.is_listed = cache(rolling.is_listed)
        self.changed = cache(self._changed)
        self.rows_of = cache(self._rows_of)
        self.answered: list[tuple[Question, Answer]] = []

    def cut(self, question: Question) -> Grain | None:
        """By whose ends rows are cut: the shortest interval that is asked for of this range, so that all who ask of it
        read the same rows."""
        spans = (each for each in self._questions if (each.since, each.until) == (question.since, question.until))
        return min((each.interval for each in spans if each.interval is not None), default=None)

    def listed(self, grain: Grain, ranges: Sequence[Range]) -> list[Range]:
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
            begin <= since and until <= end for begin, end in self.listed(Grain.HOUR, [(since, until)])
        )
        where = cube, since, until, organization_id
        return _ROWS.get(self.revision if is_closed else None, where, lambda: _table(*where))


def _table(cube: Cube, since: dt.datetime, until: dt.datetime, organization_id: UUID | None) -> Table:
    """The rows of a range, added up by users or by everything else."""
    only = None if organization_id is None else Q(organization_id=organization_id)
    return (rows.by_user if cube is Cube.USER else rows.by_organization)(since, until, only=only)


def plan_of(question: Question, *, now: dt.datetime) -> Plan:
    """Where to take the range from: changed periods from rows, others from the longest cells that are whole."""
    return _plan(question, _Look([question], now=now))


def _plan(question: Question, look: _Look) -> Plan:
    changed, pending_since = look.changed(question.since, question.until)
    whole = question.ranges
    left = without(whole, changed)
    coarsest = question.interval or Grain.MONTH
    from_cells: dict[Grain, list[Range]] = {}
    listed: dict[Grain, list[Range]] = {}
    for grain in (Grain.MONTH, Grain.DAY, Grain.HOUR):
        listed[grain] = look.listed(grain, left)
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


# --- Taking it -------------------------------------------------------------------------------------------------------


def _from_cells(question: Question, plan: Plan, look: _Look) -> Iterator[tuple[Group, Totals]]:
    closed, minutes = plan.closed, plan.cells[Grain.MINUTE]
    if closed and question.cube is Cube.USER:
        # There may be as many users as requests: these are neither kept nor added up twice.
        yield from _read(question, closed)
    elif closed:
        sums = _SUMS.get(look.revision, (*question.asked, closed), lambda: _added(_read(question, closed)))
        yield from ((group, totals.copy()) for group, totals in sums.items())
    if minutes:
        yield from _read(question, ((Grain.MINUTE, tuple(minutes)),))


def _read(question: Question, spans: Spans) -> Iterator[tuple[Group, Totals]]:
    wanted = Wanted(cube=question.cube, spans=spans, organization_id=question.organization_id, only=question.only)
    columns = [*(["start"] if question.interval else []), *question.by]
    # There may be as many users as requests. All else is told apart by little.
    sums = summing.sums(wanted, columns, are_many=question.cube is Cube.USER) if question.counters else ()
    for values, totals in sums:
        yield _group(question, values), totals
    if question.times and question.cube is not Cube.USER:
        yield from _histograms(question, wanted, columns)


def _histograms(question: Question, wanted: Wanted, columns: Sequence[str]) -> Iterator[tuple[Group, Totals]]:
    groups: dict[tuple[Any, ...], Totals] = {}
    for values, latencies, first_tokens in summing.histograms(wanted, columns):
        totals = groups.setdefault(values, Totals())
        histogram.add_encoded(totals.latencies, latencies)
        histogram.add_encoded(totals.first_tokens, first_tokens)
    for group, totals in groups.items():
        yield _group(question, group), totals


def _from_rows(question: Question, plan: Plan, look: _Look) -> Iterator[tuple[Group, Totals]]:
    cube = Cube.USER if question.cube is Cube.USER else Cube.ORGANIZATION
    wanted = {name: value if isinstance(value, list) else [value] for name, value in question.only.items()}
    for since, until in plan.rows:
        for begin, end in _within_intervals(since, until, look.cut(question)):
            groups: dict[tuple[Any, ...], Totals] = {}
            for key, totals in look.rows_of(cube, begin, end, question.organization_id).items():
                if any(getattr(key, name) not in values for name, values in wanted.items()):
                    continue
                values = tuple(getattr(key, name) for name in question.by)
                groups.setdefault(values, Totals()).add(totals, times=question.times)
            for values, totals in groups.items():
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


@contextmanager
def _one_moment() -> Iterator[None]:
    """On PostgreSQL all that is read within is of one moment, whatever is committed meanwhile. SQLite would keep
    writers out for that: there, a row that comes while the answer is made may be in a part of its figures only."""
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; {planning.FOR_SUMS}")
        yield
