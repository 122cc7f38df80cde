"""A caller's view of an exchange that is still being found: of a stream that another process may be answering.

It is there at once, so that its response can begin while the search goes on. Knows neither HTTP nor who searches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Protocol

from chat.models import Interaction
from providers.values import Event


class Reading(Protocol):
    """One caller's view of an exchange, under way or on record."""

    @property
    def interaction(self) -> Interaction: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What belongs onto the response."""

    async def next_events(self) -> Sequence[Event]:
        """What follows in a stream, all that is there; nothing when nudged in vain. `Finished` is the last one; a
        failure raises what the caller has to be told."""

    def nudge(self) -> None:
        """Has `next_events` return, with nothing if need be."""

    def abandon(self) -> None:
        """The caller is gone. Harmless after the end."""


class Pending:
    """As what `finding` returns. Its headers are not known while it is searched for; its events raise what that raises.

    `interaction` is for those who have seen an event.
    """

    def __init__(self, finding: Coroutine[Any, Any, Reading]) -> None:
        self._finding = asyncio.create_task(finding)
        self._nudged: asyncio.Future[None] | None = None

    @property
    def interaction(self) -> Interaction:
        return self._finding.result().interaction

    @property
    def headers(self) -> Mapping[str, str]:
        return self._finding.result().headers if self._finding.done() else {}

    async def next_events(self) -> Sequence[Event]:
        if not self._finding.done():
            self._nudged = asyncio.get_running_loop().create_future()
            either: set[asyncio.Future[Any]] = {self._finding, self._nudged}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._finding.done():
                return []
        return await self._finding.result().next_events()

    def nudge(self) -> None:
        if self._finding.done():
            if not self._finding.cancelled() and self._finding.exception() is None:
                self._finding.result().nudge()
        elif self._nudged is not None and not self._nudged.done():
            self._nudged.set_result(None)

    def abandon(self) -> None:
        if not self._finding.done():
            self._finding.cancel()
        elif not self._finding.cancelled() and self._finding.exception() is None:
            self._finding.result().abandon()
