"""The time that never goes back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llmchat.lib import steady

HOUR = 3600.0


class Machine:
    """Its clock can be set, its uptime cannot."""

    def __init__(self) -> None:
        self.clock, self.uptime = 1_000_000_000.0, 500.0

    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.uptime += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine()
    monkeypatch.setattr(time, "time", lambda: made.clock)
    monkeypatch.setattr(time, "monotonic", lambda: made.uptime)
    steady.forget()
    yield made
    steady.forget()


def test_it_is_the_machines_time(machine: Machine) -> None:
    assert steady.now() == 1_000_000_000.0
    machine.wait(5)
    assert steady.now() == 1_000_000_005.0


def test_it_goes_on_when_the_clock_is_set_back(machine: Machine) -> None:
    before = steady.now()
    machine.clock -= HOUR
    assert steady.now() == before
    machine.wait(5)
    assert steady.now() == before + 5


def test_it_follows_the_clock_forward(machine: Machine) -> None:
    before = steady.now()
    machine.clock += HOUR
    assert steady.now() == before + HOUR
