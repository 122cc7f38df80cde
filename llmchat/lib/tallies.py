"""Counting that costs a request next to nothing: what is counted is kept in memory, and put into Prometheus' own values
together, now and then. Each of those is written to a file, under a lock, which costs ten times as much as to remember.

Knows neither what is counted nor when it is time to `flush`. A process that is killed loses what it has counted since.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter as Multiset
from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from prometheus_client import Counter, Histogram

Labels: TypeAlias = tuple[str, ...]
Count: TypeAlias = tuple[Counter | Histogram, Labels, float]
"""A series by its metric and labels, and by how much it grows or what it is to observe."""


class Tallies:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: defaultdict[tuple[Counter | Histogram, Labels], list[float]] = defaultdict(list)

    def add(self, counts: Iterable[Count]) -> None:
        """Remembers all of them."""
        with self._lock:
            amounts = self._amounts
            for metric, labels, amount in counts:
                amounts[metric, labels].append(amount)

    def flush(self) -> None:
        """Puts into the metrics what was remembered since the last time."""
        with self._lock:
            amounts, self._amounts = self._amounts, defaultdict(list)
        for (metric, labels), found in amounts.items():
            series = metric.labels(*labels)
            if isinstance(series, Histogram):
                _observe(series, found)
            else:
                series.inc(sum(found))


def _observe(series: Histogram, amounts: list[float]) -> None:
    """As `series.observe` of each, with one write a bucket."""
    series._sum.inc(sum(amounts))  # noqa: SLF001 - there is no other way to observe several
    for place, number in Multiset(bisect_left(series._upper_bounds, amount) for amount in amounts).items():  # noqa: SLF001
        series._buckets[place].inc(number)  # noqa: SLF001
