"""Prometheus over several processes: each writes its own files in one directory, any of them can tell the sum.

A directory belongs to one supervisor and its children. Without one (tests, single commands) the metrics of the process
itself are told. prometheus_client decides which it is when it is first imported.

The files are mapped into memory: to write to a page for which a full disk has no room kills a process. So they lie in
memory where there is a file system for that, and their room is taken before it is mapped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - what is made there is private, or not used


def place(directory: Path, *, memory: Path = SHARED_MEMORY) -> Path:
    """Where to count instead of in `directory`: in memory, in a directory of ours that belongs to that one; `directory`
    itself where there is no such memory, or somebody else has taken the name."""
    name = f"llmchat-{os.geteuid()}-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"
    found = memory / name
    if not _is_memory(memory):
        return directory
    try:
        with suppress(FileExistsError):
            found.mkdir(mode=0o700)
        about = found.lstat()
    except OSError as error:
        logger.warning("Metrics are counted on the disk: %s cannot be used: %s", found, error.strerror)
        return directory
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid() or about.st_mode & 0o077:
        logger.warning("Metrics are counted on the disk: %s is not ours alone. Remove it.", found)
        return directory
    return found


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
    from prometheus_client import values

    from llmchat.lib.metric_files import Allocated

    values.MmapedDict = Allocated  # type: ignore[attr-defined]
    return directory


def end(directory: Path) -> None:
    """Removes what `begin` made, and what it lay in if nobody else counts there."""
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):
        directory.parent.rmdir()


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


def _is_memory(path: Path) -> bool:
    """Whether a file system in memory is mounted there, and we may write to it."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    kinds = [words[2] for line in mounts if len(words := line.split()) > 2 and words[1] == str(path)]
    return kinds[-1:] == ["tmpfs"] and os.access(path, os.W_OK | os.X_OK)


def _is_running(name: str) -> bool:
    with suppress(ProcessLookupError, ValueError):
        # Somebody else's process is running too.
        with suppress(PermissionError):
            os.kill(int(name), 0)
        return True
    return False
