"""A report's table as CSV: raw values under the columns' own names, without texts of the record."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, Final

from analytics.reports.tables import Kind, Table
from llmchat.lib import tables

_KINDS: Final = {
    Kind.TEXT: tables.Kind.TEXT,
    Kind.COUNT: tables.Kind.INTEGER,
    Kind.MONEY: tables.Kind.DECIMAL,
    Kind.MILLISECONDS: tables.Kind.NUMBER,
    Kind.SHARE: tables.Kind.NUMBER,
    Kind.MOMENT: tables.Kind.MOMENT,
    Kind.DAY: tables.Kind.TEXT,
}


def csv_of(table: Table) -> bytes:
    """Every line, in the order of the table, without its total: what reads it adds up by itself."""
    told = [column for column in table.columns if not column.is_private]
    columns = [tables.Column(column.name, _KINDS[column.kind]) for column in told]
    rows = [[raw(line.values.get(column.name)) for column in told] for line in table.lines]
    return tables.csv_head(columns) + tables.csv_rows(columns, rows)


def raw(value: Any) -> Any:
    """As a machine reads it: no more digits than are meant, days in ISO 8601."""
    match value:
        case Decimal():
            return Decimal(f"{value:f}".rstrip("0").rstrip(".")) if "." in f"{value:f}" else value
        case float():
            return float(f"{value:.6g}")
        case dt.datetime():
            return value
        case dt.date():
            return value.isoformat()
        case _:
            return value
