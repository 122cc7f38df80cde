"""One answer for one request id: whoever sends it again gets the stored answer, or joins the call that is under way.

    same process    the call in hand is found in memory, and gets one more reader
    anywhere else   a row of `IdempotencyClaim`, won by one insert, says which interaction answers; others wait for it

The process that answers moves its claims' `beats` on until the interaction is in the database. Whoever waits trusts no
clock: a claim whose beats stand still while it is watched belongs to a dead process, and one of those who wait takes it
over, as they do when the interaction did not succeed. Calls without an id never come here. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, Protocol, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import Error
from django.db.models import F
from django.utils import timezone
from django.utils.crypto import salted_hmac

from chat.calls import Call
from chat.errors import AnswerNotKept, IdempotencyConflict, StillRunning
from chat.models import IdempotencyClaim, Interaction, QuarantinedExchange, Status
from llmchat.lib.envelope import DatabaseUnavailable
from llmchat.lib.threads import in_thread
from llmchat.lib.uuid7 import uuid7

logger = logging.getLogger(__name__)

#: Seconds between two beats of the claims that this process holds.
BEAT: Final = 2.0
#: Seconds without a beat after which a claim that is being watched belongs to nobody.
SILENCE: Final = 10.0
#: Seconds between two looks at a claim of another process, growing from the first to the second.
PAUSES: Final = (0.02, 0.5)
#: Seconds that the database is given for one look.
PATIENCE: Final = 10.0
#: Seconds beyond the deadline of a call that somebody waits for another process's answer.
GRACE: Final = 30.0


class Shared(Protocol):
    """What is shared: a call under way."""

    @property
    def is_open(self) -> bool:
        """Whether it may still have one more reader."""

    readers: int
    #: Whether there is, or will be, a row of it once it has ended.
    is_on_record: bool

    def abandon(self) -> None: ...

    async def recorded(self) -> None:
        """Waits for its end."""


S = TypeVar("S", bound=Shared)


@dataclass(slots=True, eq=False)
class _Entry:
    """What this process does about a request id; `waiting` are those who wait for the outcome."""

    task: asyncio.Task[Shared | Interaction]
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
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


_entries: dict[_Scope, _Entry] = {}
#: Interactions whose claims this process holds, and whether they have ended.
_held: dict[UUID, bool] = {}
_beating: asyncio.Task[None] | None = None
_watching: set[asyncio.Task[None]] = set()


def fingerprint(call: Call) -> str:
    """Tells one request from another. Neither the dialect nor whether the answer is streamed makes a difference.

    Keyed with SECRET_KEY, so that nobody can guess short prompts by it.
    """
    asked = {
        "user": call.user_id,
        "model": call.model,
        "messages": [asdict(message) for message in call.messages],
        "parameters": call.parameters,
        "conversation": str(call.conversation_id or ""),
    }
    text = json.dumps(asked, sort_keys=True, default=list)
    return salted_hmac("chat.idempotency", text, algorithm="sha256").hexdigest()


async def once(call: Call, *, key: str, begin: Callable[[UUID], Awaitable[S]]) -> tuple[S | Interaction, bool]:
    """What answers the call, and whether it was begun for it.

    Either the call under way in this process, begun by `begin(interaction_id)` if need be, or the stored success.
    Raises `IdempotencyConflict`, `AnswerNotKept`, `StillRunning`, `DatabaseUnavailable` and what `begin` raises.
    """
    scope = _Scope(organization_id=call.principal.organization_id, key=key, fingerprint=fingerprint(call))
    while True:
        entry = _entries.get(scope)
        is_first = entry is None
        if entry is None:
            entry = _Entry(asyncio.create_task(_settle(scope, begin)))
            _entries[scope] = entry
            entry.task.add_done_callback(partial(_forget_unless_shared, scope, entry))
        outcome = await _outcome(entry)
        if isinstance(outcome, Interaction):
            return _answerable(outcome, call), False
        if outcome.is_open:
            return outcome, is_first  # type: ignore[return-value]  # a scope's entries come from one kind of `begin`
        await outcome.recorded()
        _forget(scope, entry)


def purge() -> int:
    """Deletes claims that have expired; how many."""
    before = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
    return IdempotencyClaim.objects.filter(created_at__lt=before).delete()[0]


def forget() -> None:
    """Lets go of everything that this process holds, as its end would."""
    _entries.clear()
    _held.clear()


# --- In this process -------------------------------------------------------------------------------------------------


async def _outcome(entry: _Entry) -> Shared | Interaction:
    entry.waiting += 1
    try:
        return await asyncio.shield(entry.task)
    except asyncio.CancelledError:
        if entry.waiting == 1:
            _abandon(entry.task)
        raise
    finally:
        entry.waiting -= 1


def _abandon(task: asyncio.Task[Shared | Interaction]) -> None:
    """Nobody waits any more."""
    if not task.done():
        task.cancel()
    elif not task.cancelled() and task.exception() is None:
        outcome = task.result()
        if not isinstance(outcome, Interaction) and not outcome.readers:
            outcome.abandon()


async def _settle(scope: _Scope, begin: Callable[[UUID], Awaitable[S]]) -> Shared | Interaction:
    """Claims the id and begins the call, or waits for the answer of whoever did."""
    found = await _claim_or_wait(scope)
    if isinstance(found, Interaction):
        return found
    _hold(found)
    try:
        shared = await begin(found)
    except BaseException:
        _held.pop(found, None)
        _keep(asyncio.create_task(_release(found)))
        raise
    _keep(asyncio.create_task(_watch(shared, found)))
    return shared


async def _watch(shared: Shared, interaction_id: UUID) -> None:
    await shared.recorded()
    if shared.is_on_record:
        # The beat goes on until the row can be seen: while the database is away it is only in the journal.
        _held[interaction_id] = True
        return
    _held.pop(interaction_id, None)
    await _release(interaction_id)


async def _release(interaction_id: UUID) -> None:
    """Gives back the claim of a call that never came to be. If that fails, its silence tells the others."""
    try:
        await in_thread(IdempotencyClaim.objects.filter(interaction_id=interaction_id).delete)
    except Error:
        logger.warning("The claim of %s is not released; it runs out.", interaction_id, exc_info=True)


def _forget_unless_shared(scope: _Scope, entry: _Entry, task: asyncio.Task[Shared | Interaction]) -> None:
    if task.cancelled() or task.exception() is not None or isinstance(task.result(), Interaction):
        _forget(scope, entry)
        return
    shared: Shared = task.result()  # type: ignore[assignment]  # an Interaction is out of the question here
    ending = asyncio.create_task(shared.recorded())
    ending.add_done_callback(lambda _: _forget(scope, entry))
    _keep(ending)


def _forget(scope: _Scope, entry: _Entry) -> None:
    if _entries.get(scope) is entry:
        del _entries[scope]


def _keep(task: asyncio.Task[None]) -> None:
    _watching.add(task)
    task.add_done_callback(_watching.discard)


# --- The heart of what this process holds ----------------------------------------------------------------------------


def _hold(interaction_id: UUID) -> None:
    global _beating  # noqa: PLW0603 - one per process
    _held[interaction_id] = False
    if _beating is None or _beating.done():
        _beating = asyncio.create_task(_beat_while_holding())


async def _beat_while_holding() -> None:
    while _held:
        await asyncio.sleep(BEAT)
        ended = [identifier for identifier, has_ended in _held.items() if has_ended]
        try:
            settled = await in_thread(_beat, list(_held), ended)
        except Error as error:
            logger.warning("Claims could not be renewed: %s", error)
            continue
        except Exception:
            # Not of the database: without this task all that is held here would be taken for dead.
            logger.exception("Claims could not be renewed.")
            continue
        for identifier in settled:
            _held.pop(identifier, None)


def _beat(held: list[UUID], ended: list[UUID]) -> set[UUID]:
    """Moves the beats on; returns those of `ended` whose rows can be seen, which need it no more."""
    settled: set[UUID] = set()
    if ended:
        settled.update(Interaction.objects.filter(id__in=ended).values_list("id", flat=True))
        settled.update(QuarantinedExchange.objects.filter(id__in=ended).values_list("id", flat=True))
    if alive := [identifier for identifier in held if identifier not in settled]:
        IdempotencyClaim.objects.filter(interaction_id__in=alive).update(beats=F("beats") + 1)
    return settled


# --- Among processes -------------------------------------------------------------------------------------------------


async def _claim_or_wait(scope: _Scope) -> UUID | Interaction:
    """The id of the interaction that this process is to make, or the one that answers already."""
    began = time.monotonic()
    pause, longest = PAUSES
    seen: _Held | None = None
    since = began
    while True:
        silent = seen if time.monotonic() - since > SILENCE else None
        found = await _look_patiently(scope, silent, is_new=seen is None)
        if isinstance(found, Interaction):
            return found
        if isinstance(found, _Won):
            return found.interaction_id
        if found != seen:
            seen, since = found, time.monotonic()
        if time.monotonic() - began > settings.PROVIDER_TIMEOUTS["total"] + GRACE:
            raise StillRunning
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, longest)


async def _look_patiently(scope: _Scope, silent: _Held | None, *, is_new: bool) -> _Won | _Held | Interaction:
    """`_look`, while somebody cares and the database answers. What is won too late is given back."""
    looking = asyncio.ensure_future(in_thread(_look, scope, silent, is_new=is_new))
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(looking)
    except TimeoutError:
        looking.add_done_callback(_give_back)
        raise DatabaseUnavailable from None
    except asyncio.CancelledError:
        looking.add_done_callback(_give_back)
        raise


def _give_back(looking: asyncio.Future[_Won | _Held | Interaction]) -> None:
    if not looking.cancelled() and looking.exception() is None and isinstance(found := looking.result(), _Won):
        _keep(asyncio.create_task(_release(found.interaction_id)))


def _look(scope: _Scope, silent: _Held | None, *, is_new: bool) -> _Won | _Held | Interaction:
    """One look at the claim, and the attempt to win it where that is fair. `silent`: as it was all the time."""
    mine = uuid7()
    claims = IdempotencyClaim.objects.filter(organization_id=scope.organization_id, key=scope.key)
    claim = None if is_new else claims.first()
    if claim is None:
        new = IdempotencyClaim(
            organization_id=scope.organization_id,
            key=scope.key,
            fingerprint=scope.fingerprint,
            interaction_id=mine,
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
        row = Interaction.objects.filter(id=claim.interaction_id).first()
        if row is not None and row.status == Status.SUCCEEDED:
            return row
        if row is None and held != silent and not QuarantinedExchange.objects.filter(id=claim.interaction_id).exists():
            return held
    # Nobody answers any more. Of all who see that, the one wins whose update finds the claim as it was.
    won = claims.filter(interaction_id=claim.interaction_id, beats=claim.beats).update(
        interaction_id=mine, fingerprint=scope.fingerprint, beats=0, created_at=timezone.now()
    )
    return _Won(mine) if won else held


def _has_expired(claim: IdempotencyClaim) -> bool:
    return claim.created_at < timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)


def _answerable(row: Interaction, call: Call) -> Interaction:
    """The row with what it lacks by the organization's wish and the caller has just said again."""
    has_answer = row.response or row.tool_calls or row.reasoning
    if row.erased_at is not None or (not has_answer and row.output_tokens):
        raise AnswerNotKept
    row.prompt = row.prompt or call.prompt
    return row
