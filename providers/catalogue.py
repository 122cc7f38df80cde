"""The catalogue in this process: its rows as an immutable snapshot, so that no request queries.

    snapshot = await catalogue.snapshot()
    model = snapshot.resolve("openrouter/openai/gpt-4o-mini")

While requests come, a snapshot is hardly older than `FRESH_SECONDS`, and changes that are told of (`tell_of_change`)
show at once, those of other processes as `llmchat.lib.changes` says. When the database fails, the last one known
stands. What names mean is the business of `providers.names`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from types import MappingProxyType

from django.db import Error as DatabaseTrouble

from llmchat.lib import changes
from llmchat.lib.threads import in_background
from providers.models import LanguageModel, ModelAlias, Price
from providers.names import Entry, ResolvedModel, Route, Snapshot, choose_default
from providers.pricing import PriceVersion

__all__ = ["Entry", "ResolvedModel", "Snapshot", "choose_default", "current", "forget", "snapshot", "tell_of_change"]

logger = logging.getLogger(__name__)

#: Age in seconds from which a snapshot is made anew, while the old one still serves.
FRESH_SECONDS = 10.0
#: Age in seconds from which a request waits for the new one: nobody has asked for a while, and much may have changed.
STALE_SECONDS = 20.0
#: How long it waits, in seconds, before the old one has to do: a database that hangs must not stop the chat.
PATIENCE_SECONDS = 2.0


class _Held:
    """This process's snapshot, when it was made, and the renewal that is under way."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self.renewal: Future[None] | None = None
        self._lock = threading.Lock()
        self._made_at = float("-inf")
        self._forgotten = 0

    @property
    def age(self) -> float:
        """Seconds since it was made; infinite when there is none, or none that can be trusted."""
        return time.monotonic() - self._made_at

    def renew(self) -> Snapshot:
        """Reads the rows, unless another thread just did. When they cannot be read, the old snapshot counts as new, if
        there is one; else raises Django's database errors."""
        with self._lock:
            if self.snapshot is not None and self.age <= FRESH_SECONDS:
                return self.snapshot
            began, forgotten = time.monotonic(), self._forgotten
            try:
                self.snapshot = _read()
            except DatabaseTrouble:
                if self.snapshot is None:
                    raise
                logger.warning("The catalogue cannot be read; the last one known stands.", exc_info=True)
                began = time.monotonic()
            # Whatever changed while the rows were read may not be in them.
            self._made_at = began if forgotten == self._forgotten else float("-inf")
            return self.snapshot

    def forget(self) -> None:
        self._forgotten += 1
        self._made_at = float("-inf")

    def keep(self) -> None:
        """The old one has to do for another while."""
        self._made_at = time.monotonic()


_held = _Held()


async def snapshot() -> Snapshot:
    """The catalogue as it is. Queries once in `FRESH_SECONDS`, and hardly ever while the caller waits.

    Raises Django's database errors when the rows cannot be read and never could.
    """
    held, age = _held.snapshot, _held.age
    if held is not None and age <= FRESH_SECONDS:
        return held
    renewal = _renewal()
    if held is None:
        await asyncio.wrap_future(renewal)
    elif age > STALE_SECONDS:
        _, unfinished = await asyncio.wait([asyncio.wrap_future(renewal)], timeout=PATIENCE_SECONDS)
        if unfinished:
            _held.keep()
    return _held.snapshot or held or _held.renew()


def current() -> Snapshot:
    """As `snapshot`, for commands and the admin, which may wait."""
    return _held.renew()


def forget() -> None:
    """What this process knows is not good any more: the next to ask reads the rows."""
    _held.forget()


def tell_of_change() -> None:
    """The rows have changed, and the change is committed: every process reads them anew."""
    changes.tell("catalogue")


changes.on("catalogue", hear=lambda _: forget(), missed=forget)


def _renewal() -> Future[None]:
    """The renewal under way, or a new one."""
    if _held.renewal is None or _held.renewal.done():
        future: Future[None] = Future()
        _held.renewal = future
        # It cannot be cancelled any more: of all who wait for it, nobody may cancel it for the others.
        future.set_running_or_notify_cancel()
        in_background(_renew, future)
        return future
    return _held.renewal


def _renew(future: Future[None]) -> None:
    try:
        _held.renew()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)


def _read() -> Snapshot:
    entries = [
        Entry(**row) for row in LanguageModel.objects.order_by("provider", "name").values(*Entry.__dataclass_fields__)
    ]
    aliases = ModelAlias.objects.values_list("name", "model__name")
    by_id: dict[int, Route] = {entry.id: (entry.provider, entry.upstream_id) for entry in entries}
    prices: defaultdict[Route, list[PriceVersion]] = defaultdict(list)
    fields = [*PriceVersion.__dataclass_fields__]
    for row in Price.objects.order_by("effective_from").values("model_id", *fields):
        route = by_id.get(row.pop("model_id"))
        if route is not None:  # else the model was added a moment ago, after the models were read
            prices[route].append(PriceVersion(**row))
    by_name = {entry.name: entry for entry in entries}
    return Snapshot(
        entries=MappingProxyType(by_name),
        aliases=MappingProxyType({alias: name for alias, name in aliases if name in by_name}),
        routes=MappingProxyType({by_id[entry.id]: entry for entry in entries}),
        prices=MappingProxyType(prices),
    )
