"""Cells added up by dimensions and time: the statements behind every figure that is shown.

Written by hand, since they are many to a page and the ORM takes longer to write one than the database to answer it.
Knows nothing of which cells are whole; see `analytics.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.db.models import Field

from analytics.models import Cell, Cube, Dimensions, Grain
from analytics.periods import Range
from analytics.totals import COUNTERS, DIMENSIONS, Totals

Spans = Sequence[tuple[Grain, Sequence[Range]]]
"""Ranges of cells to add up, by their grain."""

Values = tuple[Any, ...]
"""Of the columns by which cells are told apart, in their order."""

_SUMS: Final = ", ".join(f"SUM(c.{name})" for name in COUNTERS)
_OF_CELLS: Final = frozenset({"start", "dimensions_id", "organization_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which cells: of one cube, within `spans`, of one organization (None: of all), with the values of dimensions (or
    one of a list of them) that `only` says."""

    cube: Cube
    spans: Spans
    organization_id: UUID | None
    only: Mapping[str, Any]


def sums(wanted: Wanted, columns: Sequence[str], *, are_many: bool = False) -> Iterator[tuple[Values, Totals]]:
    """The counters of the cells added up by `columns`: names of dimensions, `dimensions_id`, `start`. Groups in which
    nothing was asked are left out. `are_many`: they are fetched in portions, which takes longer."""
    named = [_named(name) for name in columns]
    grouped = f" GROUP BY {', '.join(named)}" if named else ""
    for line in _read(wanted, columns, [*named, _SUMS], grouped, are_many=are_many):
        totals = Totals.of(line[len(columns) :])
        if totals.requests:
            yield line[: len(columns)], totals


def histograms(wanted: Wanted, columns: Sequence[str]) -> Iterator[tuple[Values, bytes, bytes]]:
    """The cells one by one, each with the values of `columns` and its encoded histograms: latencies, first tokens."""
    named = [_named(name) for name in columns]
    for line in _read(wanted, columns, [*named, "c.latencies", "c.first_tokens"]):
        *values, latencies, first_tokens = line
        yield tuple(values), latencies, first_tokens


def _read(
    wanted: Wanted, columns: Sequence[str], selected: Sequence[str], grouped: str = "", *, are_many: bool = False
) -> Iterator[tuple[Any, ...]]:
    condition, parameters = _condition(wanted)
    joined = ""
    if {*columns, *wanted.only} - _OF_CELLS:
        # Tells the database that it needs few of all dimensions.
        joined = " JOIN analytics_dimensions d ON d.id = c.dimensions_id"
        condition += " AND d.cube = %s"
        parameters.append(wanted.cube)
    sql = f"SELECT {', '.join(selected)} FROM analytics_cell c{joined} WHERE {condition}{grouped}"  # noqa: S608 - names
    convert = [(place, found) for place, name in enumerate(columns) if (found := _converter(name)) is not None]
    with connection.chunked_cursor() if are_many else connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        for line in cursor:
            if not convert:
                yield line
                continue
            values = list(line)
            for place, made in convert:
                values[place] = made(values[place])
            yield tuple(values)


def _condition(wanted: Wanted) -> tuple[str, list[Any]]:
    ranges: list[str] = []
    parameters: list[Any] = []
    for grain, spans in wanted.spans:
        for since, until in spans:
            ranges.append("c.grain = %s AND c.start >= %s AND c.start < %s")
            parameters += [grain, _adapted("start", since), _adapted("start", until)]
    conditions = [f"({' OR '.join(ranges)})", "c.cube = %s"]
    parameters.append(wanted.cube)
    if wanted.organization_id is not None:
        conditions.append("c.organization_id = %s")
        parameters.append(_adapted("organization_id", wanted.organization_id))
    elif "organization_id" not in DIMENSIONS[wanted.cube]:
        conditions.append("c.organization_id IS NULL")
    for name, value in wanted.only.items():
        if value is None:
            conditions.append(f"{_named(name)} IS NULL")
            continue
        values = [each for each in value if each is not None] if isinstance(value, list) else [value]
        # An empty list is nobody's value.
        conditions.append(f"{_named(name)} IN ({', '.join(['%s'] * len(values)) or 'NULL'})")
        parameters += [_adapted(name, each) for each in values]
    return " AND ".join(conditions), parameters


def _named(column: str) -> str:
    """As the statements call a column; of the dimensions only what is one of theirs."""
    return f"{'c' if column in _OF_CELLS else 'd'}.{_field(column).column}"


def _adapted(column: str, value: Any) -> Any:
    return _field(column).get_db_prep_value(value, connection)


def _field(column: str) -> Field[Any, Any]:
    return _fields()[column]


@cache
def _fields() -> Mapping[str, Field[Any, Any]]:
    """Of cells and of their dimensions, by name.

    A name that is no field is a KeyError: nothing that a caller says gets into a statement.
    """
    return {field.attname: field for model in (Dimensions, Cell) for field in model._meta.concrete_fields}


def _converter(column: str) -> Callable[[Any], Any] | None:
    """Makes what the database holds of a column what the ORM makes of it; None where that is the same."""
    field = _field(column)
    # Of a key to another table this is what that table's own key is.
    expression = field.get_col(field.model._meta.db_table)
    found = [*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)]
    if not found:
        return None

    def convert(value: Any) -> Any:
        for each in found:
            value = each(value, expression, connection)
        return value

    return convert
