"""Cells as they are stored: written whole for a period, read back, added up into longer periods.

Knows nothing of when that is due; see `analytics.rolling`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet

from analytics import histogram
from analytics.models import Cell, Cube, Dimensions, Grain
from analytics.periods import Range
from analytics.totals import COUNTERS, Key, Table, Totals

_BATCH: Final = 500
#: What a cell is made of, besides its dimensions.
MEASURES: Final = (*COUNTERS, "latencies", "first_tokens")


def replace(grain: Grain, period: Range, tables: dict[dt.datetime, Table]) -> None:
    """Makes `tables`, by the start of their cells, all that there is of this grain in the period. Call it in a
    transaction."""
    _stored(grain, period).delete()
    _know({key for table in tables.values() for key in table})
    Cell.objects.bulk_create(
        (
            Cell(
                grain=grain,
                start=start,
                cube=key.cube,
                dimensions_id=key.id,
                organization_id=key.organization_id,
                latencies=histogram.encode(totals.latencies),
                first_tokens=histogram.encode(totals.first_tokens),
                **{name: getattr(totals, name) for name in COUNTERS},
            )
            for start, table in tables.items()
            for key, totals in table.items()
        ),
        batch_size=_BATCH,
    )


def fold(grain: Grain, period: Range) -> Table:
    """The sum of the cells of this grain in the period."""
    by_id: dict[UUID, Totals] = {}
    for identifier, *measures in _stored(grain, period).values_list("dimensions_id", *MEASURES).iterator():
        totals = by_id.get(identifier)
        if totals is None:
            totals = by_id[identifier] = Totals()
        add_measures(totals, measures)
    return {key: by_id[identifier] for identifier, key in _keys(by_id)}


def add_measures(totals: Totals, measures: Iterable[Any]) -> None:
    """Adds a cell that was read as the columns of MEASURES."""
    *counters, latencies, first_tokens = measures
    for name, value in zip(COUNTERS, counters, strict=True):
        setattr(totals, name, getattr(totals, name) + value)
    histogram.add_encoded(totals.latencies, latencies)
    histogram.add_encoded(totals.first_tokens, first_tokens)


def _stored(grain: Grain, period: Range) -> QuerySet[Cell]:
    since, until = period
    return Cell.objects.filter(grain=grain, start__gte=since, start__lt=until).order_by()


def _know(keys: Collection[Key]) -> None:
    """Stores dimensions that no cell had before."""
    by_id = {key.id: key for key in keys}
    missing = set(by_id) - {identifier for identifier, _ in _keys(by_id)}
    rows = [Dimensions(id=identifier, **by_id[identifier]._asdict()) for identifier in sorted(missing)]
    Dimensions.objects.bulk_create(rows, batch_size=_BATCH, ignore_conflicts=True)


def _keys(identifiers: Iterable[UUID]) -> Iterator[tuple[UUID, Key]]:
    """Those of the dimensions that are stored."""
    for some in _batches(identifiers):
        for identifier, cube, *values in Dimensions.objects.filter(id__in=some).values_list("id", *Key._fields):
            yield identifier, Key(Cube(cube), *values)


def _batches(identifiers: Iterable[UUID]) -> Iterator[list[UUID]]:
    rest = iter(identifiers)
    while some := list(islice(rest, _BATCH)):
        yield some
