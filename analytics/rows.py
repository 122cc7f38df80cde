"""Adds up rows of the record for a range of time, by every dimension at once: the truth that roll-ups keep.

Cost grows with the rows of the range, not with the record: ids are ordered by time and are the primary key.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from django.db.models import (
    Aggregate,
    BigIntegerField,
    Case,
    Count,
    DecimalField,
    F,
    FloatField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import Combinable, ExpressionWrapper
from django.db.models.functions import Cast, Ceil, Floor, Ln, Round

from analytics import histogram, planning
from analytics.models import Cube
from analytics.totals import COUNTERS, Key, Table, Totals, projected
from chat.models import Attempt, Interaction
from llmchat.lib.uuid7 import floor_at

#: 1e-12 dollars in a dollar: no cost has more places.
UNIT_PLACES: Final = 12
UNITS: Final = 10**UNIT_PLACES

_CHUNK: Final = 5000
_DIMENSIONS: Final = (
    "organization_id",
    "api_key_id",
    "provider",
    "model",
    "plan",
    "status",
    "error_code",
    "cached",
    "route_reason",
)


def _bucket(column: str) -> Combinable:
    """`histogram.bucket_of` in SQL; NULL where the time is not known."""
    index = Cast(Ceil(Ln(column) / Value(histogram.LN_GAMMA)), BigIntegerField())
    return Case(
        When(**{f"{column}__lt": histogram.LEAST}, then=Value(histogram.NONE)),
        When(**{f"{column}__isnull": False}, then=index),
        output_field=BigIntegerField(),
    )


def _microseconds(column: str) -> Combinable:
    """Whole ones: sums of floats depend on their order."""
    scaled = ExpressionWrapper(F(column) * Value(1000.0) + Value(0.5), output_field=FloatField())
    return Cast(Floor(scaled), BigIntegerField())


def _units_of_cost() -> Combinable:
    scaled = ExpressionWrapper(F("cost") * Value(UNITS), output_field=DecimalField(max_digits=40, decimal_places=12))
    return Cast(Round(scaled), BigIntegerField())


_SUMS: Final[dict[str, Any]] = {
    "requests": Count("pk"),
    "priced": Count("cost"),
    "unpriced": Count("pk", filter=Q(cost=None, input_tokens__isnull=False)),
    "retries": Sum("retries"),
    "fallbacks": Count("pk", filter=Q(fallback=True)),
    "input_tokens": Sum("input_tokens"),
    "cached_input_tokens": Sum("cached_input_tokens"),
    "output_tokens": Sum("output_tokens"),
    "reasoning_tokens": Sum("reasoning_tokens"),
    "cost": Sum(_units_of_cost()),
    "latency": Sum(_microseconds("latency_ms")),
    "first_token": Sum(_microseconds("time_to_first_token_ms")),
}


class _Listed(Aggregate):
    """The values that are known, with commas between, in any order: in one column what would be lines of their own."""

    function = "GROUP_CONCAT"
    output_field = TextField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(
            compiler, connection, function="STRING_AGG", template="%(function)s((%(expressions)s)::text, ',')"
        )


def within(since: dt.datetime, until: dt.datetime, column: str) -> Q:
    """Rows whose UUIDv7 in `column` was made from `since` until before `until`."""
    return Q(**{f"{column}__gte": floor_at(since), f"{column}__lt": floor_at(until)})


def every_cube(since: dt.datetime, until: dt.datetime) -> Table:
    """The totals of all interactions of this range, in all cubes: what its cells must say."""
    if not _rows(since, until, None).exists():
        return {}
    with planning.for_sums():
        by_dimensions, users = by_organization(since, until), by_user(since, until)
    everything = projected(by_dimensions, Cube.EVERYTHING)
    return {
        **by_dimensions,
        **everything,
        **projected(by_dimensions, Cube.TENANT),
        **projected(by_dimensions, Cube.KEY),
        **projected(everything, Cube.OVERVIEW),
        **projected(everything, Cube.TOTAL),
        **users,
    }


def by_organization(since: dt.datetime, until: dt.datetime, *, only: Q | None = None) -> Table:
    """The cube ORGANIZATION of the range's interactions, of those alone that `only` names."""
    rows = _rows(since, until, only)
    table: Table = {}
    rows = rows.annotate(calls=_CALLS)
    for line in (
        rows.values_list(*_DIMENSIONS).annotate(**_SUMS, called=Sum("calls"), **_TIMES).iterator(chunk_size=_CHUNK)
    ):
        *counted, attempts, latencies, first_tokens = line[len(_DIMENSIONS) :]
        totals = _totals(counted)
        totals.attempts = int(attempts or 0)
        totals.latencies, totals.first_tokens = _counted(latencies), _counted(first_tokens)
        table[_key(line[: len(_DIMENSIONS)])] = totals
    return table


def by_user(since: dt.datetime, until: dt.datetime, *, only: Q | None = None) -> Table:
    """The cube USER of the range's interactions, of those alone that `only` names: without attempts and histograms,
    which would cost more than the interactions themselves."""
    lines = _rows(since, until, only).values_list("organization_id", "user_id").annotate(**_SUMS)
    return {
        Key(Cube.USER, organization_id=organization, user_id=user): _totals(sums)
        for organization, user, *sums in lines.iterator(chunk_size=_CHUNK)
    }


#: Looked up for each row: PostgreSQL takes a range of ids for a single one, and would join each row with all attempts.
_CALLS: Final = Subquery(
    Attempt.objects.filter(interaction=OuterRef("pk"))
    .order_by()
    .values("interaction")
    .annotate(count=Count("pk"))
    .values("count")
)
_TIMES: Final[dict[str, Any]] = {
    "latencies": _Listed(_bucket("latency_ms")),
    "first_tokens": _Listed(_bucket("time_to_first_token_ms")),
}


def _counted(listed: str | None) -> histogram.Histogram:
    return {int(bucket): count for bucket, count in Counter(listed.split(",")).items()} if listed else {}


def _rows(since: dt.datetime, until: dt.datetime, only: Q | None) -> QuerySet[Interaction]:
    return Interaction.objects.filter(within(since, until, "pk"), only or Q()).order_by()


def _key(values: Sequence[Any]) -> Key:
    return Key(Cube.ORGANIZATION, **dict(zip(_DIMENSIONS, values, strict=True)))


def _totals(sums: Sequence[Any]) -> Totals:
    by_name = dict(zip(_SUMS, sums, strict=True))
    return Totals.of(by_name.get(name) for name in COUNTERS)
