"""Cells as they are stored: written whole for a period, read back, added up into longer periods.

Knows nothing of when that is due; see `analytics.rolling`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Field, QuerySet, Sum

from analytics import histogram
from analytics.models import Cell, Cube, Dimensions, Grain
from analytics.periods import Range
from analytics.totals import COUNTERS, Key, Table, Totals

_BATCH: Final = 500
_LARGE_BATCH: Final = 10_000
_SHORT: Final = frozenset({"requests", "priced", "unpriced", "attempts", "retries", "fallbacks"})
#: What a cell is made of, besides its dimensions.
MEASURES: Final = (*COUNTERS, "latencies", "first_tokens")
#: All counters added up, as the driver gives them: what an integer's sum is converted by, one by one, takes longer than
#: to fetch it. `Totals.of` makes integers of them.
SUMS: Final[Mapping[str, Any]] = {f"sum_{name}": Sum(name, output_field=Field()) for name in COUNTERS}
_COLUMNS: Final = ("grain", "start", "cube", "dimensions_id", "organization_id", *MEASURES)
#: As PostgreSQL calls them, in the same order.
_TYPES: Final = (
    *("int2", "timestamptz", "int2", "uuid", "uuid"),
    *("int4" if name in _SHORT else "int8" for name in COUNTERS),
    *("bytea", "bytea"),
)


def replace(grain: Grain, period: Range, tables: dict[dt.datetime, Table]) -> None:
    """Makes `tables`, by the start of their cells, all that there is of this grain in the period. Call it in a
    transaction."""
    _stored(grain, period).delete()
    _know({key for table in tables.values() for key in table})
    lines = (
        (
            grain,
            start,
            key.cube,
            key.id,
            key.organization_id,
            *(getattr(totals, name) for name in COUNTERS),
            histogram.encode(totals.latencies),
            histogram.encode(totals.first_tokens),
        )
        for start, table in tables.items()
        # Those of a cube next to each other on the disk: they are read together.
        for key, totals in sorted(table.items(), key=lambda cell: cell[0].cube)
    )
    if connection.vendor == "postgresql":
        _copy(lines)
    else:
        cells = (Cell(**dict(zip(_COLUMNS, line, strict=True))) for line in lines)
        Cell.objects.bulk_create(cells, batch_size=_BATCH)


def _copy(lines: Iterable[tuple[Any, ...]]) -> None:
    columns = ", ".join(_COLUMNS)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY analytics_cell ({columns}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(_TYPES)
        for line in lines:
            copy.write_row(line)


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


def column(dimension: str) -> str:
    """By what name a query of cells knows a dimension. The organization is a column of the cell itself."""
    return dimension if dimension == "organization_id" else f"dimensions__{dimension}"


def that_are(only: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of a query of cells, for values of dimensions or lists of them."""
    return {f"{column(name)}{'__in' if isinstance(value, list) else ''}": value for name, value in only.items()}


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
    while some := list(islice(rest, _BATCH if connection.vendor == "sqlite" else _LARGE_BATCH)):
        yield some
