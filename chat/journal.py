"""The write-ahead journal of one process: what an exchange is about to do is on disk before the first upstream byte.

    DATA_DIR/journal/<process>/owner.lock        held (flock) by the living process: a dead one's can be claimed
                              /00000001.journal  segments, appended to and never rewritten

A record is one line, so that a torn or damaged one costs only itself:

    crc32 of the rest (8 hex digits)  kind (one letter)  id of the exchange (32 hex digits)  facts (JSON, or encrypted)

A `write` survives a killed process, `sync` a lost machine too. The journal knows neither rows nor the database:
it keeps `begin` and `end` of exchanges by their ids, and drops a segment once all that began in it is settled.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast
from uuid import UUID

import orjson

from chat.encryption import seal, unseal
from llmchat.lib.uuid7 import uuid7

logger = logging.getLogger(__name__)

#: Size in bytes from which the next record begins a new segment.
SEGMENT_BYTES: Final = 8 * 1024 * 1024
#: Bytes that each open exchange may still want for its end: what `begin` keeps free for those that run.
END_RESERVE: Final = 16 * 1024

#: How the name of a journal begins that its process is about to take.
UNBORN: Final = "."
_SUFFIX: Final = ".journal"
_LOCK: Final = "owner.lock"

Kind = Literal["B", "A", "E"]
"""Begin of an exchange, a further attempt of it, its end."""


class JournalError(Exception):
    """The journal cannot take a record."""


class JournalFull(JournalError):
    """The bound is reached or the disk is full."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: its segment's file and the bytes of its line."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record as read back. `exchange` is the id of the interaction that it belongs to."""

    kind: Kind
    exchange: UUID
    facts: dict[str, Any]
    place: Place


@dataclass(slots=True)
class _Segment:
    path: Path
    descriptor: int
    size: int = 0
    synced: int = 0
    exchanges: set[UUID] = field(default_factory=set)


class Journal:
    """The journal of this process; safe to use from several threads.

    `directory`: that of all journals, `DATA_DIR/journal`. `max_bytes`: bound of this one.
    Raises JournalError when the directory cannot be used.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.path = directory / str(uuid7())
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._segments: list[_Segment] = []
        self._where: dict[UUID, list[_Segment]] = {}
        self._bytes = 0
        self._number = 0
        # Under a name that nobody claims until the lock is held.
        unborn = self.path.with_name(f"{UNBORN}{self.path.name}")
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(directory, fcntl.LOCK_SH):
                unborn.mkdir(mode=0o700)
                owner = lock(unborn)
                unborn.rename(self.path)
        except OSError as error:
            raise JournalError(f"The journal cannot be made in {directory}: {error.strerror}.") from error
        if owner is None:
            raise JournalError(f"The journal {self.path} is in use by another process.")
        self._owner = owner

    @property
    def size(self) -> int:
        """Bytes on disk now."""
        return self._bytes

    @property
    def has_room(self) -> bool:
        """Whether another exchange may begin, as far as the bound goes."""
        return self._bytes + END_RESERVE * (len(self._where) + 1) <= self.max_bytes

    @property
    def unsettled(self) -> int:
        """Exchanges that have begun and are not settled."""
        return len(self._where)

    def begin(self, exchange: UUID, facts: Mapping[str, Any]) -> None:
        """Puts an exchange's beginning on disk. Raises JournalFull before anything is spent."""
        line = _line("B", exchange, facts)
        with self._lock:
            if self._bytes + len(line) + END_RESERVE * (len(self._where) + 1) > self.max_bytes:
                raise JournalFull(f"The journal holds {self._bytes} of {self.max_bytes} bytes.")
            self._append(exchange, line)

    def attempt(self, exchange: UUID, facts: Mapping[str, Any]) -> None:
        """Puts a further attempt of an exchange on disk, before its first byte goes out."""
        line = _line("A", exchange, facts)
        with self._lock:
            self._append(exchange, line)

    def end(self, exchange: UUID, facts: Mapping[str, Any]) -> Place:
        """Puts an exchange's end on disk, bound or not: who was let in may finish. JournalFull: the disk is."""
        line = _line("E", exchange, facts)
        with self._lock:
            return self._append(exchange, line)

    def settle(self, exchanges: Iterable[UUID]) -> None:
        """The exchanges' rows are committed: what the journal holds of them is not needed any more."""
        done: list[_Segment] = []
        with self._lock:
            for exchange in exchanges:
                for segment in self._where.pop(exchange, ()):
                    segment.exchanges.discard(exchange)
            for segment in [segment for segment in self._segments if not segment.exchanges]:
                # The one that is written to stays until it is worth its removal.
                if segment is not self._segments[-1] or segment.size >= SEGMENT_BYTES // 8:
                    self._segments.remove(segment)
                    self._bytes -= segment.size
                    done.append(segment)
        for segment in done:
            self._remove(segment)

    def sync(self) -> None:
        """Returns when all that was written before the call survives the loss of the machine."""
        with self._sync_lock:
            with self._lock:
                behind = [(segment, segment.size) for segment in self._segments if segment.synced < segment.size]
            for segment, size in behind:
                os.fsync(segment.descriptor)
                segment.synced = size

    def close(self) -> None:
        """Lets go of the journal. Nothing is left of it if all is settled; otherwise the next process replays it."""
        with self._lock:
            for segment in self._segments:
                os.close(segment.descriptor)
                if not self._where:
                    segment.path.unlink()
            self._segments.clear()
        if not self._where:
            remove(self.path)
        os.close(self._owner)

    def _append(self, exchange: UUID, line: bytes) -> Place:
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.size >= SEGMENT_BYTES:
            segment = self._new_segment()
        offset = segment.size
        try:
            written = os.write(segment.descriptor, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, "only a part was written")
        except OSError as error:
            # Half a line would be read as damage; without it nothing has happened.
            with suppress(OSError):
                os.ftruncate(segment.descriptor, offset)
            raise JournalFull(f"The journal cannot be written: {error.strerror}.") from error
        segment.size += len(line)
        self._bytes += len(line)
        if exchange not in segment.exchanges:
            segment.exchanges.add(exchange)
            self._where.setdefault(exchange, []).append(segment)
        return Place(segment.path, offset, len(line))

    def _new_segment(self) -> _Segment:
        self._number += 1
        path = self.path / f"{self._number:08d}{_SUFFIX}"
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        except OSError as error:
            raise JournalFull(f"The journal cannot be written: {error.strerror}.") from error
        segment = _Segment(path, descriptor)
        self._segments.append(segment)
        return segment

    def _remove(self, segment: _Segment) -> None:
        with self._sync_lock:
            os.close(segment.descriptor)
            segment.path.unlink(missing_ok=True)


