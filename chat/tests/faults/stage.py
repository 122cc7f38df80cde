"""What a fault is played on: llmchat under load, a vendor with a log, and a look at the books afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmchat.tests import ledger
from llmchat.tests.calls import Call
from llmchat.tests.ledger import Report
from llmchat.tests.load import Load
from llmchat.tests.mock_upstream import MockUpstream, UpstreamCall
from llmchat.tests.processes import children, is_running
from llmchat.tests.servers import LiveServer
from llmchat.tests.waiting import eventually

#: A call that takes about 0.1 s, so that some are always under way.
BRISK = "openai/mock-20?first=0.02&delay=0.004"


@dataclass(frozen=True, slots=True)
class Stage:
    """A running server with a key and one for metrics, its vendor, and how many workers it has. `tell` is for the run's
    summary."""

    server: LiveServer
    upstream: MockUpstream
    key: str
    metrics_key: str
    workers: int
    tell: Callable[[str], None]

    @property
    def journal(self) -> Path:
        return self.server.data / "journal"

    def load(self, *, model: str = BRISK, **options: Any) -> Load:
        return Load(self.server.base_url, key=self.key, model=model, **options)

    def web_workers(self) -> list[int]:
        """Process ids of the living workers."""
        return [pid for pid in children(self.server.pid) if is_running(pid)]

    def end_worker(self, pid: int, sign: signal.Signals) -> None:
        """Sends `sign` to one worker and returns when another one is in its place."""
        os.kill(pid, sign)
        eventually(
            lambda: not is_running(pid) and len(self.web_workers()) == self.workers,
            wanted=f"another worker in the place of {pid}",
        )

    def answering_worker(self) -> int:
        """The process that holds the only claim on a request id, by the journal that it has locked."""
        [claim] = ledger.claims(self.server)
        lock = str(self.journal / str(claim.journal) / "owner.lock")
        [pid] = [pid for pid in self.web_workers() if lock in open_files(pid)]
        return pid

    def settled(self, calls: Iterable[Call]) -> Report:
        """The books once they agree, or as they are when patience is at its end; told."""
        report = ledger.settled(self.server, upstream=self.upstream.calls, clients=calls)
        self.tell(str(report))
        return report

    def close_the_books(self, calls: Iterable[Call]) -> None:
        """Nothing is missing, nothing twice, and it stays so; an orderly end leaves nothing behind; the product's own
        proof of its record agrees. No key was refused meanwhile: trouble of ours is nobody's wrong key."""
        calls = list(calls)
        assert self.settled(calls).differences == []
        assert [call.prompt for call in calls if call.status == 401] == []
        assert self.server.stop() == 0, self.server.log_tail()
        assert ledger.audit(self.server, upstream=self.upstream.calls, clients=calls).differences == []
        assert self.left_in_journal() == []
        # The record and, all rolled up, its roll-ups. Raises what it says, if it ends with anything but 0.
        self.tell(self.server.manage("shell", "--no-imports", "-c", _PROVEN).splitlines()[-1])

    def left_in_journal(self) -> list[str]:
        """What stands in the journal's directory, with sizes in bytes."""
        return [f"{path.relative_to(self.journal)} ({path.stat().st_size})" for path in sorted(self.journal.rglob("*"))]

    def upstream_calls_of_name(self, name: str) -> list[UpstreamCall]:
        """What the vendor heard of the load of that name."""
        return [call for call in self.upstream.calls() if call.prompt.startswith(f"{name} ")]

    def upstream_calls_of(self, calls: Iterable[Call]) -> list[UpstreamCall]:
        """What the vendor heard of these calls."""
        prompts = {call.prompt for call in calls}
        return [call for call in self.upstream.calls() if call.prompt in prompts]


_PROVEN = "from django.core.management import call_command as run; run('roll_up'); run('verify_record')"


def wait_for_answers(load: Load, count: int) -> None:
    """Returns when `count` more calls have been answered."""
    aim = len(load.answered) + count
    eventually(lambda: len(load.answered) >= aim, wanted=f"{count} more answers")


def open_files(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(str(descriptor.readlink()))
    return found


def resident_megabytes(pid: int) -> float:
    """Memory of a living process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
