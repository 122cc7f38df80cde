"""What was read of periods that are closed, kept in memory by everything it depends on until any of them changes.

Hours, days and months of the roll-ups hardly ever change: who looks at a year again reads the minutes since the last
hour, and no more. `RollUpState.revision` says when they do; it is read in the same moment as the cells themselves.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from analytics.totals import Totals

#: Weight of all that is kept of one kind; a unit is less than a hundred bytes.
MOST: Final = 300_000

T = TypeVar("T")


class Kept(Generic[T]):
    """Values that nobody may change, the latest used up to `MOST`."""

    def __init__(self, weight: Callable[[T], int]) -> None:
        self._weight = weight
        self._lock = threading.Lock()
        self._revision: UUID | None = None
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._whole = 0

    def get(self, revision: UUID | None, key: Hashable, read: Callable[[], T]) -> T:
        """The value of this key, read anew if none is kept of this revision; without a revision nothing is kept."""
        if revision is None:
            return read()
        with self._lock:
            if self._revision == revision and key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = read()
        weight = self._weight(value)
        with self._lock:
            if self._revision != revision:
                # A thread that still reads what was before throws away more than it must: that is slower, never wrong.
                self._revision = revision
                self._values.clear()
                self._whole = 0
            if weight <= MOST // 2 and key not in self._values:
                self._values[key] = value, weight
                self._whole += weight
            while self._whole > MOST:
                self._whole -= self._values.popitem(last=False)[1][1]
        return value


def weight_of_sums(groups: Mapping[Any, Totals]) -> int:
    """Of totals by group."""
    return sum(4 + len(totals.latencies) + len(totals.first_tokens) for totals in groups.values())
