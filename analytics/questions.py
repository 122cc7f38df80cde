"""What can be asked of the roll-ups, and what is answered; see `analytics.reading`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from analytics.models import Cube, Grain
from analytics.periods import Range
from analytics.totals import COUNTERS, DIMENSIONS, Totals

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
