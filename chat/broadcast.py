"""The events of one stream for any number of readers: each gets all of them from the start, at its own pace.

The quickest reader sets the pace of the writer; the others find the rest where it was put. Belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import math

from providers.values import Event


class Broadcast:
    """`ahead`: how many events may wait for the quickest reader before the writer waits for it."""

    def __init__(self, *, ahead: int) -> None:
        self._events: list[Event] = []
        self._ahead = ahead
        self._read: float = 0
        self._has_ended = False
        self._waiting: list[asyncio.Future[None]] = []
        self._writer: asyncio.Future[None] | None = None

    async def put(self, event: Event) -> None:
        self._append(event)
        while len(self._events) - self._read > self._ahead:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def end(self, last: Event | None = None) -> None:
        """Nothing follows but `last`."""
        self._has_ended = True
        if last is None:
            self._wake_readers()
        else:
            self._append(last)

    async def get(self, position: int) -> Event | None:
        """The event at that position, from 0; None after the last."""
        while position >= len(self._events):
            if self._has_ended:
                return None
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._advance(position + 1)
        return self._events[position]

    def run_free(self) -> None:
        """Somebody waits for the end alone: the writer waits for nobody from here on."""
        self._advance(math.inf)

    def _append(self, event: Event) -> None:
        self._events.append(event)
        self._wake_readers()

    def _wake_readers(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _advance(self, read: float) -> None:
        if read <= self._read:
            return
        self._read = read
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
