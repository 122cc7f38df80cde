"""Whatever is written, replayed and rolled up, in whatever order: every answer is what its rows add up to."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from accounts.tests.factories import OrganizationFactory
from analytics import cells, reading, rolling, sources
from analytics.models import Grain
from analytics.periods import start_of
from analytics.questions import Group, Question
from analytics.sources import Look
from analytics.tests.record import NOW, added_up, some_exchanges, store
from analytics.totals import Table, Totals
from chat.rows import ExchangeRows

#: How long before now things are written, in hours: the running minute, open hours, closed ones, days, dropped hours.
AGES = (0.0, 0.2, 2.0, 5.0, 30.0, 24.0 * 20, 24.0 * 50)

WRITE = st.tuples(st.just("write"), st.sampled_from(AGES), st.integers(1, 12), st.integers(0, 10**6))
STEPS = st.lists(
    st.one_of(
        WRITE,
        WRITE,
        st.tuples(st.just("replay"), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 4.0, 30.0, 24.0 * 33])),
        st.tuples(st.just("roll"), st.booleans()),
    ),
    min_size=1,
    max_size=9,
)


def truth(question: Question, exchanges: list[ExchangeRows]) -> dict[Group, Totals]:
    groups: dict[Group, Totals] = {}
    for each in exchanges:
        created = each.interaction.created_at
        if not question.since <= created < question.until:
            continue
        start = start_of(question.interval, created) if question.interval else None
        for key, totals in added_up([each]).items():
            mine = key.cube is question.cube and question.organization_id in {None, key.organization_id}
            if mine and all(getattr(key, name) == value for name, value in question.only.items()):
                group = (start, *(getattr(key, name) for name in question.by))
                groups.setdefault(group, Totals()).add(totals)
    return groups


class Exactness(TestCase):
    @settings(max_examples=15, deadline=None)
    @given(STEPS)
    def test_every_answer_is_exact_after_every_step(self, steps: list[Any]) -> None:
        organizations = [OrganizationFactory(name="A"), OrganizationFactory(name="B")]
        now, written = NOW, []
        for step in steps:
            match step:
                case ("write", age, count, seed):
                    until = now - dt.timedelta(hours=age)
                    since = until - dt.timedelta(minutes=3 if age < 4 else 200)
                    batch = some_exchanges(organizations, count, since=since, until=until, seed=seed)
                    store(batch)
                    written += batch
                case ("replay", index) if written:
                    store([written[index % len(written)]])
                case ("wait", hours):
                    now += dt.timedelta(hours=hours)
                case ("roll", is_cut_short):
                    rolling.roll_up(now=now, seconds=0.01 if is_cut_short else float("inf"))
            self._ask(organizations, written, now=now)
        self._ask(organizations, written, now=now, alone=True)
        rolling.roll_up(now=now)
        self._ask(organizations, written, now=now, alone=True)
        assert _stored(now) == added_up(written)

    def _ask(
        self, organizations: list[Any], written: list[ExchangeRows], *, now: dt.datetime, alone: bool = False
    ) -> None:
        day = dt.timedelta(days=1)
        today = start_of(Grain.DAY, now)
        ranges = (
            (today, today + day),
            (today - 45 * day, today + day),
            (today - 400 * day, today + day),
            (now - dt.timedelta(hours=7, seconds=13), now),
        )
        questions = [
            question
            for since, until in ranges
            for question in (
                Question(organization_id=organizations[0].id, since=since, until=until),
                Question(organization_id=None, since=since, until=until, by=("model",)),
                Question(
                    organization_id=organizations[1].id,
                    since=since,
                    until=until,
                    by=("provider",),
                    only={"status": "succeeded"},
                    interval=Grain.DAY,
                ),
                Question(organization_id=organizations[0].id, since=since, until=until, by=("user_id",)),
                # Hours of long ago are not kept: reading them from rows is right, but slow.
                Question(
                    organization_id=organizations[0].id, since=max(since, today - day), until=until, interval=Grain.HOUR
                ),
            )
        ]
        # Together they read rows and periods once; alone, as a caller of the API asks, each for itself.
        asked = [(question,) for question in questions] if alone else [questions]
        answers = [found for some in asked for found in reading.answer(*some, now=now)]
        for question, found in zip(questions, answers, strict=True):
            if found.pending_since is None:
                assert found.groups == truth(question, written), question


def _stored(now: dt.datetime) -> Table:
    """Everything in the cells, each moment taken from the longest period that is there."""
    question = Question(organization_id=None, since=NOW - dt.timedelta(days=1000), until=now + dt.timedelta(days=1))
    plan = sources.planned(question, Look([question], now=now))
    tables = [cells.fold(grain, span) for grain, spans in plan.cells.items() for span in spans]
    whole: Table = {}
    for table in tables:
        for key, totals in table.items():
            whole.setdefault(key, Totals()).add(totals)
    return whole
