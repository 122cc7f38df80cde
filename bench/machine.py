"""What a benchmark must know of the machine and of processes: cores, versions, time used, memory. Linux only; it knows
nothing of gateways."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmchat.tests.servers import PROJECT

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (10^6 bytes): resident, and with what several processes share divided among them."""

    rss: float
    pss: float


@contextlib.contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """What is started inside runs on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def end_orderly() -> None:
    """SIGTERM ends this process as Ctrl-C does: what it started is ended with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def tree(pid: int) -> list[int]:
    """The process and all that descend from it, itself first."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of their children that have ended."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def memory(pids: Iterable[int]) -> Memory:
    """Of these processes together; one that is gone counts nothing."""
    rss = pss = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            rss += _kilobytes(rollup, "Rss")
            pss += _kilobytes(rollup, "Pss")
    return Memory(rss=round(rss * 1024 / 1e6, 1), pss=round(pss * 1024 / 1e6, 1))


def busy() -> float:
    """Seconds for which all cores together have worked, for whomever, since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / _TICKS


def strangers(seconds: float = 1.0) -> float:
    """How many cores others keep busy, measured over `seconds` in which we do nothing."""
    before = busy()
    time.sleep(seconds)
    return round((busy() - before) / seconds, 2)


def describe(packages: Iterable[str]) -> dict[str, Any]:
    """Processor, cores, memory, system, and the versions of `packages` and of what else takes part."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    total = re.search(r"^MemTotal:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), flags=re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(total[1]) * 1024 / 1e9, 1) if total else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def program_version(name: str, *arguments: str) -> str | None:
    """What a program says of its version; None when it is not installed."""
    path = shutil.which(name)
    if path is None:
        return None
    said = subprocess.run([path, *(arguments or ("--version",))], capture_output=True, text=True, check=False)
    return (said.stdout or said.stderr).strip().partition("\n")[0]


def commit() -> str:
    """The commit that is measured, with a plus when files were changed after it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--abbrev=7", "--dirty=+", "--exclude=*"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _kilobytes(rollup: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", rollup, flags=re.MULTILINE)
    return int(found[1]) if found else 0
