"""What is counted of requests, and by what: values that add up. They know neither rows nor how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple, Self
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


#: What each cube tells apart, in the order in which they are taken: the fewer dimensions, the fewer cells there are to
#: add up, and there are far more organizations than models.
DIMENSIONS: Final[Mapping[Cube, frozenset[str]]] = {
    Cube.TOTAL: frozenset(),
    Cube.OVERVIEW: frozenset({"provider", "model", "status", "cached"}),
    Cube.TENANT: frozenset({"organization_id", "status", "cached"}),
    Cube.KEY: frozenset({"organization_id", "api_key_id"}),
    Cube.EVERYTHING: frozenset(Key._fields) - {"cube", "organization_id", "api_key_id", "user_id"},
    Cube.USER: frozenset({"organization_id", "user_id"}),
    Cube.ORGANIZATION: frozenset(Key._fields) - {"cube", "user_id"},
}
_LEFT_OUT: Final[Mapping[Cube, Mapping[str, Any]]] = {
    cube: {name: Key._field_defaults[name] for name in Key._fields if name != "cube" and name not in dimensions}
    for cube, dimensions in DIMENSIONS.items()
}

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
    def of(cls, counters: Iterable[int | Decimal | None]) -> Self:
        """Without histograms, from whole values in the order of COUNTERS; None, a sum of nothing, is 0."""
        values: list[Any] = [int(value or 0) for _, value in zip(COUNTERS, counters, strict=True)]
        return cls(*values)

    @classmethod
    def sum(cls, parts: Iterable[Totals]) -> Self:
        whole = cls()
        for totals in parts:
            whole.add(totals)
        return whole

    def add(self, other: Totals, *, times: bool = True) -> None:
        """`times`: histograms as well."""
        self.requests += other.requests
        self.priced += other.priced
        self.unpriced += other.unpriced
        self.attempts += other.attempts
        self.retries += other.retries
        self.fallbacks += other.fallbacks
        self.input_tokens += other.input_tokens
        self.cached_input_tokens += other.cached_input_tokens
        self.output_tokens += other.output_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost += other.cost
        self.latency += other.latency
        self.first_token += other.first_token
        if times:
            histogram.add(self.latencies, other.latencies)
            histogram.add(self.first_tokens, other.first_tokens)

    def copy(self) -> Totals:
        return replace(self, latencies=self.latencies.copy(), first_tokens=self.first_tokens.copy())

    def without(self, parts: Iterable[Totals]) -> Totals:
        """The counters of what is left when `parts` are taken away."""
        taken = Totals.sum(parts)
        return Totals.of(getattr(self, name) - getattr(taken, name) for name in COUNTERS)

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


def projected(table: Table, cube: Cube) -> Table:
    """A table of the cube ORGANIZATION, or of EVERYTHING, as one of a cube with fewer dimensions."""
    total: Table = {}
    left_out = _LEFT_OUT[cube]
    for key, totals in table.items():
        add_to(total, key._replace(cube=cube, **left_out), totals)
    return total


def added(tables: Iterable[Table]) -> Table:
    """The sum of tables."""
    total: Table = {}
    for table in tables:
        for key, totals in table.items():
            add_to(total, key, totals)
    return total
