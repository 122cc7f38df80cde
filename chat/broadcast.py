"""The events of one stream for any number of readers, each at its own pace.

Nothing is kept that was read: an event is with those who have not fetched it yet, and nowhere else. Whoever joins later
brings along what was said until then. Belongs to one event loop; knows events, and nobody who makes or reads them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby

from providers.values import Event, ReasoningDelta, TextDelta


class Inbox:
    """What one reader has not fetched yet."""

    __slots__ = ("_bound", "_broadcast", "_events", "_waiter")

    def __init__(self, broadcast: Broadcast, events: Iterable[Event], *, bound: int) -> None:
        self._broadcast = broadcast
        self._events: list[Event] = list(events)
        self._bound = bound
        self._waiter: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._events)

    async def get(self) -> Sequence[Event]:
        """All that is there, once something is; nothing when nothing will follow, or when it was nudged in vain."""
        if not self._events and not self._broadcast.has_ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events, self._events = self._events, []
        self._broadcast.make_room()
        return events

    def add(self, events: Sequence[Event]) -> None:
        self._events += events
        if len(self._events) > self._bound:
            # Its reader is slower than another one: what it missed is kept in few pieces.
            self._events = _joined(self._events)
            self._bound = max(self._bound, 2 * len(self._events))
        self.nudge()

    def nudge(self) -> None:
        """Lets the reader go on, with nothing if there is nothing."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Broadcast:
    """`ahead`: how many events may wait for the quickest reader before the writer is asked to wait for it."""

    __slots__ = ("_ahead", "_inboxes", "_runs_free", "_writer", "has_ended")

    def __init__(self, *, ahead: int) -> None:
        self.has_ended = False
        self._ahead = ahead
        self._inboxes: list[Inbox] = []
        self._runs_free = False
        self._writer: asyncio.Future[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether it is time to wait for `room`."""
        for inbox in self._inboxes:
            if len(inbox) <= self._ahead:
                return False
        return bool(self._inboxes) and not self._runs_free

    def join(self, so_far: Iterable[Event] = ()) -> Inbox:
        """One more reader. `so_far`: what the others have been told."""
        inbox = Inbox(self, so_far, bound=2 * self._ahead)
        self._inboxes.append(inbox)
        return inbox

    def leave(self, inbox: Inbox) -> None:
        self._inboxes.remove(inbox)
        self.make_room()

    def put(self, *events: Event) -> None:
        for inbox in self._inboxes:
            inbox.add(events)

    async def room(self) -> None:
        """Returns when the quickest reader has caught up."""
        while self.is_full:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    def make_room(self) -> None:
        if self._writer is not None and not self._writer.done() and not self.is_full:
            self._writer.set_result(None)

    def run_free(self) -> None:
        """Somebody waits for the end alone: the writer waits for nobody from here on."""
        self._runs_free = True
        self.make_room()

    def end(self, last: Event | None = None) -> None:
        """Nothing follows but `last`."""
        self.has_ended = True
        for inbox in self._inboxes:
            if last is None:
                inbox.nudge()
            else:
                inbox.add((last,))


def _joined(events: Sequence[Event]) -> list[Event]:
    """The same stream in as few pieces of text as it can have."""
    joined: list[Event] = []
    for kind, run in groupby(events, key=_kind):
        if kind is TextDelta:
            joined.append(TextDelta("".join(event.text for event in run)))  # type: ignore[union-attr]
        elif kind is ReasoningDelta:
            joined.append(ReasoningDelta("".join(event.text for event in run)))  # type: ignore[union-attr]
        else:
            joined += run
    return joined


def _kind(event: Event) -> type[Event] | None:
    """Neighbours of one kind can be joined; those of None stay as they are."""
    if isinstance(event, TextDelta) and event.logprobs is not None:
        return None
    return type(event) if isinstance(event, TextDelta | ReasoningDelta) else None
