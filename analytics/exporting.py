"""Usage for a file: what `reading` answers for one stretch after the other, as rows. Knows no files, no commands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from accounts.models import Organization
from analytics import reading, usage
from analytics.models import Grain
from analytics.periods import Range, period
from analytics.questions import Group, Question
from analytics.totals import Totals
from llmchat.lib.tables import Column, Kind, Rows

#: What usage may be grouped by, and by what names: those of `/v1/usage`, and the organization.
DIMENSIONS: Final = {"organization": "organization_id", **usage.DIMENSIONS}
_KINDS: Final = {"organization_id": Kind.UUID, "api_key_id": Kind.UUID, "cached": Kind.BOOLEAN}
_COUNTERS: Final = {
    "requests": "requests",
    "priced": "priced_requests",
    "unpriced": "unpriced_requests",
    "attempts": "attempts",
    "retries": "retries",
    "fallbacks": "fallbacks",
    "input_tokens": "input_tokens",
    "cached_input_tokens": "cached_input_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "reasoning_tokens",
}
_TIMES: Final = ("count", "average", *usage.PERCENTILES)
_CHUNK: Final = 2000


def columns(by: Sequence[str]) -> tuple[Column, ...]:
    """The columns of usage by these dimensions: when, by what, how much; percentiles each as a column."""
    found = [Column("start", Kind.MOMENT), Column("end", Kind.MOMENT)]
    for name in by:
        found.append(Column(name, _KINDS.get(name, Kind.TEXT)))
        if name == "organization_id":
            found.append(Column("organization"))
    found += [Column(name, Kind.INTEGER) for name in _COUNTERS.values()]
    found.append(Column("cost", Kind.DECIMAL))
    for what in ("latency_ms", "time_to_first_token_ms"):
        found += [Column(f"{what}_{name}", Kind.INTEGER if name == "count" else Kind.NUMBER) for name in _TIMES]
    return tuple(found)


@dataclass(slots=True, kw_only=True)
class Reader:
    """Reads a few intervals at a time, so that neither the range nor the record makes it larger.

    `pending_since`: the oldest minute whose latest changes were not in an answer; None: everything is in the rows.
    """

    #: A stretch without requests has no rows, so that only a page without any is the last.
    full: int = field(default=1, init=False)
    organization_id: UUID | None
    since: dt.datetime
    until: dt.datetime
    by: tuple[str, ...]
    interval: Grain | None
    only: dict[str, Any]
    pending_since: dt.datetime | None = field(default=None, init=False)

    def page(self, after: str | None) -> Iterator[Rows]:
        """The rows of the next stretch that has any, behind the one of which a row began at `after`."""
        names: dict[Any, str] = {}
        if "organization_id" in self.by:
            names = dict(Organization.objects.values_list("pk", "name"))
        for begin, end in self._stretches(after):
            question = Question(
                organization_id=self.organization_id,
                since=begin,
                until=end,
                only=self.only,
                by=self.by,
                interval=self.interval,
            )
            (answer,) = reading.answer(question)
            if answer.pending_since is not None:
                self.pending_since = min(answer.pending_since, self.pending_since or answer.pending_since)
            groups = sorted(answer.groups.items(), key=lambda pair: (pair[0][0] or begin, str(pair[0][1:])))
            for first in range(0, len(groups), _CHUNK):
                yield [self._row(group, totals, names) for group, totals in groups[first : first + _CHUNK]]
            if groups:
                return

    def _stretches(self, after: str | None) -> Iterator[Range]:
        begin = self.since if after is None else self._end(dt.datetime.fromisoformat(after))
        while begin < self.until:
            end = self._end(begin)
            yield begin, end
            begin = end

    def _end(self, begin: dt.datetime) -> dt.datetime:
        """Until when one answer tells: of users, there may be very many each day."""
        if self.interval is None:
            return self.until
        of_days = Grain.DAY if "user_id" in self.by else Grain.MONTH
        stretch = {Grain.HOUR: Grain.DAY, Grain.DAY: of_days}.get(self.interval, Grain.MONTH)
        return min(period(stretch, begin)[1], self.until)

    def _row(self, group: Group, totals: Totals, names: dict[Any, str]) -> tuple[Any, ...]:
        begin, end = (self.since, self.until) if self.interval is None else period(self.interval, group[0])
        values: list[Any] = [max(begin, self.since), min(end, self.until)]
        for name, value in zip(self.by, group[1:], strict=True):
            values.append(value)
            if name == "organization_id":
                values.append(names.get(value, ""))
        values += [getattr(totals, name) for name in _COUNTERS]
        values.append(usage.cost_of(totals))
        for times, sum_ in ((totals.latencies, totals.latency), (totals.first_tokens, totals.first_token)):
            told = usage.times_of(times, sum_)
            values += [told[name] for name in _TIMES]
        return tuple(values)
