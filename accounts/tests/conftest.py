"""Fixtures of the tests of accounts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

import pytest
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from accounts.key_cache import KEYS
from accounts.tests.asking import Ask, ask_async, ask_sync


@pytest.fixture(params=[ask_sync, ask_async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """One request to a view that says who is asking: once beside the event loop, once on it."""
    chosen: Ask = request.param
    return chosen


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which cached keys grow old."""
    clock = Clock()
    monkeypatch.setattr(KEYS, "clock", clock)
    return clock


BrokenDatabase = Callable[[], AbstractContextManager[list[None]]]


@pytest.fixture
def broken_database(monkeypatch: pytest.MonkeyPatch) -> BrokenDatabase:
    """`with broken_database() as tries:` neither a statement nor a new connection succeeds, on whatever thread; each
    try adds an element to `tries`."""

    @contextmanager
    def broken() -> Iterator[list[None]]:
        tries: list[None] = []

        def fail(*_: Any) -> NoReturn:
            tries.append(None)
            raise OperationalError("the database is gone")

        with monkeypatch.context() as patch, connection.execute_wrapper(fail):
            patch.setattr(BaseDatabaseWrapper, "connect", fail)
            yield tries

    return broken
