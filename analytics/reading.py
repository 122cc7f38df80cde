"""Answers questions from roll-ups: sums by dimensions and time, exact to the last row that is committed.

A range is taken from the longest periods that are rolled up, and what is not yet, from the rows themselves; so the cost
of an answer grows neither with the record nor with what was rolled up long ago. Knows nothing of HTTP.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from analytics import histogram, leading, planning, summing
from analytics.kept import Kept, weight_of_sums
from analytics.models import Cube, Grain, RollUpState
from analytics.periods import Range, period, start_of
from analytics.questions import Answer, Group, Question
from analytics.sources import Look, Plan, Spans, planned
from analytics.summing import Wanted
from analytics.totals import Totals
from chat.changes import MINUTE
from chat.models import Change

#: By how much an answer may be behind the latest row that is taken from roll-ups alone; see `whole_until`.
BEHIND_AT_MOST: Final = dt.timedelta(seconds=15)

_SUMS: Final[Kept[Mapping[tuple[Any, ...], Totals]]] = Kept(weight_of_sums)
#: Groups that are told apart without asking what it costs.
_FEW: Final = 300


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
        look = Look(questions, now=now or timezone.now(), as_of=as_of)
        found: dict[int, Answer] = {}
        # Those of each user last: what all requests add up to may be known by then.
        for index in sorted(range(len(questions)), key=lambda index: questions[index].tells_each_user):
            before = questions.index(questions[index])
            found[index] = found[before] if before in found else _answer(questions[index], look)
            look.answered.append((questions[index], found[index]))
        return [found[index] for index in range(len(questions))]


def _answer(question: Question, look: Look) -> Answer:
    plan = planned(question, look)
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


def _whole(question: Question, look: Look) -> Totals:
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


# --- Taking it -------------------------------------------------------------------------------------------------------


def _from_cells(question: Question, plan: Plan, look: Look) -> Iterator[tuple[Group, Totals]]:
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


def _from_rows(question: Question, plan: Plan, look: Look) -> Iterator[tuple[Group, Totals]]:
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
