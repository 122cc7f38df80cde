"""A parent process that keeps its children alive and ends them in order. It knows nothing of what they do.

Children are forked from a parent that has everything imported, so that one that dies is back within milliseconds. The
parent must therefore have no threads, no event loop and no open connections when it calls `run`.

    SIGTERM, SIGINT   every child gets SIGTERM and finishes what it has; what is left after the grace is killed
    SIGINT again      kills at once
    a child dies      it is replaced at once; with a growing pause while it dies before it is ready
    a child leaves    it takes nothing new and says so: another one takes its place while it finishes what it has
    the parent dies   (even by `kill -9`) the children notice and end as after SIGTERM
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

logger = logging.getLogger(__name__)

_READY, _LEAVING = b"ready", b"leaving"

#: Attempts of a child that has never been ready before the whole start is given up.
START_ATTEMPTS = 3
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
#: Between the end of the grace, which children observe themselves, and SIGKILL.
_MARGIN = 5.0
#: A second SIGINT within this time is the same key press, delivered twice (make, a terminal).
_SAME_PRESS = 1.0
_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})

_fork = multiprocessing.get_context("fork")


class Parent:
    """What a child can tell its parent."""

    def __init__(self, tells: Connection) -> None:
        self._tells = tells

    def ready(self) -> None:
        """It can be relied on from here on."""
        self._tell(_READY)

    def leaving(self) -> None:
        """It was told to end, and takes nothing new."""
        self._tell(_LEAVING)

    def _tell(self, word: bytes) -> None:
        # The parent may be gone already.
        with contextlib.suppress(OSError):
            self._tells.send_bytes(word)


@dataclass(slots=True, eq=False)
class _Child:
    """One role and the process that plays it at the moment; `leaving` are those that played it before."""

    name: str
    work: Callable[[Parent], None]
    leaving: list[BaseProcess] = field(default_factory=list)
    process: BaseProcess | None = None
    news: Connection | None = None
    is_ready: bool = False
    failures: int = 0
    due: float = 0.0


class Supervisor:
    """Args:
    grace: seconds that children are given to finish after SIGTERM.
    on_ready: called once, when every child has said that it is ready.
    on_stop: called once, before the children are told to stop.
    on_end: called with the process id of each child that is gone.
    """

    def __init__(
        self,
        *,
        grace: float,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
        on_end: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        self._grace = grace
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._on_end = on_end
        self._children: list[_Child] = []
        self._announced = False
        self._failed = False
        self._stop_began: float | None = None
        self._kill_at = float("inf")
        self._lifeline = os.pipe()

    def add(self, name: str, work: Callable[[Parent], None]) -> None:
        """A child that runs `work(parent)` and says `parent.ready()` once it can be relied on. `work` ends on
        SIGTERM."""
        self._children.append(_Child(name=name, work=work))

    def run(self) -> int:
        """Runs until told to stop. Returns the exit code: 0 when every child ended well."""
        gc.collect()
        # What is there now stays: children share these pages instead of copying them at their first collection.
        gc.freeze()
        with _signals_as_bytes() as (signals, received):
            for child in self._children:
                self._start(child)
            while self._stop_began is None or any(child.process or child.leaving for child in self._children):
                self._wait(signals)
                for number in received():
                    self._on_signal(number)
                self._look_after_children()
        return 1 if self._failed else 0

    def _wait(self, signals: socket.socket) -> None:
        watched: list[Connection | socket.socket | int] = [signals]
        for child in self._children:
            if child.process is not None:
                watched.append(child.process.sentinel)
            watched.extend(process.sentinel for process in child.leaving)
            if child.news is not None:
                watched.append(child.news)
        now = time.monotonic()
        due = [child.due for child in self._children if child.process is None and self._stop_began is None]
        nearest = min([self._kill_at, *due])
        wait(watched, timeout=None if nearest == float("inf") else max(0.0, nearest - now))

    def _look_after_children(self) -> None:
        for child in self._children:
            if child.news is not None and child.news.poll():
                self._hear(child, child.news)
            if child.process is not None and not child.process.is_alive():
                self._bury(child, child.process)
            for process in tuple(child.leaving):
                if not process.is_alive():
                    self._see_off(child, process)
            if child.process is None and self._stop_began is None and child.due <= time.monotonic():
                self._start(child)
        if not self._announced and self._stop_began is None and all(child.is_ready for child in self._children):
            self._announced = True
            self._on_ready()
        if time.monotonic() >= self._kill_at:
            self._kill()

    def _start(self, child: _Child) -> None:
        hears, tells = _fork.Pipe(duplex=False)
        child.is_ready = False
        child.process = _fork.Process(target=self._live, args=(child, tells), name=child.name)
        # A signal between the fork and the child's own handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
        try:
            child.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        tells.close()
        child.news = hears

    def _hear(self, child: _Child, news: Connection) -> None:
        # An end without a word is the child's death, which its process tells.
        with contextlib.suppress(EOFError):
            word = news.recv_bytes()
            if word == _READY:
                child.is_ready = True
                child.failures = 0
                return
            if self._stop_began is None and child.process is not None:
                logger.info("%s leaves; another one takes its place", child.name)
                child.leaving.append(child.process)
                child.process = None
                child.due = 0.0
        news.close()
        child.news = None

    def _bury(self, child: _Child, process: BaseProcess) -> None:
        while child.news is not None:
            self._hear(child, child.news)
        if child.process is None:
            # Its last word was that it leaves.
            return
        child.process = None
        code = self._end_of(process)
        if self._stop_began is not None:
            if code != 0:
                self._failed = True
                logger.error("%s ended with %s while stopping", child.name, _in_words(code))
            return
        if child.is_ready:
            logger.error("%s ended with %s; it is replaced", child.name, _in_words(code))
            child.due = 0.0
            return
        child.failures += 1
        if not self._announced and child.failures >= START_ATTEMPTS:
            logger.critical("%s cannot start; giving up", child.name)
            self._failed = True
            self._stop()
            return
        pause = min(_FIRST_PAUSE * 2 ** (child.failures - 1), _LONGEST_PAUSE)
        logger.error(
            "%s ended with %s before it was ready; it is tried again in %g s", child.name, _in_words(code), pause
        )
        child.due = time.monotonic() + pause

    def _see_off(self, child: _Child, process: BaseProcess) -> None:
        child.leaving.remove(process)
        code = self._end_of(process)
        if code != 0:
            self._failed = self._failed or self._stop_began is not None
            logger.error("%s ended with %s when it was told to leave", child.name, _in_words(code))

    def _end_of(self, process: BaseProcess) -> int | None:
        process.join()
        pid, code = process.pid or 0, process.exitcode
        process.close()
        self._on_end(pid)
        return code

    def _on_signal(self, number: int) -> None:
        if number not in _STOPPING:
            return
        if self._stop_began is None:
            self._stop()
        elif number == signal.SIGINT and time.monotonic() - self._stop_began > _SAME_PRESS:
            self._kill()

    def _stop(self) -> None:
        self._stop_began = time.monotonic()
        self._kill_at = self._stop_began + self._grace + _MARGIN
        self._on_stop()
        for child in self._children:
            if child.process is not None:
                child.process.terminate()

    def _kill(self) -> None:
        self._kill_at = float("inf")
        for child in self._children:
            for process in (*child.leaving, *([child.process] if child.process else [])):
                process.kill()

    def _live(self, child: _Child, tells: Connection) -> None:
        """All of a child's life."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, _leave)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        # Ctrl-C reaches every process of the terminal: the parent alone decides, and says SIGTERM.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        watched, held = self._lifeline
        os.close(held)
        threading.Thread(target=self._outlive_nobody, args=(watched,), name="lifeline", daemon=True).start()
        try:
            child.work(Parent(tells))
        except SystemExit:
            raise
        except BaseException:
            logger.exception("%s failed", child.name)
            raise SystemExit(1) from None

    def _outlive_nobody(self, watched: int) -> None:
        """Ends this process when the parent is gone: only the parent holds the other end of the pipe."""
        os.read(watched, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(self._grace + _MARGIN)
        os._exit(1)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """For children that are told to stop before they have handlers of their own."""
    raise SystemExit(0)


@contextlib.contextmanager
def _signals_as_bytes() -> Iterator[tuple[socket.socket, Callable[[], bytes]]]:
    """Signals as bytes on a socket, so that one `wait` covers them together with the children."""
    reads, writes = socket.socketpair()
    reads.setblocking(False)
    writes.setblocking(False)

    def received() -> bytes:
        try:
            return reads.recv(4096)
        except BlockingIOError:
            return b""

    numbers = {*_STOPPING, signal.SIGCHLD}
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in numbers}
    wakeup = signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    try:
        yield reads, received
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        reads.close()
        writes.close()


def _in_words(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"code {code}"
