"""Tables as bytes: typed columns and rows to CSV or JSON Lines, batch by batch. `llmchat.lib.parquet` writes Parquet.

CSV is RFC 4180 in UTF-8 without a byte order mark: a line of names, CRLF, an empty cell for None and for an empty text.
Against formulas that a spreadsheet would run, a text that begins with one of `RISKY` gets an apostrophe before it, as
OWASP advises (https://owasp.org/www-community/attacks/CSV_Injection). To undo it, take one leading apostrophe from
every text that has one (`restored`): a text that began with one got another. Numbers and moments are never touched.

JSON Lines has one object a row, in UTF-8. Decimals are texts there, lest a reader makes floats of them.

Moments are UTC in ISO 8601; lone surrogates, which no UTF-8 file can hold, become U+FFFD in every format. The functions
keep no state: bytes of one batch follow those of the batch before. They know nothing of what rows mean.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import orjson

#: What makes a formula of a cell in one spreadsheet or another; and the apostrophe, so that it can be undone.
RISKY: Final = frozenset("=+-@\t\r\n\0＝＋－＠'")  # noqa: RUF001 - spreadsheets take the wide forms, too


class Kind(enum.Enum):
    """What a column holds, or None. Of UUIDs, moments and decimals, their texts do as well."""

    TEXT = "text"
    JSON = "json"  # a document as JSON text
    UUID = "uuid"
    MOMENT = "moment"  # an aware datetime
    DECIMAL = "decimal"
    INTEGER = "integer"
    NUMBER = "number"  # a float
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind = Kind.TEXT


class Format(enum.Enum):
    """The formats, by the endings of their files."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"

    @property
    def content_type(self) -> str:
        return _CONTENT_TYPES[self]


_CONTENT_TYPES: Final = {
    Format.CSV: "text/csv; charset=utf-8",
    Format.JSONL: "application/x-ndjson",
    Format.PARQUET: "application/vnd.apache.parquet",
}

Rows = Sequence[Sequence[Any]]
Values = Sequence[Any]


def csv_head(columns: Sequence[Column]) -> bytes:
    """The line of names."""
    return _csv_lines([_quoted([column.name]) for column in columns])


def csv_rows(columns: Sequence[Column], rows: Rows) -> bytes:
    """The rows as lines of CSV."""
    if not rows:
        return b""
    return _csv_lines([_CSV[column.kind](values) for column, values in by_column(columns, rows)])


def jsonl_rows(columns: Sequence[Column], rows: Rows) -> bytes:
    """The rows as lines of JSON. Raises TypeError for an integer beyond 64 bits."""
    if not rows:
        return b""
    names = [column.name for column in columns]
    prepared = [
        convert(values) if (convert := _JSONL.get(column.kind)) else values
        for column, values in by_column(columns, rows)
    ]
    lines = []
    for row in zip(*prepared, strict=True):
        fields = dict(zip(names, row, strict=True))
        try:
            lines.append(orjson.dumps(fields, option=_OPTIONS))
        except TypeError:
            lines.append(orjson.dumps({name: clean(value) for name, value in fields.items()}, option=_OPTIONS))
    return b"".join(lines)


def encode(form: Format, columns: Sequence[Column], batches: Iterable[Rows]) -> Iterator[bytes]:
    """A whole CSV or JSON Lines file, a piece for each batch: for a streamed response."""
    if form is Format.CSV:
        yield csv_head(columns)
    lines = {Format.CSV: csv_rows, Format.JSONL: jsonl_rows}[form]
    for batch in batches:
        yield lines(columns, batch)


def restored(cell: str) -> str:
    """The text of which CSV made this cell."""
    return cell.removeprefix("'")


def clean(value: Any) -> Any:
    """A text without lone surrogates; anything else as it is."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def by_column(columns: Sequence[Column], rows: Rows) -> Iterator[tuple[Column, Values]]:
    """Each column with its values in the order of the rows."""
    return zip(columns, zip(*rows, strict=True), strict=True)


# --- CSV --------------------------------------------------------------------------------------------------------------
# A whole column at a time, and quotes by hand: less work than the csv module's, as bench.exports tells.

_NEEDS_QUOTES: Final = re.compile('[",\r\n]')


def _csv_lines(columns: Sequence[Sequence[str]]) -> bytes:
    lines = [",".join(cells) for cells in zip(*columns, strict=True)]
    if len(columns) == 1:
        lines = [line or '""' for line in lines]  # an empty line would be no row
    text = "\r\n".join([*lines, ""])
    try:
        return text.encode()
    except UnicodeEncodeError:
        return str(clean(text)).encode()


def _quoted(cells: Sequence[str]) -> Sequence[str]:
    if not _NEEDS_QUOTES.search("".join(cells)):
        return cells
    find = _NEEDS_QUOTES.search
    return ['"' + cell.replace('"', '""') + '"' if find(cell) else cell for cell in cells]


def _texts(values: Values) -> Sequence[str]:
    risky = RISKY
    return _quoted(["" if not value else f"'{value}" if value[0] in risky else value for value in values])


def _documents(values: Values) -> Sequence[str]:
    return _quoted(["" if value is None else value for value in values])


def _plain(values: Values) -> Sequence[str]:
    return ["" if value is None else str(value) for value in values]


def _booleans(values: Values) -> Sequence[str]:
    return ["" if value is None else "true" if value else "false" for value in values]


def _moment_texts(values: Values) -> Sequence[str]:
    # orjson writes them in less time than `isoformat` takes.
    return ["" if text is None else text for text in orjson.loads(orjson.dumps(_moments(values), option=_OPTIONS))]


def _decimal_texts(values: Values) -> Sequence[str]:
    return ["" if text is None else text for text in _decimals(values)]


_CSV: Final[dict[Kind, Callable[[Values], Sequence[str]]]] = {
    Kind.TEXT: _texts,
    Kind.JSON: _documents,
    Kind.UUID: _plain,
    Kind.MOMENT: _moment_texts,
    Kind.DECIMAL: _decimal_texts,
    Kind.INTEGER: _plain,
    Kind.NUMBER: _plain,
    Kind.BOOLEAN: _booleans,
}


# --- JSON Lines -------------------------------------------------------------------------------------------------------
_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


def _moments(values: Values) -> Values:
    return [
        value.astimezone(dt.UTC) if isinstance(value, dt.datetime) and value.tzinfo is not dt.UTC else value
        for value in values
    ]


def _decimals(values: Values) -> Values:
    return [format(value, "f") if isinstance(value, Decimal) else value for value in values]


def _fragments(values: Values) -> Values:
    known = _EMPTY_FRAGMENTS
    return [known[value] if value in known else orjson.Fragment(_in_one_line(value)) for value in values]


#: Most documents are empty.
_EMPTY_FRAGMENTS: Final = {None: None, "[]": orjson.Fragment("[]"), "{}": orjson.Fragment("{}")}


def _in_one_line(document: str) -> str:
    # Of all the white space that JSON allows, these would end the line. Inside its texts they are escaped.
    if "\n" in document or "\r" in document:
        document = document.replace("\n", " ").replace("\r", " ")
    return document if document.isascii() else str(clean(document))


#: orjson writes the others by itself.
_JSONL: Final[dict[Kind, Callable[[Values], Values]]] = {
    Kind.JSON: _fragments,
    Kind.MOMENT: _moments,
    Kind.DECIMAL: _decimals,
}
