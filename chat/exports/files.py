"""A file that is written piece by piece, and gone on with by another process when this one dies.

    FILE.part        what is written so far
    FILE.part.json   how much of it counts, and what the next piece begins with: the `Checkpoint`

A piece counts once it is on the disk and the checkpoint after it says so; what was written since is cut off by whoever
goes on. At the end the part takes FILE's name: nobody ever sees half a file under it. CSV and JSON Lines are written as
they are. Parquet cannot be gone on with: its part is a row of Arrow streams, of which `finish` makes the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import orjson

from llmchat.lib import tables
from llmchat.lib.tables import Column, Format, Rows


class Unusable(Exception):
    """The file cannot be written, or not be gone on with. The message says why, and what helps."""


class Busy(Unusable):
    """Another process writes it."""


@dataclass(slots=True, kw_only=True)
class Checkpoint:
    """`what`: what the file is to hold, which must not change on the way, with the names of its columns. `last`: the
    first value of the last row; `rows` and `bytes`: how many are written. `secret`: see `reading.Reader`, as
    hexadecimal digits."""

    what: dict[str, Any]
    secret: str = ""
    last: str | None = None
    rows: int = 0
    bytes: int = 0

    def fits(self, columns: Sequence[Column]) -> bool:
        """Whether rows still have the columns that the file began with."""
        return bool(self.what.get("columns") == [column.name for column in columns])


@dataclass(slots=True)
class Partial:
    """A file on its way. Made by `begin` or `resume`; a context, which lets go of it and leaves what is there."""

    path: Path
    form: Format
    columns: Sequence[Column]
    checkpoint: Checkpoint
    _out: IO[bytes] = field(init=False)

    @classmethod
    def begin(
        cls, path: Path, form: Format, columns: Sequence[Column], checkpoint: Checkpoint, *, force: bool = False
    ) -> Self:
        """Begins anew; what was there is only overwritten with `force`. Raises Unusable or OSError."""
        if not force and path.exists():
            raise Unusable(f"{path} is there already. Name another file, or overwrite it with --force.")
        if not force and checkpoint_path(path).exists():
            raise Unusable(f"An export to {path} was not finished. Go on with --resume, or begin anew with --force.")
        partial = cls(path, form, columns, checkpoint)
        partial._open(keep=0)
        if form is Format.CSV:
            partial._out.write(tables.csv_head(columns))
        partial.save()
        return partial

    @classmethod
    def resume(cls, path: Path, form: Format, columns: Sequence[Column], checkpoint: Checkpoint) -> Self:
        """Goes on from the checkpoint. Raises Unusable or OSError."""
        partial = cls(path, form, columns, checkpoint)
        try:
            size = part_path(path).stat().st_size
        except FileNotFoundError:
            size = -1
        if size < checkpoint.bytes:
            raise Unusable(f"{part_path(path)} is gone or has been cut. Begin anew with --force.")
        partial._open(keep=checkpoint.bytes)
        return partial

    def _open(self, *, keep: int) -> None:
        descriptor = os.open(part_path(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._out = os.fdopen(descriptor, "r+b", buffering=1024 * 1024)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._out.close()
            raise Busy(f"Another process is writing {self.path}. Wait for it, or end it.") from None
        self._out.truncate(keep)
        self._out.seek(keep)

    def write(self, rows: Rows) -> None:
        """Adds rows; they count from the next `save` on."""
        self._out.write(encoded(self.form, self.columns, rows))
        self.checkpoint.rows += len(rows)
        self.checkpoint.last = str(rows[-1][0])

    def save(self) -> None:
        """Lets all that was written count."""
        self._out.flush()
        os.fsync(self._out.fileno())
        self.checkpoint.bytes = self._out.tell()
        target = checkpoint_path(self.path)
        _write(target.with_name(f"{target.name}.new"), orjson.dumps(dataclasses.asdict(self.checkpoint)), final=target)

    def finish(self) -> int:
        """Makes the file of the part. Returns its bytes."""
        self.save()
        part = part_path(self.path)
        if self.form is Format.PARQUET:
            whole = part.with_name(f"{part.name}.parquet")
            descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                _parquet().write_spooled(part, out, self.columns)
                out.flush()
                os.fsync(out.fileno())
            whole.replace(self.path)
        else:
            part.replace(self.path)
        _sync(self.path.parent)
        self.close()
        discard(self.path)
        return self.path.stat().st_size

    def close(self) -> None:
        self._out.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What is buffered and does not count would only be cut off again; and on a full disk it cannot be written.
        with contextlib.suppress(OSError):
            self._out.close()


class Stream:
    """Rows onto a stream that nobody can go on with, such as standard output; has what a `Partial` has."""

    def __init__(self, out: IO[bytes], form: Format, columns: Sequence[Column], checkpoint: Checkpoint) -> None:
        self.form, self.columns, self.checkpoint = form, columns, checkpoint
        self._out = out
        self._parquet: Any = None
        self._has_begun = False

    def _begin(self) -> None:
        if self._has_begun:
            return
        self._has_begun = True
        if self.form is Format.PARQUET:
            self._parquet = _parquet().Writer(self._out, self.columns)
        elif self.form is Format.CSV:
            self._out.write(tables.csv_head(self.columns))

    def write(self, rows: Rows) -> None:
        self._begin()
        if self._parquet:
            self._parquet.write(rows)
        else:
            self._out.write(encoded(self.form, self.columns, rows))
        self.checkpoint.rows += len(rows)
        self.checkpoint.last = str(rows[-1][0])

    def save(self) -> None:
        self._out.flush()

    def finish(self) -> None:
        self._begin()
        if self._parquet:
            self._parquet.close()
        self._out.flush()


def encoded(form: Format, columns: Sequence[Column], rows: Rows) -> bytes:
    """The rows as the part of a file has them."""
    if form is Format.PARQUET:
        spooled: bytes = _parquet().spooled(columns, rows)
        return spooled
    return (tables.csv_rows if form is Format.CSV else tables.jsonl_rows)(columns, rows)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint of an unfinished file. Raises Unusable without one."""
    try:
        return Checkpoint(**orjson.loads(checkpoint_path(path).read_bytes()))
    except FileNotFoundError:
        raise Unusable(f"There is no unfinished export to {path}. Begin one without --resume.") from None
    except (ValueError, TypeError):
        raise Unusable(f"{checkpoint_path(path)} cannot be read. Begin anew with --force.") from None


def discard(path: Path) -> None:
    """Removes what is left of an unfinished file."""
    for each in (part_path(path), part_path(path).with_name(f"{part_path(path).name}.parquet"), checkpoint_path(path)):
        each.unlink(missing_ok=True)


def part_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def checkpoint_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _parquet() -> Any:
    # It takes memory that only Parquet needs; see bench.exports.
    from llmchat.lib import parquet

    return parquet


def _write(path: Path, data: bytes, *, final: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    path.replace(final)
    _sync(final.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
