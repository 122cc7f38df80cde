"""What a test needs besides Python, and may not find on a machine."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skips the test; in CI, where `CI=true` promises that everything is there, it fails. `reason`: with the remedy."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need(missing: list[str]) -> None:
    """The test goes on when nothing is missing; otherwise a line for each, as of `missing_programs`."""
    if missing:
        lacking("; ".join(missing))
