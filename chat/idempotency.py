"""One answer for one request id: whoever sends it again gets the stored answer, or joins the call that is under way.

    same process    the call in hand is found here, in memory, and gets one more reader
    anywhere else   `chat.claims` says which interaction answers; others wait for it
    until it ends   `chat.heartbeat` tells the others that this process is alive

Calls without an id never come here. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

from django.utils.crypto import salted_hmac

from chat import claims, heartbeat
from chat.calls import Call
from chat.claims import Scope
from chat.errors import AnswerNotKept
from chat.models import Interaction


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


_entries: dict[Scope, _Entry] = {}
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
    scope = Scope(organization_id=call.principal.organization_id, key=key, fingerprint=fingerprint(call))
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


def forget() -> None:
    """Lets go of everything that this process holds, as its end would."""
    _entries.clear()
    heartbeat.forget()


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


async def _settle(scope: Scope, begin: Callable[[UUID], Awaitable[S]]) -> Shared | Interaction:
    """Claims the id and begins the call, or waits for the answer of whoever did."""
    found = await claims.claim_or_wait(scope)
    if isinstance(found, Interaction):
        return found
    heartbeat.hold(found)
    try:
        shared = await begin(found)
    except BaseException:
        _keep(asyncio.create_task(heartbeat.release(found)))
        raise
    _keep(asyncio.create_task(_watch(shared, found)))
    return shared


async def _watch(shared: Shared, interaction_id: UUID) -> None:
    await shared.recorded()
    if shared.is_on_record:
        heartbeat.ended(interaction_id)
    else:
        await heartbeat.release(interaction_id)


def _forget_unless_shared(scope: Scope, entry: _Entry, task: asyncio.Task[Shared | Interaction]) -> None:
    if task.cancelled() or task.exception() is not None or isinstance(task.result(), Interaction):
        _forget(scope, entry)
        return
    shared: Shared = task.result()  # type: ignore[assignment]  # an Interaction is out of the question here
    ending = asyncio.create_task(shared.recorded())
    ending.add_done_callback(lambda _: _forget(scope, entry))
    _keep(ending)


def _forget(scope: Scope, entry: _Entry) -> None:
    if _entries.get(scope) is entry:
        del _entries[scope]


def _keep(task: asyncio.Task[None]) -> None:
    _watching.add(task)
    task.add_done_callback(_watching.discard)


def _answerable(row: Interaction, call: Call) -> Interaction:
    """The row with what it lacks by the organization's wish and the caller has just said again."""
    has_answer = row.response or row.tool_calls or row.reasoning
    if row.erased_at is not None or (not has_answer and row.output_tokens):
        raise AnswerNotKept
    row.prompt = row.prompt or call.prompt
    return row
