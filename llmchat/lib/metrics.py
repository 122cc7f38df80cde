"""Prometheus over several processes: each writes its own files in one directory, any of them can tell the sum.

A directory belongs to one supervisor and its children. Without one (tests, single commands) the metrics of the process
itself are told. prometheus_client decides which it is when it is first imported.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def begin(base: Path) -> Path:
    """Makes this process and those that it starts count in a fresh directory below `base`; clears away those of
    supervisors that are gone. Call it before anything that counts is imported."""
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client is imported already: it would count for this process alone")
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = base / str(os.getpid())
    for left in base.iterdir():
        if left == directory or not _is_running(left.name):
            shutil.rmtree(left, ignore_errors=True)
    directory.mkdir(mode=0o700)
    os.environ[VARIABLE] = str(directory)
    return directory


def end(directory: Path) -> None:
    """Removes what `begin` made."""
    shutil.rmtree(directory, ignore_errors=True)


def forget(pid: int) -> None:
    """Takes a process that is gone out of what counts only the living; its counters stay in the sum."""
    if VARIABLE in os.environ:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition() -> tuple[bytes, str]:
    """All metrics in Prometheus' text format, and its content type. Reads files: not for the event loop."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if VARIABLE in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def _is_running(name: str) -> bool:
    with suppress(ProcessLookupError, ValueError):
        # Somebody else's process is running too.
        with suppress(PermissionError):
            os.kill(int(name), 0)
        return True
    return False
