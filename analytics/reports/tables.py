"""What a report says, as values: tables with typed columns, sentences, a chart. Knows neither HTML nor the record.

Values are raw (numbers, moments, names), so that a table sorts and goes into a file as it is; `written` puts them in
words for people.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from chat.admin import formats


class Kind(StrEnum):
    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    MILLISECONDS = "milliseconds"
    SHARE = "share"
    MOMENT = "moment"
    DAY = "day"


#: Kinds that stand at the right of their column.
NUMBERS: Final = frozenset({Kind.COUNT, Kind.MONEY, Kind.MILLISECONDS, Kind.SHARE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`is_private`: texts of the record, which are shown to who may read them and never leave by mail or file."""

    name: str
    label: str
    kind: Kind = Kind.TEXT
    is_private: bool = False

    @property
    def is_number(self) -> bool:
        return self.kind in NUMBERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Values by the names of columns. `leads_to`: the address of what the line counts, or what writes it: pages show
    the first few of many lines."""

    values: Mapping[str, Any]
    leads_to: str | Callable[[], str] = ""

    @property
    def url(self) -> str:
        return self.leads_to if isinstance(self.leads_to, str) else self.leads_to()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`total`: the values of a last line. `empty`: what to say when there are no lines. `bar`: the column whose values
    are drawn beside the first one."""

    name: str
    title: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    total: Mapping[str, Any] | None = None
    note: str = ""
    empty: str = "Nothing in this range."
    bar: str = ""
    is_sortable: bool = True


class Tone(StrEnum):
    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    text: str
    tone: Tone = Tone.PLAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars, one for each point, in order."""

    title: str
    kind: Kind
    points: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A report's answer. The first table is the one that is sorted on screen and goes into the file."""

    tables: Sequence[Table]
    remarks: Sequence[Remark] = ()
    chart: Chart | None = None
    pending_since: dt.datetime | None = None
    figures: Sequence[tuple[str, str]] = field(default=())


def ordered(table: Table, by: str) -> Table:
    """Sorted by the column of this name, falling with a minus before it; what is not known comes last. Another name
    leaves the table as it is."""
    name, is_falling = by.removeprefix("-"), by.startswith("-")
    if not table.is_sortable or all(column.name != name for column in table.columns):
        return table
    known = [line for line in table.lines if line.values.get(name) is not None]
    unknown = [line for line in table.lines if line.values.get(name) is None]
    known.sort(key=lambda line: _key(line.values[name]), reverse=is_falling)
    return replace(table, lines=[*known, *unknown])


def _key(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def without_private(outcome: Outcome) -> Outcome:
    """What may leave the admin."""
    tables = [
        replace(table, columns=[column for column in table.columns if not column.is_private])
        for table in outcome.tables
    ]
    return replace(outcome, tables=tables)


def written(kind: Kind, value: Any) -> str:
    """For people."""
    match kind:
        case Kind.MONEY:
            return formats.money(None if value is None else Decimal(str(value)))
        case Kind.MILLISECONDS:
            return formats.milliseconds(value)
        case Kind.COUNT:
            return formats.count(value)
        case Kind.SHARE:
            return formats.NOTHING if value is None else percent(value)
        case Kind.MOMENT:
            return formats.NOTHING if value is None else f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"
        case Kind.DAY:
            return formats.NOTHING if value is None else f"{value:%Y-%m-%d}"
        case Kind.TEXT:
            return formats.NOTHING if value is None else str(value)


def percent(share: float) -> str:
    """Few among many are never rounded to none, nor nearly all to all."""
    value = 100 * share
    if 0 < value < 0.1:
        return "<0.1 %"
    if 99.95 <= value < 100:
        return ">99.9 %"
    return f"{value:.1f} %"
