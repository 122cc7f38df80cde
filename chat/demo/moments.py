"""When demo requests come."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from typing import Final

#: Weights of the hours of a day and of the days of a week, Monday first.
_HOURS: Final = (2, 1.5, 1, 1, 1, 1.5, 3, 5, 8, 10, 11, 11, 9, 10, 11, 11, 10, 9, 7, 6, 5, 5, 4, 3)
_WEEKDAYS: Final = (1.0, 1.05, 1.05, 1.0, 0.9, 0.35, 0.3)
#: How much more is asked at the end than in the beginning.
_GROWTH: Final = 2.5


def moments(count: int, *, began: dt.datetime, ended: dt.datetime) -> Callable[[float], int]:
    """The moment (ms) of the n-th of `count` interactions, for fractional n: more by day than by night, on working days
    than at weekends, and more with every week."""
    first, last = int(began.timestamp() * 1000), int(ended.timestamp() * 1000)
    hour = 3_600_000
    edges = list(range(first, last, hour))
    weights = []
    for place, edge in enumerate(edges):
        moment = dt.datetime.fromtimestamp(edge / 1000, tz=dt.UTC)
        share = min(hour, last - edge) / hour
        grown = 1 + (_GROWTH - 1) * place / len(edges)
        weights.append(_HOURS[moment.hour] * _WEEKDAYS[moment.weekday()] * grown * share)
    total = list(accumulate(weights))
    scale = total[-1] / count

    def moment_of(n: float) -> int:
        want = n * scale
        place = min(bisect_left(total, want), len(edges) - 1)
        into = (want - (total[place] - weights[place])) / weights[place]
        return min(edges[place] + int(into * min(hour, last - edges[place])), last - 1)

    return moment_of
