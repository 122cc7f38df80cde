"""UUIDv7 (RFC 9562, section 5.7): ids ordered by the time at which they were made.

Ordered within a process whatever the clock does: 48 bits of milliseconds, 12 + 30 bits of a counter (method 1 of
section 6.2, "fixed bit-length dedicated counter"), 32 random bits. When the clock steps back, the last time is kept and
the counter runs on.
"""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from uuid import UUID, SafeUUID

_COUNTER_BITS = 42
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1

_ENTROPY_BYTES = 9

#: The bits that tell version and variant, and what they are here.
_MARKS = (0xF << 76) | (3 << 62)
_VERSION_7 = (7 << 76) | (2 << 62)

_put_number: Callable[[UUID, int], None] = UUID.int.__set__  # type: ignore[misc, attr-defined]
#: Looked up once: to ask an enumeration for its member costs as much as all else about an id.
_UNKNOWN = SafeUUID.unknown
_put_safety: Callable[[UUID, SafeUUID], None] = UUID.is_safe.__set__  # type: ignore[misc, attr-defined]

_lock = threading.Lock()
_pool = b""
_used = 0
_last_ms = 0
_counter = 0


def uuid7() -> UUID:
    """A new id, greater than every id that this process has made before."""
    global _last_ms, _counter  # noqa: PLW0603 - the process's clock is the state
    with _lock:
        entropy = _entropy()
        now = time.time_ns() // 1_000_000
        if now > _last_ms:
            # The top bit of a fresh counter is left 0, so that there is always room to count.
            _last_ms, _counter = now, (entropy >> 32) & (_COUNTER_MASK >> 1)
        else:
            _counter += 1
            if _counter > _COUNTER_MASK:
                _last_ms, _counter = _last_ms + 1, 0
        ms, counter = _last_ms, _counter
    return _assemble(ms, counter, entropy & 0xFFFFFFFF)


def _entropy() -> int:
    """72 random bits, each used once. To be called with the lock held."""
    global _pool, _used  # noqa: PLW0603
    if _used + _ENTROPY_BYTES > len(_pool):
        # A supply: to ask the system lets go of the interpreter, which in a busy process comes back late.
        _pool, _used = os.urandom(_ENTROPY_BYTES * 500), 0
    _used += _ENTROPY_BYTES
    return int.from_bytes(_pool[_used - _ENTROPY_BYTES : _used], "big")


def floor_at(moment: dt.datetime) -> UUID:
    """The least id of `moment`'s millisecond: every id made at or after it is at least this one. What is before 1970 is
    before every id."""
    return _assemble(max(0, int(moment.timestamp() * 1000)), 0, 0)


def moment_of(identifier: UUID) -> dt.datetime:
    """When `identifier` was made, in UTC, to the millisecond. Raises ValueError for another kind of UUID."""
    number = identifier.int
    if number & _MARKS != _VERSION_7:
        raise ValueError(f"{identifier} is not a UUIDv7")
    return dt.datetime.fromtimestamp((number >> 80) / 1000, dt.UTC)


def _assemble(ms: int, counter: int, random: int) -> UUID:
    high, low = counter >> 30, counter & 0x3FFFFFFF
    made = UUID.__new__(UUID)
    # What UUID(int=...) does, without first looking for the six other ways to make one.
    _put_number(made, (ms << 80) | _VERSION_7 | (high << 64) | (low << 32) | random)
    _put_safety(made, _UNKNOWN)
    return made


def _after_fork_in_child() -> None:
    """A fork copies time and counter, and what is left of the entropy; fresh one keeps the two processes' ids apart."""
    global _counter, _pool, _lock  # noqa: PLW0603
    _pool, _lock = b"", threading.Lock()
    _counter = (int.from_bytes(os.urandom(6), "big")) & (_COUNTER_MASK >> 1)


os.register_at_fork(after_in_child=_after_fork_in_child)
