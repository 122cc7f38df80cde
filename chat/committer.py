"""Makes finished exchanges durable: one thread of this process commits together what has finished since the last time.

    exchange ends → journal `end` → committer → one transaction for all that waits → waiters wake

While the database cannot be reached, or keeps somebody waiting for longer than `patience`, waiters wake once the
journal is synced to the disk instead. Their rows follow in order when the database is back, read again from the
journal, so that memory does not grow with the outage. A row that the database refuses goes into quarantine and never
blocks its neighbours.

Knows rows and the journal; knows nothing of HTTP and of providers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from django.db import close_old_connections, connections

from chat import metrics, rows
from chat.journal import Journal, JournalFull, Place, fetch
from chat.rows import ExchangeRows
from chat.storing import BATCH, BATCH_BYTES, UNUSABLE, store_or_quarantine

logger = logging.getLogger(__name__)

#: Seconds until a failing database is tried again, doubled with each failure up to the longest.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
#: Seconds without work after which the thread gives its connection back.
IDLE: Final = 1.0
#: When exchanges end quicker than so many a second, a transaction waits a moment for more of them: each transaction
#: costs as much of the processor as several rows do.
CROWDED: Final = 500.0
#: It waits until so many are there, for so many seconds at most, and no longer than others come: once in `LULL`.
ENOUGH: Final = 32
LINGER: Final = 0.005
LULL: Final = 0.001


class NotDurable(Exception):
    """Neither the database nor the journal can take the exchange now; it is kept in memory and tried on."""


@dataclass(slots=True, eq=False)
class _Item:
    """An exchange on its way into the database. `exchange` is None once it can be read from its `place` and nobody
    waits for it."""

    exchange: ExchangeRows | None
    place: Place | None
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)
    is_released: bool = False


class Committer:
    """One per process. `patience`: seconds that somebody waits for the database before the journal must do.

    `close` commits what is left, if the database lets it, and lets go of the journal.
    """

    def __init__(self, journal: Journal, *, patience: float) -> None:
        self.journal = journal
        self._patience = patience
        self._queue: deque[_Item] = deque()
        self._active: list[_Item] = []
        #: Held to move items between the two, and to release them. Adding to the queue needs no lock.
        self._lock = threading.Lock()
        #: Wakes the committing thread when it sleeps: a lock that is released by whoever rings.
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_asleep = False
        self._last_batch = (0.0, 0)
        self._is_down = False
        self._is_closing = False
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._commit_for_ever, name="record-committer", daemon=True),
            threading.Thread(target=self._watch_for_ever, name="record-watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def backlog(self) -> int:
        """Exchanges that have ended and are not committed."""
        return len(self._queue) + len(self._active)

    @property
    def is_behind(self) -> bool:
        """Whether an exchange has waited for the database for longer than anybody waits for it."""
        with suppress(IndexError):
            oldest = self._active[0] if self._active else self._queue[0]
            return time.monotonic() - oldest.since > self._patience
        return False

    async def commit(self, exchange: ExchangeRows) -> None:
        """Returns when the exchange is durable: committed, or in the synced journal while the database is away.

        Raises NotDurable when it is neither; it is stored later all the same.
        """
        loop = asyncio.get_running_loop()
        try:
            place = self.journal.end(exchange.id, rows.as_facts(exchange))
        except JournalFull as error:
            logger.error("The end of %s is not in the journal: %s", exchange.id, error)  # noqa: TRY400
            place = None
        item = _Item(exchange, place, loop, loop.create_future())
        self._queue.append(item)
        if self._is_asleep:
            self._ring()
        await item.waiter

    def close(self, *, timeout: float) -> None:
        """Ends the thread within `timeout` seconds; what is not committed by then stays in the journal."""
        self._is_closing = True
        self._ending.set()
        self._ring()
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self.journal.close()

    # --- The committing thread ---------------------------------------------------------------------------------------

    def _commit_for_ever(self) -> None:
        pause = FIRST_PAUSE
        while True:
            batch = self._next_batch()
            if batch is None:
                connections.close_all()
                return
            if not batch:
                connections.close_all()
                continue
            try:
                self._store(batch)
            except UNUSABLE as error:
                self._put_back(batch)
                if self._outage(error, pause):
                    return
                pause = min(pause * 2, LONGEST_PAUSE)
            except Exception:
                # Not of the database: without this thread nothing would ever be stored again.
                logger.exception("The committer stumbled; it goes on.")
                self._put_back(batch)
                if self._outage(None, LONGEST_PAUSE):
                    return
            else:
                if self._is_down:
                    self._is_down = False
                    logger.warning("The database is back; %d exchanges follow from the journal.", len(self._queue))
                pause = FIRST_PAUSE

    def _next_batch(self) -> list[_Item] | None:
        """What waits, up to a batch; nothing when idle; None when it is time to end."""
        while not self._queue:
            if self._is_closing:
                return None
            if not self._sleep(IDLE) and not self._queue:
                return []
        self._linger()
        with self._lock:
            self._active = self._take()
        self._last_batch = (time.monotonic(), len(self._active))
        return self._active

    def _take(self) -> list[_Item]:
        """The next ones: as many as a transaction should hold, or one to see whether the database is back."""
        taken: list[_Item] = []
        size = 0
        while self._queue and len(taken) < (1 if self._is_down else BATCH) and size < BATCH_BYTES:
            item = self._queue.popleft()
            taken.append(item)
            size += item.place.length if item.place is not None else 0
        return taken

    def _linger(self) -> None:
        """Lets others join a batch, when so many come that it pays, and never for somebody who is alone."""
        began = now = time.monotonic()
        then, taken = self._last_batch
        if taken + len(self._queue) < CROWDED * (now - then):
            return
        while not self._is_closing and now - began < LINGER:
            waiting = len(self._queue)
            if waiting >= ENOUGH or waiting >= self.journal.unsettled:
                return
            self._ending.wait(LULL)
            if len(self._queue) == waiting:
                return
            now = time.monotonic()

    def _sleep(self, seconds: float) -> bool:
        """Until somebody rings; False when nobody has."""
        self._is_asleep = True
        try:
            # Whoever came before this thread said that it sleeps has not rung.
            if self._is_closing or (self._queue and not self._queue[-1].is_released):
                return True
            return self._bell.acquire(timeout=seconds)
        finally:
            self._is_asleep = False

    def _ring(self) -> None:
        # Rung already, if it is released.
        with suppress(RuntimeError):
            self._bell.release()

    def _put_back(self, batch: Sequence[_Item]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(batch))
            self._active = []

    def _store(self, batch: Sequence[_Item]) -> None:
        stored = [(item, exchange) for item in batch if (exchange := self._read(item)) is not None]
        store_or_quarantine([exchange for _, exchange in stored])
        self.journal.settle(exchange.id for _, exchange in stored)
        with self._lock:
            self._active = []
        self._release(batch)

    def _tell(self) -> None:
        metrics.BACKLOG.set(self.backlog)
        metrics.JOURNAL.set(self.journal.size)

    def _read(self, item: _Item) -> ExchangeRows | None:
        if item.exchange is not None or item.place is None:
            return item.exchange
        try:
            return rows.from_facts(fetch(item.place).facts)
        except (OSError, ValueError, KeyError, TypeError):
            # It stays in the journal, and is told by the next replay too.
            logger.exception("An exchange cannot be read back from %s.", item.place)
            return None

    def _outage(self, error: Exception | None, pause: float) -> bool:
        """Lets nobody wait for a database that is away, until it is worth another try; True when it is time to end."""
        if not self._is_down:
            self._is_down = True
            logger.error("The database cannot be reached; answers go by the journal: %s", error)
        until = time.monotonic() + pause
        while True:
            self._release_from_journal(older_than=0.0)
            self._tell()
            close_old_connections()
            left = until - time.monotonic()
            if self._is_closing:
                return True
            if left <= 0:
                return False
            # New arrivals wake us: they are to be released at once.
            self._sleep(left)

    # --- The watching thread -----------------------------------------------------------------------------------------

    def _watch_for_ever(self) -> None:
        """Releases those who wait too long because the database hangs, when the committing thread hangs with it. Tells
        in between what was counted."""
        while not self._ending.wait(self._patience / 4):
            self._release_from_journal(older_than=self._patience)
            # Not with each batch: whoever was woken by it would wait for that.
            self._tell()
            metrics.flush()
        metrics.flush()

    def _release_from_journal(self, *, older_than: float) -> None:
        before = time.monotonic() - older_than
        with self._lock:
            waiting = [item for item in self._unreleased() if item.since <= before]
        if not waiting:
            return
        durable = {item for item in waiting if item.place is not None}
        try:
            self.journal.sync()
        except OSError as error:
            logger.error("The journal cannot be synced: %s", error.strerror)  # noqa: TRY400
            durable = set()
        lost = [item for item in waiting if item not in durable]
        with self._lock:
            # The batch in hand is being read by the committing thread.
            for item in durable.difference(self._active):
                item.exchange = None
        self._release(durable)
        self._release(lost, NotDurable("Neither the database nor the journal takes the exchange."))

    def _unreleased(self) -> list[_Item]:
        """Those who are waited for. Who came first is released first: the rest of a long queue is not looked at."""
        tail: list[_Item] = []
        for place in range(len(self._queue) - 1, -1, -1):
            item = self._queue[place]
            if item.is_released:
                break
            tail.append(item)
        return [*(item for item in self._active if not item.is_released), *reversed(tail)]

    def _release(self, items: Iterable[_Item], error: Exception | None = None) -> None:
        """Wakes those who wait, with one call for each event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
        with self._lock:
            for item in items:
                if not item.is_released:
                    item.is_released = True
                    by_loop.setdefault(item.loop, []).append(item)
        for loop, woken in by_loop.items():
            try:
                loop.call_soon_threadsafe(_wake, woken, error)
            except RuntimeError:
                logger.debug("The loop that waited for %d exchanges is closed.", len(woken))


def _wake(items: Sequence[_Item], error: Exception | None) -> None:
    for item in items:
        if item.waiter.done():
            continue
        if error is None:
            item.waiter.set_result(None)
        else:
            item.waiter.set_exception(error)
