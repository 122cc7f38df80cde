"""Starting what is measured, in an environment of nobody, and waiting until it answers."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib.metadata import distributions
from pathlib import Path

from bench import machine
from bench.gateway import MODEL, Gateway
from bench.load import NUMBER
from llmchat.tests.servers import PROJECT, Child, ServerFailed

_START_SECONDS = 120.0


@contextmanager
def started(
    name: str,
    command: Sequence[str],
    directory: Path,
    *,
    cores: Sequence[int],
    environment: Mapping[str, str] | None = None,
    directory_of: Path | None = None,
) -> Iterator[Child]:
    directory.mkdir(parents=True, exist_ok=True)
    child = Child(directory / f"{name}.log")
    with machine.pinned(cores or os.sched_getaffinity(0)):
        child.start(
            command,
            environment=environment_of(directory) | dict(environment or {}),
            directory=directory_of or directory,
        )
    try:
        yield child
    finally:
        child.kill()


def environment_of(home: Path) -> dict[str, str]:
    """Nobody's keys, settings and proxies, and a home that is thrown away."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def versions(prefix: Path, *names: str) -> str:
    packages = [str(path) for path in prefix.glob("lib/python*/site-packages")]
    found = {each.name: each.version for each in distributions(path=packages)}
    return ", ".join(f"{name} {found.get(name, 'unknown')}" for name in names)


def said_in_log(child: Child, pattern: str) -> str:
    """The first group of what its log says."""
    wait_until(child, lambda: re.search(pattern, child.log_tail()) is not None)
    found = re.search(pattern, child.log_tail())
    assert found is not None
    return found[1]


def when_ready(gateway: Gateway, child: Child) -> Gateway:
    """Returns when it has answered a question."""
    wait_until(child, lambda: answers(gateway))
    return gateway


def wait_until(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if not child.alive or time.monotonic() > deadline:
            raise ServerFailed(f"it {'is not ready' if child.alive else 'ended'}\n{child.log_tail()}")
        time.sleep(0.1)


def answers(gateway: Gateway) -> bool:
    ask = gateway.ask(MODEL, streamed=False)
    return status_of(gateway.port, "POST", ask.path, ask.body.replace(NUMBER, "0"), ask.headers) == 200


def status_of(
    port: int, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
) -> int | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        return connection.getresponse().status
    return None


def plain(words: Sequence[str], *directories: Path) -> str:
    """A command line without the places of this machine."""
    line = " ".join(words).replace(sys.executable, ".venv/bin/python")
    for directory in directories:
        line = line.replace(str(directory), "TMP")
    return line.replace(f"{PROJECT}/", "").replace(str(PROJECT), ".")
