"""The last resort against a run that hangs. pytest-timeout fails a test that takes too long, but it lets go of the test
as soon as anything in it has failed: a teardown that then waits forever, or a thread that keeps the interpreter from
ending, would hold up the whole run without a word. Here the run ends instead, and says where every thread stood.

A pytest plugin, named in pytest.ini. It must not import Django or the product.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Generator
from typing import IO, Any

import pytest

from llmchat.tests.servers import Child

#: The exit code of a run that was ended here, as `timeout` uses it.
EXIT_CODE = 124


class Watchdog:
    """Ends the process, and the servers that the run has started, if nobody calls `watch` again in time.

    Args:
        grace: seconds beyond the time limit of what is watched, in which it fails and what comes after it ends.
        out: where to say so.
    """

    def __init__(self, grace: float, out: IO[Any]) -> None:
        self._grace = grace
        self._out = out
        self._timer: threading.Timer | None = None

    def watch(self, what: str, limit: float = 0.0) -> None:
        """Allow `limit` and the grace, in seconds from now, for `what`; what was watched before is over."""
        if self._timer is not None:
            self._timer.cancel()
        seconds = limit + self._grace
        self._timer = threading.Timer(seconds, self._end, (what, seconds))
        self._timer.daemon = True
        self._timer.start()
        # A thread that never lets go of the interpreter also keeps the timer from running: this one needs none.
        faulthandler.dump_traceback_later(seconds + self._grace, exit=True, file=self._out)

    def _end(self, what: str, seconds: float) -> None:
        print(f"\n\nStill at {what} after {seconds:.0f} s: the run is ended here. All threads:\n", file=self._out)
        faulthandler.dump_traceback(self._out)
        self._out.flush()
        try:
            Child.kill_all()
        finally:
            os._exit(EXIT_CODE)


_WATCHDOG = pytest.StashKey[Watchdog]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("grace", "seconds beyond a test's time limit before the run is ended", default="180")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("usepdb"):
        # pytest catches what a test writes to the descriptor of standard error: one of our own is never caught.
        config.stash[_WATCHDOG] = Watchdog(float(config.getini("grace")), os.fdopen(os.dup(2), "w"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watchdog = item.config.stash.get(_WATCHDOG, None)
    if watchdog is not None:
        watchdog.watch(item.nodeid, limit_of(item))
    try:
        return (yield)
    finally:
        if watchdog is not None:
            watchdog.watch(f"what comes after {item.nodeid}")


def limit_of(item: pytest.Item) -> float:
    """Seconds the test itself may take, as pytest-timeout reads them."""
    if marker := item.get_closest_marker("timeout"):
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    return float(item.config.getini("timeout"))
