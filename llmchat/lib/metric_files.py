"""prometheus_client's files, with their room on the disk taken before it is mapped: a page of a sparse file for which a
full disk has no room would kill the process that writes to it. Without room, a process counts for itself alone.
"""

from __future__ import annotations

import logging
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

#: Bytes of a new file.
_FIRST: Final = 1 << 16
#: What an entry needs beside its key, at most: two numbers, the key's length, and padding.
_BESIDE_KEY: Final = 16 + 4 + 8


class Allocated(MmapedDict):
    _f: Any
    _m: Any
    _used: int
    _capacity: int

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            try:
                with Path(filename).open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, _FIRST)
            except OSError as error:
                self._count_alone(filename, error)
                return
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        while self._used + len(key.encode()) + _BESIDE_KEY > self._capacity:
            self._grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self) -> None:
        larger = self._capacity * 2
        try:
            os.posix_fallocate(self._f.fileno(), 0, larger)
            mapped = mmap.mmap(self._f.fileno(), larger)
        except OSError as error:
            _complain(error)
            mapped = mmap.mmap(-1, larger)
            mapped[: self._used] = self._m[: self._used]
        self._m, self._capacity = mapped, larger

    def _count_alone(self, filename: str, error: OSError) -> None:
        _complain(error)
        # Half a file would be taken for a damaged one.
        with suppress(OSError):
            Path(filename).unlink()
        self._f = Path(os.devnull).open("rb")  # noqa: SIM115 - closed with the rest
        self._fname = filename
        self._m, self._capacity = mmap.mmap(-1, _FIRST), _FIRST
        self._positions: dict[str, int] = {}
        self._used = 8
        self._m[:4] = self._used.to_bytes(4, "little")


def _complain(error: OSError) -> None:
    logger.error("Process %d counts for itself alone: its metrics have no room: %s", os.getpid(), error.strerror)
