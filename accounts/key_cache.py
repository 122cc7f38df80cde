"""What this process knows of API keys: found once, used for a short while, and kept in reserve for when the database
fails. Memory only; `accounts.authentication` does the asking.

A key that was good stays usable while the database cannot be asked, for `MAX_RESERVE_SECONDS` after it was last found.
Wrong keys are remembered apart from good ones, so that inventing keys pushes none of the good ones out.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.conf import settings

from accounts.errors import InvalidAPIKey
from accounts.principals import Principal
from llmchat.lib import changes
from llmchat.lib.envelope import APIError

MAX_RESERVE_SECONDS = 3600.0
MAX_GOOD = 10_000
MAX_REFUSED = 1_000
#: Wrong keys are forgotten sooner than good ones.
REFUSED_SECONDS = 2.0
#: How often a failing database is asked whether it is back.
PROBE_SECONDS = 1.0
#: A probe that has not come back after this long is given up.
_PROBE_LEASE_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Finding:
    """What the database said of a digest at `found_at` (on the cache's clock): whose key it is, or why none."""

    digest: str
    principal: Principal | None = None
    refusal: Callable[[], APIError] = InvalidAPIKey
    expires_at: dt.datetime | None = None
    last_used_at: dt.datetime | None = None
    found_at: float = 0.0
    refresh_at: float = field(default=0.0, repr=False)


class KeyCache:
    """Reading takes no lock: a look-up in a dict is atomic, and the event loop must not wait."""

    def __init__(self) -> None:
        self.clock = time.monotonic
        self._good: dict[str, Finding] = {}
        self._refused: dict[str, Finding] = {}
        self._generation = 0
        self._failing = False
        self._probe_at = 0.0
        self._lock = threading.Lock()

    @property
    def generation(self) -> int:
        """Grows whenever something is forgotten; `store` wants the value from before the database was asked."""
        return self._generation

    @property
    def failing(self) -> bool:
        """Whether the last question to the database failed."""
        return self._failing

    def get(self, digest: str) -> Finding | None:
        """What was last found, however old."""
        return self._good.get(digest) or self._refused.get(digest)

    def usable(self, digest: str) -> Finding | None:
        """A good key that may be used without asking: found lately, or in reserve while the database fails."""
        finding = self._good.get(digest)
        if finding is None:
            return None
        life = MAX_RESERVE_SECONDS if self._failing else settings.API_KEY_CACHE_SECONDS
        return finding if self.clock() - finding.found_at < life else None

    def in_reserve(self, digest: str) -> Finding | None:
        """A key that was good within `MAX_RESERVE_SECONDS`."""
        finding = self._good.get(digest)
        return finding if finding is not None and self.clock() - finding.found_at < MAX_RESERVE_SECONDS else None

    def refused(self, digest: str) -> Finding | None:
        """A key that was refused a moment ago."""
        finding = self._refused.get(digest)
        life = min(REFUSED_SECONDS, settings.API_KEY_CACHE_SECONDS)
        return finding if finding is not None and self.clock() - finding.found_at < life else None

    def claims_refresh(self, finding: Finding) -> bool:
        """Whether the caller is the one to ask again about a usable key. One does at half its life, so that under
        steady use nobody waits for the database; while that fails, one does for all keys."""
        now = self.clock()
        if self._failing:
            return now >= self._probe_at
        if now < finding.refresh_at:
            return False
        finding.refresh_at = now + settings.API_KEY_CACHE_SECONDS
        return True

    def may_ask(self) -> bool:
        """Whether to ask the database now. While it fails one caller at a time may, so that its time-outs do not
        take every thread."""
        if not self._failing:
            return True
        with self._lock:
            if self.clock() < self._probe_at:
                return False
            self._probe_at = self.clock() + _PROBE_LEASE_SECONDS
            return True

    def store(self, finding: Finding, *, generation: int) -> None:
        """Keeps what the database answered. An answer from before something was forgotten is not kept."""
        self.database_recovered()
        with self._lock:
            if generation != self._generation:
                return
            now = self.clock()
            finding.found_at = now
            finding.refresh_at = now + settings.API_KEY_CACHE_SECONDS / 2
            self._good.pop(finding.digest, None)
            self._refused.pop(finding.digest, None)
            room, most = (self._good, MAX_GOOD) if finding.principal else (self._refused, MAX_REFUSED)
            room[finding.digest] = finding
            # A dict keeps the order of insertion, and every refresh inserts anew: the first is the longest unused.
            while len(room) > most:
                del room[next(iter(room))]

    def database_failed(self) -> None:
        with self._lock:
            self._failing = True
            self._probe_at = self.clock() + PROBE_SECONDS

    def database_recovered(self) -> None:
        self._failing = False

    def forget(self, digest: str | None = None) -> None:
        """One key, or all: the next use asks the database."""
        with self._lock:
            self._generation += 1
            if digest is None:
                self._good.clear()
                self._refused.clear()
            else:
                self._good.pop(digest, None)
                self._refused.pop(digest, None)

    def distrust(self) -> None:
        """Any key may have changed: the next use asks the database. While that fails, good ones stay in reserve."""
        with self._lock:
            self._generation += 1
            oldest = self.clock() - settings.API_KEY_CACHE_SECONDS
            for finding in (*self._good.values(), *self._refused.values()):
                finding.found_at = min(finding.found_at, oldest)

    def __len__(self) -> int:
        return len(self._good) + len(self._refused)


KEYS = KeyCache()

changes.on("keys", hear=lambda digest: KEYS.forget(digest or None), missed=KEYS.distrust)
