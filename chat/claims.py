"""Which process answers a request id: a row of `IdempotencyClaim`, won by one insert, says which interaction answers.

Whoever waits for another process's answer trusts no clock. A claim whose beats stand still while it is watched belongs
to a dead process: what its journal still has is brought in first, and only if that is no answer, one of those who wait
takes the claim over, as they do when the interaction did not succeed. Knows nothing of what a call is.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import Error
from django.db.models.functions import Now
from django.utils import timezone

from chat import durability, heartbeat, recovery
from chat.errors import IdempotencyConflict, RecordUnavailable, StillRunning
from chat.journal import JournalError
from chat.models import IdempotencyClaim, Interaction, QuarantinedExchange, Status
from llmchat.lib.envelope import DatabaseUnavailable
from llmchat.lib.threads import in_thread
from llmchat.lib.uuid7 import uuid7

logger = logging.getLogger(__name__)

#: Seconds without a beat after which a claim that is being watched belongs to nobody.
SILENCE: Final = 10.0
#: Seconds between two looks at a claim of another process, growing from the first to the second.
PAUSES: Final = (0.02, 0.5)
#: Seconds after which whoever waits says again that he does, and for which that counts.
SAYING: Final = 1.0
AWAITED: Final = 4.0
#: Seconds that the database is given for one look.
PATIENCE: Final = 10.0
#: Seconds beyond the deadline of a call that somebody waits for another process's answer.
GRACE: Final = 30.0

_releasing: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one look at a claim needs. The fingerprint is part of it, so that another body is judged by the database."""

    organization_id: UUID
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Won:
    interaction_id: UUID


@dataclass(frozen=True, slots=True)
class _Held:
    """Another process holds the claim; two looks that are equal lie between two beats."""

    interaction_id: UUID
    beats: int


_Found = _Won | _Held | Interaction


async def claim_or_wait(scope: Scope) -> UUID | Interaction:
    """The id of the interaction that this process is to make, or the one that answers already.

    Raises `IdempotencyConflict`, `StillRunning`, `DatabaseUnavailable` and `RecordUnavailable`.
    """
    began = time.monotonic()
    pause, longest = PAUSES
    seen: _Held | None = None
    since = began
    said = float("-inf")
    while True:
        now = time.monotonic()
        silent = seen if now - since > SILENCE else None
        says = now - said > SAYING
        found = await _look_patiently(scope, silent, is_new=seen is None, says=says)
        if isinstance(found, Interaction):
            return found
        if isinstance(found, _Won):
            return found.interaction_id
        if says:
            said = now
        if found != seen:
            seen, since = found, time.monotonic()
        if time.monotonic() - began > settings.PROVIDER_TIMEOUTS["total"] + GRACE:
            raise StillRunning
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, longest)


async def is_awaited(interaction_id: UUID) -> bool:
    """Whether another process waits for the answer of a claim that this one holds. No, when the database cannot say:
    then nobody can be told of an answer either."""
    try:
        async with asyncio.timeout(AWAITED):
            return await in_thread(_is_awaited, interaction_id)
    except (Error, TimeoutError):
        return False


def purge() -> int:
    """Deletes claims that have expired; how many."""
    before = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    return IdempotencyClaim.objects.filter(created_at__lt=before).delete()[0]


async def _look_patiently(scope: Scope, silent: _Held | None, *, is_new: bool, says: bool) -> _Found:
    """`_look`, while somebody cares and the database answers. What is won too late is given back, and what may have
    been won when the database broke off."""
    mine = uuid7()
    looking = asyncio.ensure_future(in_thread(_look, scope, mine, silent, is_new=is_new, says=says))
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(looking)
    except TimeoutError:
        looking.add_done_callback(partial(_give_back, mine))
        raise DatabaseUnavailable from None
    except asyncio.CancelledError:
        looking.add_done_callback(partial(_give_back, mine))
        raise
    except Error:
        heartbeat.disown(mine)
        raise


def _give_back(mine: UUID, looking: asyncio.Future[_Found]) -> None:
    if looking.cancelled():
        return
    if isinstance(looking.exception(), Error):
        heartbeat.disown(mine)
    elif looking.exception() is None and isinstance(looking.result(), _Won):
        releasing = asyncio.create_task(heartbeat.release(mine))
        _releasing.add(releasing)
        releasing.add_done_callback(_releasing.discard)


def _look(scope: Scope, mine: UUID, silent: _Held | None, *, is_new: bool, says: bool) -> _Found:
    """One look at the claim, and the attempt to win it for the interaction `mine` where that is fair. `silent`: as it
    was all the time; `says`: whether it is time to tell the holder that somebody waits."""
    claims = IdempotencyClaim.objects.filter(organization_id=scope.organization_id, key=scope.key)
    claim = None if is_new else claims.first()
    if claim is None:
        new = IdempotencyClaim(
            organization_id=scope.organization_id,
            key=scope.key,
            fingerprint=scope.fingerprint,
            interaction_id=mine,
            journal=_journal(),
        )
        # The unique key decides: one statement, whoever else tries it at the same time.
        IdempotencyClaim.objects.bulk_create([new], ignore_conflicts=True)
        claim = claims.first()
        if claim is None:
            # Given back between the two statements.
            return _Held(mine, 0)
        if claim.interaction_id == mine:
            return _Won(mine)
    held = _Held(claim.interaction_id, claim.beats)
    if not _has_expired(claim):
        if claim.fingerprint != scope.fingerprint:
            raise IdempotencyConflict
        row = _row(claim)
        if row is None and not _is_quarantined(claim):
            if held != silent or not _has_left_nothing(claim):
                if says:
                    claims.filter(interaction_id=claim.interaction_id).update(awaited_at=Now())
                return held
            row = _row(claim)
        if row is not None and row.status == Status.SUCCEEDED:
            return row
    # Nobody answers any more. Of all who see that, the one wins whose update finds the claim as it was.
    won = claims.filter(interaction_id=claim.interaction_id, beats=claim.beats).update(
        interaction_id=mine,
        fingerprint=scope.fingerprint,
        beats=0,
        journal=_journal(),
        awaited_at=None,
        created_at=timezone.now(),
    )
    return _Won(mine) if won else held


def _row(claim: IdempotencyClaim) -> Interaction | None:
    return Interaction.objects.filter(id=claim.interaction_id).first()


def _is_quarantined(claim: IdempotencyClaim) -> bool:
    return QuarantinedExchange.objects.filter(id=claim.interaction_id).exists()


def _has_left_nothing(claim: IdempotencyClaim) -> bool:
    """Whether all that the holder had to tell is in the database. A journal of another machine is out of reach."""
    return claim.journal is None or recovery.bring_in(settings.JOURNAL_DIR, claim.journal)


def _is_awaited(interaction_id: UUID) -> bool:
    # Now and then by the database's clock alone.
    since = Now() - dt.timedelta(seconds=AWAITED)
    return IdempotencyClaim.objects.filter(interaction_id=interaction_id, awaited_at__gt=since).exists()


def _has_expired(claim: IdempotencyClaim) -> bool:
    return claim.created_at < timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)


def _journal() -> UUID:
    """The journal of this process, by the name of its directory."""
    try:
        return UUID(durability.committer().journal.path.name)
    except JournalError as error:
        raise RecordUnavailable from error
