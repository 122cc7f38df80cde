"""Tables as Parquet files, from the same columns and rows as `llmchat.lib.tables`.

UUIDs and JSON documents are strings, moments are timestamps in microseconds and UTC, decimals are decimal128(20, 12),
integers 64 bits. Imports pyarrow, which takes memory (`bench.exports` tells how much): only whoever writes Parquet
should import this.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from llmchat.lib.tables import Column, Kind, Rows, Values, by_column, clean

#: What a row group may hold: whoever reads the file has one in memory, and so has the writer.
GROUP_ROWS: Final = 65_536
GROUP_BYTES: Final = 64 * 1024 * 1024

_TYPES: Final = {
    Kind.TEXT: pa.string(),
    Kind.JSON: pa.string(),
    Kind.UUID: pa.string(),
    Kind.MOMENT: pa.timestamp("us", tz="UTC"),
    Kind.DECIMAL: pa.decimal128(20, 12),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
}


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.name, _TYPES[column.kind]) for column in columns])


def batch_of(columns: Sequence[Column], rows: Rows) -> pa.RecordBatch:
    """The rows as Arrow has them. Raises ValueError for a value that its column's type cannot hold."""
    arrays = [_array(column.kind, values) for column, values in by_column(columns, rows)] if rows else []
    schema = schema_of(columns)
    return pa.RecordBatch.from_arrays(arrays, schema=schema) if rows else schema.empty_table().to_batches()[0]


class Writer:
    """Writes a file; nobody can read it before `close`."""

    def __init__(self, out: IO[bytes], columns: Sequence[Column]) -> None:
        self._columns, self._schema = columns, schema_of(columns)
        self._file = pq.ParquetWriter(out, self._schema, compression="zstd")
        self._waiting: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def write(self, rows: Rows) -> None:
        if rows:
            self.write_batch(batch_of(self._columns, rows))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """As `write`, for what `batch_of` made."""
        self._waiting.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        self._write_group()
        self._file.close()

    def _write_group(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, schema=self._schema)
            self._file.write_table(table, row_group_size=len(table))
            self._waiting.clear()
            self._rows = self._bytes = 0


# --- Pieces that become a file later ----------------------------------------------------------------------------------
def spooled(columns: Sequence[Column], rows: Rows) -> bytes:
    """The rows as an Arrow stream of its own; what follows it in a file may be another."""
    batch = batch_of(columns, rows)
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_batch(batch)
    return bytes(out.getvalue())


def write_spooled(path: Path, out: IO[bytes], columns: Sequence[Column]) -> None:
    """Makes a Parquet file of a file of streams."""
    writer = Writer(out, columns)
    with path.open("rb") as spool:
        size = spool.seek(0, 2)
        spool.seek(0)
        while spool.tell() < size:
            for batch in pa.ipc.open_stream(spool):
                writer.write_batch(batch)
    writer.close()


def _array(kind: Kind, values: Values) -> pa.Array:
    type_ = _TYPES[kind]
    if kind is Kind.UUID:
        values = [None if value is None else str(value) for value in values]
    elif kind is Kind.MOMENT:
        values = [_moment(value) for value in values]
    elif kind is Kind.DECIMAL:
        values = [Decimal(value) if isinstance(value, str) else value for value in values]
    try:
        return pa.array(values, type_)
    except UnicodeEncodeError:
        return pa.array([clean(value) for value in values], type_)


def _moment(value: Any) -> Any:
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
