"""Adds up rows of the record for a range of time, by every dimension at once: the truth that roll-ups keep.

Cost grows with the rows of the range, not with the record: ids are ordered by time and are the primary key.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from django.db.models import BigIntegerField, Case, Count, DecimalField, F, FloatField, Q, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable, ExpressionWrapper
from django.db.models.functions import Cast, Ceil, Floor, Ln, Round

from analytics import histogram
from analytics.models import Cube
from analytics.totals import COUNTERS, Key, Table, Totals, add_to
from chat.models import Interaction
from llmchat.lib.uuid7 import floor_at

#: 1e-12 dollars in a dollar: no cost has more places.
UNITS: Final = 10**12

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


def within(since: dt.datetime, until: dt.datetime, column: str) -> Q:
    """Rows whose UUIDv7 in `column` was made from `since` until before `until`."""
    return Q(**{f"{column}__gte": floor_at(since), f"{column}__lt": floor_at(until)})


def every_cube(since: dt.datetime, until: dt.datetime) -> Table:
    """The totals of all interactions of this range, in all cubes: what its cells must say."""
    if not _rows(since, until, None).exists():
        return {}
    by_dimensions = by_organization(since, until)
    return {**by_dimensions, **everything(by_dimensions), **by_user(since, until)}


def by_organization(since: dt.datetime, until: dt.datetime, *, only: Q | None = None) -> Table:
    """The cube ORGANIZATION of the range's interactions, of those alone that `only` names."""
    rows = _rows(since, until, only)
    table: Table = {}
    # One line for each bucket of latency: adding up its sums here spares a scan.
    by_bucket = rows.annotate(bucket=_bucket("latency_ms")).values_list(*_DIMENSIONS, "bucket").annotate(**_SUMS)
    for line in by_bucket.iterator(chunk_size=_CHUNK):
        *values, bucket = line[: len(_DIMENSIONS) + 1]
        totals = _totals(line[len(_DIMENSIONS) + 1 :])
        if bucket is not None:
            totals.latencies[bucket] = totals.requests
        add_to(table, _key(values), totals)
    by_bucket = rows.exclude(time_to_first_token_ms=None).annotate(bucket=_bucket("time_to_first_token_ms"))
    for *values, bucket, count in by_bucket.values_list(*_DIMENSIONS, "bucket").annotate(count=Count("pk")).iterator():
        add_to(table, _key(values), Totals(first_tokens={bucket: count}))
    attempts = rows.values_list(*_DIMENSIONS).annotate(count=Count("attempts")).filter(count__gt=0)
    for *values, count in attempts.iterator():
        add_to(table, _key(values), Totals(attempts=count))
    return table


def by_user(since: dt.datetime, until: dt.datetime, *, only: Q | None = None) -> Table:
    """The cube USER of the range's interactions, of those alone that `only` names: without attempts and histograms,
    which would cost more than the interactions themselves."""
    lines = _rows(since, until, only).values_list("organization_id", "user_id").annotate(**_SUMS)
    return {
        Key(Cube.USER, organization_id=organization, user_id=user): _totals(sums)
        for organization, user, *sums in lines.iterator(chunk_size=_CHUNK)
    }


def everything(table: Table) -> Table:
    """The cube EVERYTHING of a table of the cube ORGANIZATION."""
    total: Table = {}
    for key, totals in table.items():
        add_to(total, key._replace(cube=Cube.EVERYTHING, organization_id=None, api_key_id=None), totals)
    return total


def _rows(since: dt.datetime, until: dt.datetime, only: Q | None) -> QuerySet[Interaction]:
    return Interaction.objects.filter(within(since, until, "pk"), only or Q()).order_by()


def _key(values: Sequence[Any]) -> Key:
    return Key(Cube.ORGANIZATION, **dict(zip(_DIMENSIONS, values, strict=True)))


def _totals(sums: Sequence[Any]) -> Totals:
    by_name = dict(zip(_SUMS, sums, strict=True))
    return Totals.of(by_name.get(name) for name in COUNTERS)
