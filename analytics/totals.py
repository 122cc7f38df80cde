"""What is counted of requests, and by what: values that add up. They know neither rows nor how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Final, NamedTuple, Self
from uuid import UUID

import orjson

from analytics import histogram
from analytics.histogram import Histogram
from analytics.models import Cube


class Key(NamedTuple):
    """The dimensions of requests; see `analytics.models.Dimensions`. What a cube does not tell apart is empty."""

    cube: Cube
    organization_id: UUID | None = None
    api_key_id: UUID | None = None
    user_id: str = ""
    provider: str = ""
    model: str = ""
    plan: str = ""
    status: str = ""
    error_code: str = ""
    cached: bool = False
    route_reason: str = ""

    @property
    def id(self) -> UUID:
        """The same for the same values everywhere and for ever."""
        said = {name: value for name, value in zip(self._fields, self, strict=True) if value}
        return UUID(bytes=hashlib.blake2b(orjson.dumps(said), digest_size=16).digest())


#: Counters of a cell, in the order of its columns.
COUNTERS: Final = (
    "requests",
    "priced",
    "unpriced",
    "attempts",
    "retries",
    "fallbacks",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost",
    "latency",
    "first_token",
)


@dataclass(slots=True)
class Totals:
    """What is counted; units as in `analytics.models.Cell`."""

    requests: int = 0
    priced: int = 0
    unpriced: int = 0
    attempts: int = 0
    retries: int = 0
    fallbacks: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    latency: int = 0
    first_token: int = 0
    latencies: Histogram = field(default_factory=dict)
    first_tokens: Histogram = field(default_factory=dict)

    @classmethod
    def of(cls, counters: Iterable[int | None]) -> Self:
        """Without histograms, from values in the order of COUNTERS; None, a sum of nothing, is 0."""
        totals = cls()
        for name, value in zip(COUNTERS, counters, strict=True):
            setattr(totals, name, int(value or 0))
        return totals

    def add(self, other: Totals) -> None:
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        histogram.add(self.latencies, other.latencies)
        histogram.add(self.first_tokens, other.first_tokens)

    def differences(self, other: Totals) -> list[tuple[str, object, object]]:
        """What differs: name, value here, value there."""
        pairs = [(each.name, getattr(self, each.name), getattr(other, each.name)) for each in fields(self)]
        return [(name, here, there) for name, here, there in pairs if here != there]


Table = dict[Key, Totals]
"""Totals by dimensions."""


def add_to(table: Table, key: Key, totals: Totals) -> None:
    found = table.get(key)
    if found is None:
        found = table[key] = Totals()
    found.add(totals)


def added(tables: Iterable[Table]) -> Table:
    """The sum of tables."""
    total: Table = {}
    for table in tables:
        for key, totals in table.items():
            add_to(total, key, totals)
    return total
