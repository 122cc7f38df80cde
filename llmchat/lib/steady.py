"""The time of day for what is counted by the hour: it follows the machine's clock forward and never back.

When the clock is set back, an hour that has been used up must not come again; what is asked here then simply goes on,
by the machine's uptime, for the life of the process.
"""

from __future__ import annotations

import time

#: Seconds from the machine's uptime to the time of day, the most that were ever seen.
_offset = float("-inf")


def now() -> float:
    """Seconds since 1970, at least as many as at any earlier call."""
    global _offset  # noqa: PLW0603 - the process's clock is the state
    uptime = time.monotonic()
    _offset = max(_offset, time.time() - uptime)
    return uptime + _offset


def forget() -> None:
    """Believes the machine's clock again."""
    global _offset  # noqa: PLW0603 - the process's clock is the state
    _offset = float("-inf")
