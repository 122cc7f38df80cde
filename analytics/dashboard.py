"""The dashboard's figures: a range against the one before, over time, and by what requests have in common.

All are taken from roll-ups and are of one moment. Knows nothing of HTTP, nor of how figures are written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from django.utils import timezone

from analytics import histogram, reading
from analytics.histogram import Histogram
from analytics.models import Grain
from analytics.periods import end_of, start_of
from analytics.questions import Answer, Question
from analytics.spans import Span
from analytics.totals import Totals
from chat.models import Status

#: What counts as an error. Who cancels has lost patience, which is nobody's failure.
FAILURES: Final = frozenset({Status.FAILED, Status.INTERRUPTED})
#: Groups of a ranking told one by one; the others are told together.
TOP: Final = 8
PERCENTILES: Final = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose requests: of all organizations (None) or of these alone; `only`: values of other dimensions."""

    organizations: frozenset[UUID] | None
    only: Mapping[str, Any] = field(default_factory=dict)

    def question(self, since: dt.datetime, until: dt.datetime, **how: Any) -> Question:
        """About this scope, over that range."""
        only = dict(self.only)
        organizations = sorted(self.organizations or ())
        if len(organizations) == 1:
            return Question(organization_id=organizations[0], since=since, until=until, only=only, **how)
        if self.organizations is not None:
            only["organization_id"] = organizations
        return Question(organization_id=None, since=since, until=until, only=only, **how)


