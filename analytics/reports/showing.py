"""Tables and charts of reports as templates show them: every value in words, bars measured. No markup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from analytics.reports.tables import Chart, Column, Kind, Line, Table, written

#: Lines that a page shows; the file has all.
LINES_AT_MOST: Final = 200
#: Units of the chart's drawing.
_WIDTH, _HEIGHT = 1000.0, 160.0
#: The part of a point's room that its bar takes.
_FILLED: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A column's head: `url` sorts by it, `arrow` says that it is sorted by."""

    label: str
    is_number: bool
    url: str = ""
    order: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    text: str
    is_number: bool
    is_long: bool = False
    bar: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    name: str
    title: str
    heads: list[Head]
    lines: list[list[Cell]]
    total: list[Cell]
    note: str
    empty: str
    hidden: int


def table(shown: Table, *, sort: str = "", link: Callable[[str], str] | None = None) -> ShownTable:
    """`sort`: the column it is sorted by, with a minus when falling. `link`: the address that sorts by another."""
    most = max((_number(line.values.get(shown.bar)) for line in shown.lines), default=0.0) if shown.bar else 0.0
    return ShownTable(
        name=shown.name,
        title=shown.title,
        heads=[_head(column, sort, link if shown.is_sortable and shown.lines else None) for column in shown.columns],
        lines=[_cells(shown, line, most) for line in shown.lines[:LINES_AT_MOST]],
        total=_total(shown) if shown.lines and shown.total is not None else [],
        note=shown.note,
        empty=shown.empty,
        hidden=max(0, len(shown.lines) - LINES_AT_MOST),
    )


def _head(column: Column, sort: str, link: Callable[[str], str] | None) -> Head:
    order = {column.name: "ascending", f"-{column.name}": "descending"}.get(sort, "none")
    # Numbers are asked for from the largest down, names from the first on; once more turns it round.
    falling = order == "ascending" or (order == "none" and column.is_number)
    url = link(f"{'-' if falling else ''}{column.name}") if link else ""
    return Head(label=column.label, is_number=column.is_number, url=url, order=order)


def _cells(shown: Table, line: Line, most: float) -> list[Cell]:
    cells = []
    for index, column in enumerate(shown.columns):
        share = _number(line.values.get(shown.bar)) / most if index == 0 and most > 0 else 0.0
        cells.append(
            Cell(
                text=written(column.kind, line.values.get(column.name)),
                is_number=column.is_number,
                is_long=column.is_private,
                bar=f"{100 * share:.1f}%" if share else "",
                url=line.url if index == 0 else "",
            )
        )
    return cells


def _total(shown: Table) -> list[Cell]:
    values = shown.total or {}
    cells = [
        Cell(
            text=written(column.kind, values[column.name]) if column.name in values else "",
            is_number=column.is_number,
        )
        for column in shown.columns
    ]
    return [Cell(text="Total", is_number=False), *cells[1:]] if not cells[0].text else cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    label: str
    value: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownChart:
    title: str
    bars: list[Bar]
    first: str
    last: str
    most: str
    width: float = _WIDTH
    height: float = _HEIGHT


def chart(drawn: Chart) -> ShownChart | None:
    """Bars in a drawing of fixed size that the page stretches; None without points."""
    if not drawn.points:
        return None
    most = max(value for _, value in drawn.points)
    room = _WIDTH / len(drawn.points)
    bars = []
    for index, (label, value) in enumerate(drawn.points):
        height = _HEIGHT * value / most if most > 0 else 0.0
        bars.append(
            Bar(
                label=label,
                value=_in_words(drawn.kind, value),
                x=f"{room * (index + (1 - _FILLED) / 2):.2f}",
                y=f"{_HEIGHT - height:.2f}",
                width=f"{room * _FILLED:.2f}",
                height=f"{height:.2f}",
            )
        )
    return ShownChart(
        title=drawn.title,
        bars=bars,
        first=drawn.points[0][0],
        last=drawn.points[-1][0],
        most=_in_words(drawn.kind, most),
    )


def _in_words(kind: Kind, value: float) -> str:
    return written(kind, round(value) if kind is Kind.COUNT else round(value, 8))


def _number(value: Any) -> float:
    return float(value) if value is not None else 0.0
