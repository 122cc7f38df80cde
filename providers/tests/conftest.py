"""What the tests of the adapters share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from providers.tests.upstream import Upstream, running


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A vendor on this machine, on a real socket."""
    async with running() as vendor:
        yield vendor
