"""What the kernel says of processes (`/proc`), any of which may be gone by the time it is asked about."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """Ids of its children, those included that have ended and are not yet waited for."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
