"""Tables as CSV, JSON Lines and Parquet, read back by DuckDB: what went in comes out, whatever the texts hold."""

from __future__ import annotations

import csv
import datetime as dt
import io
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow.parquet as pq
import pytest

from llmchat.lib import parquet, tables
from llmchat.lib.tables import Column, Format, Kind

COLUMNS = (
    Column("id", Kind.UUID),
    Column("moment", Kind.MOMENT),
    Column("text"),
    Column("document", Kind.JSON),
    Column("cost", Kind.DECIMAL),
    Column("tokens", Kind.INTEGER),
    Column("seconds", Kind.NUMBER),
    Column("cached", Kind.BOOLEAN),
)
SQL_TYPES = {
    "id": "UUID",
    "moment": "TIMESTAMPTZ",
    "text": "VARCHAR",
    "document": "VARCHAR",
    "cost": "DECIMAL(20,12)",
    "tokens": "BIGINT",
    "seconds": "DOUBLE",
    "cached": "BOOLEAN",
}
ID = UUID("0192d3c5-7e10-7000-8000-000000000001")
MOMENT = dt.datetime(2026, 3, 1, 23, 59, 59, 123456, tzinfo=dt.UTC)

TEXTS = [
    "plain",
    'quotes "and" commas, and; semicolons',
    "lines\nand\r\nmore\rlines",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",  # noqa: RUF001 - spreadsheets take it for an equals sign
    "'quoted already",
    "''twice",
    "naïve 😀 数",
    "\u2028\u2029\ufeff",
    "\\N",
    "NULL",
    "a\0b",
    "\0=1",
    "  blanks  ",
    "x" * 1_000_000,
]


def row(text: str | None, *, document: str | None = '{"a": [1, "é"]}') -> tuple[object, ...]:
    return (ID, MOMENT, text, document, Decimal("0.000012300000"), -5, 812.5, True)


NOTHING = (ID, MOMENT, None, None, None, None, None, None)


def written(form: Format, rows: list[tuple[object, ...]]) -> bytes:
    if form is not Format.PARQUET:
        return b"".join(tables.encode(form, COLUMNS, [rows[:3], rows[3:]]))
    out = io.BytesIO()
    writer = parquet.Writer(out, COLUMNS)
    writer.write(rows[:3])
    writer.write(rows[3:])
    writer.close()
    return out.getvalue()


def read_by_duckdb(form: Format, data: bytes, tmp_path: Path) -> list[tuple[object, ...]]:
    path = tmp_path / f"table.{form.value}"
    path.write_bytes(data)
    source = {
        Format.CSV: "read_csv($path, columns=$types, header=true, delim=',', quote='\"', escape='\"', "
        "auto_detect=false, max_line_size=4000000)",
        Format.JSONL: "read_json($path, columns=$types, format='newline_delimited', maximum_object_size=4000000)",
        Format.PARQUET: "read_parquet($path)",
    }[form]
    names = ", ".join(name if name != "moment" else "epoch_us(moment)" for name in SQL_TYPES)
    values: dict[str, object] = {"path": str(path)}
    if form is not Format.PARQUET:
        values["types"] = SQL_TYPES
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {names} FROM {source}", values).fetchall()
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return [(UUID(str(id_)), epoch + dt.timedelta(microseconds=moment), *rest) for id_, moment, *rest in found]


def cells_of(data: bytes) -> list[list[str]]:
    limit = csv.field_size_limit(4_000_000)
    try:
        return list(csv.reader(io.StringIO(data.decode(), newline="")))
    finally:
        csv.field_size_limit(limit)


@pytest.mark.parametrize("form", Format)
def test_another_tool_reads_the_rows_that_were_written(form: Format, tmp_path: Path):
    rows = [row(text) for text in TEXTS]
    found = read_by_duckdb(form, written(form, rows), tmp_path)
    if form is Format.CSV:
        found = [(*one[:2], tables.restored(str(one[2])), *one[3:]) for one in found]
    if form is Format.JSONL:
        # DuckDB writes a document within the row in its own way.
        rows = [row(text, document='{"a":[1,"é"]}') for text in TEXTS]
    assert found == rows


