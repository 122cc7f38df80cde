"""How long answers have lately taken, so that one which is likely to come at once need not come in pieces.

A provider that is asked for an answer in one piece says nothing until it is whole. That costs less to read, but silence
no longer tells a dead provider from a busy one: it is fair only where answers have been quick. Lives in the memory of
one process; knows nothing of HTTP and of who asks.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

#: Answers of one kind that must have been seen before any is expected to be quick.
_ENOUGH: Final = 8
#: What remains of the longest time with each answer after it: a slow one is remembered for about seventy quick ones.
_REMAINS: Final = 0.98
#: Quick is what takes at most this share of the time that a provider has for its first byte.
_SHARE: Final = 0.25
#: Kinds of answers that are remembered.
_MOST: Final = 10_000


class Pace:
    """The longest of the latest times, by kind of answer; belongs to one thread.

    What belongs to one kind is the caller's to say: a caller, a provider, a model.
    """

    def __init__(self) -> None:
        self._longest: dict[Hashable, tuple[int, float]] = {}

    def note(self, kind: Hashable, seconds: float) -> None:
        """One more answer took so long, or was waited for so long in vain."""
        seen, longest = self._longest.get(kind, (0, 0.0))
        if not seen and len(self._longest) >= _MOST:
            del self._longest[next(iter(self._longest))]
        self._longest[kind] = (seen + 1, max(seconds, longest * _REMAINS))

    def is_quick(self, kind: Hashable, *, first_byte: float) -> bool:
        """Whether the next answer can be expected well within `first_byte` seconds."""
        seen, longest = self._longest.get(kind, (0, 0.0))
        return seen >= _ENOUGH and longest <= first_byte * _SHARE
