"""Waiting for what another process does: by asking again and again, up to a limit that only ever ends a failed test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PATIENCE = 180.0
_POLL_SECONDS = 0.05


def eventually(ask: Callable[[], Value], *, wanted: str, patience: float = PATIENCE) -> Value:
    """The first true value of `ask()`; fails, naming what was `wanted`, after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not (value := ask()):
        assert time.monotonic() < deadline, f"within {patience:g} s there was never this: {wanted}"
        time.sleep(_POLL_SECONDS)
    return value