@dataclass(slots=True, kw_only=True)
class Part:
    """Some requests: what is counted of them, how they ended, and how many were answered from the cache."""

    totals: Totals = field(default_factory=Totals)
    by_status: dict[str, int] = field(default_factory=dict)
    hits: int = 0

    def add(self, totals: Totals, *, status: str, cached: bool = False) -> None:
        self.totals.add(totals)
        self.by_status[status] = self.by_status.get(status, 0) + totals.requests
        self.hits += totals.requests if cached else 0

    def join(self, other: Part) -> None:
        self.totals.add(other.totals)
        for status, count in other.by_status.items():
            self.by_status[status] = self.by_status.get(status, 0) + count
        self.hits += other.hits

    @property
    def requests(self) -> int:
        return self.totals.requests

    @property
    def failures(self) -> int:
        return sum(count for status, count in self.by_status.items() if status in FAILURES)

    @property
    def tokens(self) -> int:
        return self.totals.input_tokens + self.totals.output_tokens

    @property
    def cost(self) -> int | None:
        """In 1e-12 US dollars; None when tokens were spent and no price was known."""
        return None if self.totals.unpriced and not self.totals.priced else self.totals.cost

    @property
    def latencies(self) -> list[float | None]:
        """PERCENTILES in milliseconds."""
        return _percentiles(self.totals.latencies)

    @property
    def first_tokens(self) -> list[float | None]:
        return _percentiles(self.totals.first_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The groups with the most requests, by value of the dimensions, and all others together."""

    groups: list[tuple[Any, Part]]
    rest: Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """`rankings`: by "model", "provider", "error_code", and, where they can be told, "organization" and "user".
    `pending_since`: the oldest minute whose latest changes are in no figure; None when all are exact."""

    now: Part
    before: Part
    series: list[tuple[dt.datetime, Part]]
    rankings: dict[str, Ranking]
    as_of: dt.datetime
    pending_since: dt.datetime | None


def look_at(scope: Scope, span: Span) -> Dashboard:
    """Everything that the dashboard shows, of this moment or of some seconds ago, when that spares reading rows."""
    begin, end = span.before
    as_of = reading.whole_until(timezone.now())
    until = span.until
    if as_of is not None and until >= start_of(Grain.MINUTE, as_of):
        # The minute that is running has its cells, too.
        until = end_of(Grain.MINUTE, start_of(Grain.MINUTE, until))
    ranked: dict[str, Any] = {"since": span.since, "until": until, "times": False}
    # Times are asked for by themselves: histograms cost the most, and hardly any are read where nothing is told apart.
    questions = {
        "series": scope.question(span.since, until, by=("status", "cached"), interval=span.interval, times=False),
        "times": scope.question(span.since, until, interval=span.interval, counters=False),
        "before": scope.question(begin, end, by=("status", "cached"), times=False),
        "times before": scope.question(begin, end, counters=False),
        "shared": scope.question(by=("model", "provider", "error_code", "status"), **ranked),
    }
    if scope.organizations is None or len(scope.organizations) > 1:
        questions["organization"] = scope.question(by=("organization_id", "status"), **ranked)
    if not scope.only:
        questions["user"] = scope.question(by=("organization_id", "user_id"), limit=TOP, **ranked)
    answers = dict(zip(questions, reading.answer(*questions.values(), as_of=as_of), strict=True))
    series = _by_interval(answers["series"], span)
    _take_times(((start_of(span.interval, start), part) for start, part in series), answers["times"])
    before = _summed(_parts(answers["before"], lambda _, status, cached: (None, status, cached)).values())
    _take_times([(None, before)], answers["times before"])
    return Dashboard(
        now=_summed(part for _, part in series),
        before=before,
        series=series,
        rankings=_rankings(answers),
        as_of=answers["series"].as_of,
        pending_since=min((each.pending_since for each in answers.values() if each.pending_since), default=None),
    )


def _parts(answer: Answer, split: Callable[..., tuple[Any, str, bool]]) -> dict[Any, Part]:
    """The answer's groups by what `split` makes of each: (which part, its status, whether it is from the cache)."""
    parts: dict[Any, Part] = {}
    for group, totals in answer.groups.items():
        name, status, cached = split(*group)
        parts.setdefault(name, Part()).add(totals, status=status, cached=cached)
    return parts


def _summed(parts: Iterable[Part]) -> Part:
    whole = Part()
    for part in parts:
        whole.join(part)
    return whole


def _by_interval(answer: Answer, span: Span) -> list[tuple[dt.datetime, Part]]:
    """A part for each interval, the empty ones too."""
    found = _parts(answer, lambda start, status, cached: (start, status, cached))
    return [(start, found.get(start_of(span.interval, start), Part())) for start in span.starts()]


def _take_times(parts: Iterable[tuple[dt.datetime | None, Part]], answer: Answer) -> None:
    """Gives parts the histograms of the answer, by the start of their interval."""
    for start, part in parts:
        if totals := answer.groups.get((start,)):
            part.totals.latencies, part.totals.first_tokens = totals.latencies, totals.first_tokens


def _rankings(answers: Mapping[str, Answer]) -> dict[str, Ranking]:
    shared = answers["shared"]
    found = {
        "model": _ranked(_parts(shared, lambda _, model, provider, code, status: (model, status, False))),
        "provider": _ranked(_parts(shared, lambda _, model, provider, code, status: (provider, status, False))),
        "error_code": _ranked(_parts(shared, lambda _, model, provider, code, status: (code, status, False)), but=""),
    }
    if answer := answers.get("organization"):
        found["organization"] = _ranked(_parts(answer, lambda _, organization, status: (organization, status, False)))
    if answer := answers.get("user"):
        users = _parts(answer, lambda _, organization, user: ((organization, user), "", False))
        found["user"] = Ranking(groups=list(users.items()), rest=Part(totals=answer.rest or Totals()))
    return found


def _ranked(parts: dict[Any, Part], *, but: Any = None) -> Ranking:
    """The largest first; without the group `but`, which is no group of that kind."""
    ordered = sorted(
        ((name, part) for name, part in parts.items() if name != but),
        key=lambda pair: (-pair[1].requests, str(pair[0])),
    )
    return Ranking(groups=ordered[:TOP], rest=_summed(part for _, part in ordered[TOP:]))


def _percentiles(times: Histogram) -> list[float | None]:
    return histogram.percentiles(times, PERCENTILES)