@pytest.mark.parametrize("form", Format)
def test_nothing_stays_nothing(form: Format, tmp_path: Path):
    found = read_by_duckdb(form, written(form, [NOTHING, row("text")]), tmp_path)
    assert found[0] == NOTHING


@pytest.mark.parametrize("form", Format)
def test_a_lone_surrogate_becomes_the_replacement_character(form: Format, tmp_path: Path):
    document = '{"a": "\ud800"}'
    found = read_by_duckdb(form, written(form, [row("a\ud800b\ud83d\ude00", document=document)]), tmp_path)
    assert found[0][2] == "a\ufffdb😀"
    assert "\ufffd" in str(found[0][3])


def test_csv_is_what_the_standard_library_reads():
    head, *found = cells_of(written(Format.CSV, [row(text) for text in TEXTS]))
    assert head == [column.name for column in COLUMNS]
    assert [tables.restored(cells[2]) for cells in found] == TEXTS
    assert found[0][4:] == ["0.000012300000", "-5", "812.5", "true"]


def test_no_text_in_csv_begins_a_formula():
    cells = [cells[2] for cells in cells_of(written(Format.CSV, [row(text) for text in TEXTS]))]
    assert not [cell for cell in cells if cell[0] in tables.RISKY - {"'"}]


def test_a_table_of_one_column_keeps_its_empty_rows():
    columns = [Column("only")]
    data = tables.csv_head(columns) + tables.csv_rows(columns, [(None,), ("",), ("=1",)])
    assert data == b'only\r\n""\r\n""\r\n\'=1\r\n'


def test_names_are_quoted_and_no_rows_are_a_head_alone():
    assert b"".join(tables.encode(Format.CSV, [Column("a,b"), Column("c")], [[], []])) == b'"a,b",c\r\n'
    assert b"".join(tables.encode(Format.JSONL, COLUMNS, [[]])) == b""
    assert pq.read_table(io.BytesIO(written(Format.PARQUET, []))).num_rows == 0


def test_a_moment_is_written_in_utc_wherever_it_was():
    there = MOMENT.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    columns = [Column("moment", Kind.MOMENT)]
    assert tables.csv_rows(columns, [(there,)]) == b"2026-03-01T23:59:59.123456Z\r\n"
    assert tables.jsonl_rows(columns, [(there,)]) == b'{"moment":"2026-03-01T23:59:59.123456Z"}\n'
    assert parquet.batch_of(columns, [(there,)]).to_pylist() == [{"moment": MOMENT}]


def test_texts_of_uuids_moments_and_decimals_do_as_well():
    columns = COLUMNS[:2] + COLUMNS[4:5]
    as_texts = (str(ID), "2026-03-01T23:59:59.123456Z", "0.000012300000")
    as_values = (ID, MOMENT, Decimal("0.000012300000"))
    for lines in (tables.csv_rows, tables.jsonl_rows):
        assert lines(columns, [as_texts]) == lines(columns, [as_values])
    assert parquet.batch_of(columns, [as_texts]) == parquet.batch_of(columns, [as_values])


def test_a_document_of_several_lines_stays_in_one_line():
    line = tables.jsonl_rows([Column("document", Kind.JSON)], [('{\n"a": "b\\nc"\r\n}',)])
    assert line == b'{"document":{ "a": "b\\nc"  }}\n'


def test_parquet_is_typed_and_its_row_groups_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "GROUP_ROWS", 100)
    out = io.BytesIO()
    writer = parquet.Writer(out, COLUMNS)
    for _ in range(25):
        writer.write([row("text")] * 10)
    writer.close()
    file = pq.ParquetFile(out)
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [100, 100, 50]
    assert [str(field.type) for field in file.schema_arrow] == [
        "string",
        "timestamp[us, tz=UTC]",
        "string",
        "string",
        "decimal128(20, 12)",
        "int64",
        "double",
        "bool",
    ]


def test_row_groups_are_bounded_by_their_bytes_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parquet, "GROUP_BYTES", 10_000)
    out = io.BytesIO()
    writer = parquet.Writer(out, COLUMNS)
    for _ in range(3):
        writer.write([row("x" * 10_000)])
    writer.close()
    assert pq.ParquetFile(out).num_row_groups == 3