def lock(path: Path) -> int | None:
    """Takes the journal at `path` for this process: the lock's descriptor, or None when a living process has it."""
    descriptor = os.open(path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    # Whoever had it may have removed it between our opening and locking.
    if os.fstat(descriptor).st_nlink == 0:
        os.close(descriptor)
        return None
    return descriptor


def is_owned(path: Path) -> bool:
    """Whether a living process has the journal at `path`. Asks without making the lock's file, and for an instant only:
    whoever wants the journal meanwhile finds it taken."""
    try:
        descriptor = os.open(path / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove(path: Path) -> None:
    """Removes a journal whose segments are gone. What does not belong to it stays, and the directory with it."""
    (path / _LOCK).unlink(missing_ok=True)
    try:
        path.rmdir()
    except FileNotFoundError:
        # Another process found the same journal without segments, and was quicker.
        return
    except OSError as error:
        logger.info("The journal %s is not removed: %s", path, error.strerror)


def remove_stillborn(directory: Path) -> None:
    """Removes what is left of journals whose processes were killed while they made them; later, if another one is just
    being made."""
    with suppress(OSError), _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for path in directory.glob(f"{UNBORN}????????-????-????-????-????????????"):
            remove(path)


@contextmanager
def _locked(directory: Path, kind: int) -> Iterator[None]:
    """Holds a lock on the directory of all journals, shared by those who make one."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def segments(path: Path) -> list[Path]:
    """The segments of the journal at `path` in their order."""
    return sorted(entry for entry in path.iterdir() if entry.suffix == _SUFFIX)


def read(path: Path, *, on_damage: Callable[[str], None]) -> Iterator[Record]:
    """The records of one segment in order. A damaged one is told to `on_damage` and passed over.

    A torn last one is what a killed process leaves: nobody was told that it was written, so that nothing is lost.
    """
    offset = 0
    with path.open("rb") as file:
        for line in file:
            place = Place(path, offset, len(line))
            offset += len(line)
            if not line.endswith(b"\n"):
                logger.warning("%s ends in a torn record of %d bytes.", path, len(line))
                return
            try:
                yield _parsed(line, place)
            except ValueError as error:
                on_damage(f"{path} at byte {place.offset}: {error}")


def fetch(place: Place) -> Record:
    """The record at `place`. Raises ValueError when it is not what was written, OSError when it cannot be read."""
    with place.path.open("rb") as file:
        file.seek(place.offset)
        return _parsed(file.read(place.length), place)


def _line(kind: Kind, exchange: UUID, facts: Mapping[str, Any]) -> bytes:
    rest = b"%s %s %s" % (kind.encode(), exchange.hex.encode(), seal(orjson.dumps(facts)))
    return b"%08x %s\n" % (zlib.crc32(rest), rest)


def _parsed(line: bytes, place: Place) -> Record:
    if not line.endswith(b"\n"):
        raise ValueError("a record is torn")
    checksum, _, rest = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(rest):
        raise ValueError("a record is damaged")
    kind, exchange, facts = rest.split(b" ", 2)
    return Record(cast("Kind", kind.decode()), UUID(exchange.decode()), orjson.loads(unseal(facts)), place)
