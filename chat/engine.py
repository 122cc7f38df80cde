"""The one pipeline from an accepted call to a recorded answer, read from top to bottom.

The engine knows nothing of HTTP: views hand it a `Call` and take an `Exchange`. Each exchange runs in a task of its
own, so that its end is recorded whoever is still listening.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn
from uuid import UUID

from django.conf import settings

from accounts.limits import check_rate_async
from accounts.permissions import check_model_allowed
from chat import candidates, claims, conversations, idempotency, metrics, payloads, privacy
from chat.broadcast import Broadcast, Inbox
from chat.calls import Call
from chat.committer import NotDurable
from chat.conversations import Thread
from chat.errors import RecordUnavailable, as_api_error
from chat.journal import JournalError
from chat.models import Interaction, Status
from chat.pending import Pending, Reading
from chat.recorder import Recorder
from chat.replay import REPLAYED, Replay, events_of, pieces
from llmchat.lib import envelope, logs
from llmchat.lib.envelope import APIError
from llmchat.lib.uuid7 import uuid7
from providers import catalogue, failover
from providers.errors import ProviderError, TimedOut
from providers.failover import AttemptEnded, AttemptStarted, Candidate, Together
from providers.values import Event, Finished, Json, ReasoningDelta, TextDelta, ToolCallDelta

logger = logging.getLogger(__name__)

#: Events that the quickest reader may leave waiting before the upstream is slowed down.
_AHEAD = 1024

#: Exchanges in flight: held here so that none is collected before it is recorded.
_running: set[Exchange] = set()


async def accept(call: Call) -> Reader | Replay:
    """Everything that can refuse a call before anything is spent; then the exchange begins.

    A call whose request id was seen before gets the stored answer, or a reader of the exchange that is under way.
    Raises `APIError` (404 unknown model, 403 model outside the plan, 429 over the limit, 503 provider without a key,
    409 request id of another request).
    """
    if call.request_id is not None:
        return await _find(call, call.request_id)
    exchange = await _begin(call, uuid7())
    return Reader(exchange, streams=call.stream, headers=exchange.headers)


async def accept_stream(call: Call) -> Reading:
    """`accept`, at once: where another process may be answering, the search goes on behind what is returned, whose
    events raise what it raises."""
    return await accept(call) if call.request_id is None else Pending(_find(call, call.request_id))


async def _find(call: Call, key: str) -> Reader | Replay:
    found, is_first = await idempotency.once(call, key=key, begin=partial(_begin, call))
    if isinstance(found, Interaction):
        return Replay(found)
    logs.bind(interaction_id=str(found.interaction.id))
    return Reader(found, streams=call.stream, headers=found.headers if is_first else {REPLAYED: "true"})


async def _begin(call: Call, interaction_id: UUID) -> Exchange:
    try:
        snapshot = await catalogue.snapshot()
        resolved = snapshot.resolve(call.model)
        check_model_allowed(call.principal, *resolved.names)
        rate = await check_rate_async(call.principal)
        thread = await _thread(call)
        own = candidates.own_messages(call, thread)
        ways, history_messages = await candidates.in_order(call, snapshot, resolved, thread, own)
    except ProviderError as error:
        raise as_api_error(error) from error
    recorder = Recorder(
        call,
        identifier=interaction_id,
        snapshot=snapshot,
        resolved=resolved,
        thread=thread,
        history_messages=history_messages,
    )
    logs.bind(interaction_id=str(recorder.interaction.id))
    return Exchange(call, recorder=recorder, candidates=ways, headers=rate.headers() if rate else {})


async def _thread(call: Call) -> Thread | None:
    organization_id = call.principal.organization_id
    if call.conversation_id is not None:
        return await conversations.resume(
            organization_id=organization_id, user_id=call.user_id, conversation_id=call.conversation_id
        )
    if call.keeps_conversation:
        title = call.prompt if call.principal.keeps_prompts else ""
        return conversations.begin(organization_id=organization_id, user_id=call.user_id, title=title)
    return None


class Exchange:
    """One accepted call on its way. Each `Reader` of it gets the whole answer; when the last one leaves, it is stopped,
    or drained if that is the setting: the provider is heard out for the usage that only its end tells.

    However it ends, it is recorded: the last event comes, and `ended()` returns, only after the row is durable.
    `headers` belong onto the response: what is left of the limits.
    """

    def __init__(
        self, call: Call, *, recorder: Recorder, candidates: Sequence[Candidate], headers: Mapping[str, str]
    ) -> None:
        self.call = call
        self.headers = headers
        self.recorder = recorder
        self._candidates = candidates
        #: Whether there is a row of it once it has ended.
        self.is_on_record = True
        self._problem: APIError | None = None
        self._started = False
        self._committing = False
        self._abandoned = False
        self._is_calling = False
        self._asking: asyncio.Task[None] | None = None
        self.readers = 0
        self.events = Broadcast(ahead=_AHEAD)
        self._waiters: list[asyncio.Future[None]] = []
        self._task = asyncio.create_task(self._run())
        _running.add(self)
        self._task.add_done_callback(self._let_go)

    @property
    def interaction(self) -> Interaction:
        return self.recorder.interaction

    @property
    def is_open(self) -> bool:
        """Whether another reader may still join."""
        return not self._abandoned and not self._task.done()

    async def ended(self) -> Interaction:
        """Waits for the end; returns the recorded success or raises what the caller has to be told."""
        if not self._task.done():
            # One's own, so that who gives up waiting stops nobody else; half of what `asyncio.shield` costs.
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        self._task.result()
        if self._problem is not None:
            raise self._problem
        return self.interaction

    def _let_go(self, _: asyncio.Task[None]) -> None:
        _running.discard(self)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def join(self) -> Inbox:
        """The events for one more reader, those that were before it in few pieces. Of a call that is not streamed there
        is only the last one: until then it may start over on another provider."""
        if not self.call.stream or not self._started:
            return self.events.join()
        told = self.recorder
        said = pieces(
            reasoning=told.reasoning,
            text=told.response,
            tool_calls=sorted(told.tool_calls.items()),
            logprobs=payloads.joined_logprobs(told.logprobs),
        )
        return self.events.join(said)

    def raise_problem(self) -> NoReturn:
        """What the caller has to be told when the events ended without `Finished`."""
        raise self._problem or _incomplete()

    def abandon(self) -> None:
        """All callers of this process are gone: records what there is, or what there will be once the provider is heard
        out. Goes on for those who wait in other processes. Harmless after the end."""
        if self.call.request_id is None:
            self._leave_provider()
        elif not self._task.done() and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._leave_provider_unless_awaited())

    async def _leave_provider_unless_awaited(self) -> None:
        while True:
            is_awaited = await claims.is_awaited(self.interaction.id)
            if self.readers or self._task.done():
                return
            if not is_awaited:
                self._leave_provider()
                return
            self.events.run_free()
            await asyncio.wait({self._task}, timeout=claims.AWAITED)

    def _leave_provider(self) -> None:
        self._abandoned = True
        if settings.ON_DISCONNECT == "drain" and self._is_calling:
            self.events.run_free()
        else:
            self.stop()

    def stop(self) -> None:
        """Leaves the provider at once and records what there is. Harmless after the end."""
        self._abandoned = True
        # A task that is cancelled before its first step never runs: it could record nothing.
        if self._started and not self._committing:
            self._task.cancel()

    async def recorded(self) -> None:
        """Waits for the end; what came of it is not told here."""
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        finished: Finished | None = None
        self._started = True
        with metrics.active():
            try:
                if self._abandoned:
                    raise asyncio.CancelledError
                finished = await self._answer()
                self.recorder.end(Status.CANCELLED if self._abandoned else Status.SUCCEEDED)
            except ProviderError as error:
                self._problem = as_api_error(error)
                self.recorder.end(Status.FAILED, self._problem)
            except asyncio.CancelledError:
                self.recorder.end(Status.CANCELLED)
            except JournalError:
                logger.exception("The journal takes no new exchange")
                self._problem = RecordUnavailable()
                self.is_on_record = False
            except Exception as error:
                self._problem = envelope.as_api_error(error)
                self.recorder.end(Status.FAILED, self._problem)
            # Without an intent on disk nothing was done that could be recorded.
            if self.is_on_record:
                self._committing = True
                await self._commit()
                self._committing = False
        self.events.end(None if self._problem else finished)

    async def _answer(self) -> Finished:
        """Folds what happens and shows what may be shown; returns the event that may only be shown once recorded."""
        steps = failover.attempt_in_order(
            self._candidates, restartable=not self.call.stream, deadline=settings.PROVIDER_TIMEOUTS["total"]
        )
        async with aclosing(steps):
            async for step in steps:
                self.recorder.fold(step)
                if isinstance(step, AttemptStarted):
                    self._is_calling = True
                    candidate, began = step.candidate, time.monotonic()
                elif isinstance(step, AttemptEnded):
                    self._is_calling = False
                    # Other failures come sooner than answers.
                    if step.error is None or isinstance(step.error, TimedOut):
                        candidates.note_pace(self.call, candidate, seconds=time.monotonic() - began)
                    if self._abandoned and step.error is not None:
                        # Nobody asks for another call.
                        raise asyncio.CancelledError
                elif self.call.stream and isinstance(step, (Together, TextDelta, ReasoningDelta, ToolCallDelta)):
                    self.events.put(*(step.pieces if isinstance(step, Together) else (step,)))
                    if self.events.is_full:
                        await self.events.room()
        if self.recorder.finished is None:
            raise _incomplete()
        return self.recorder.finished

    async def _commit(self) -> None:
        try:
            await self.recorder.commit()
        except NotDurable:
            logger.exception("An interaction is not durable yet", extra={"interaction_id": self.interaction.id})
            self._problem = RecordUnavailable()


class Reader:
    """One caller's view of an exchange. Await `next_events()` again and again for a stream (`streams`), or `whole()`;
    leave it with `abandon()`. `headers` belong onto the response."""

    def __init__(self, exchange: Exchange, *, streams: bool, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._exchange = exchange
        self._inbox = exchange.join() if streams else None
        self._has_left = False
        exchange.readers += 1

    @property
    def interaction(self) -> Interaction:
        return self._exchange.interaction

    @property
    def logprobs(self) -> list[Json]:
        return self._exchange.recorder.logprobs

    @property
    def extra(self) -> dict[str, Any]:
        """What else the provider said in its answer, for OpenAI's dialect."""
        finished = self._exchange.recorder.finished
        return privacy.without_our_secrets(finished.extra) if finished else {}

    async def whole(self) -> Interaction:
        """Waits for the end; returns the recorded success or raises what the caller has to be told."""
        self._exchange.events.run_free()
        try:
            return await self._exchange.ended()
        except asyncio.CancelledError:
            self.abandon()
            raise

    async def next_events(self) -> Sequence[Event]:
        """What follows in a stream, all that is there; nothing when nudged in vain. `Finished` is the last one; a
        failure raises what the caller has to be told."""
        if self._inbox is None:
            raise TypeError("Who wants the whole answer has no events.")
        events = await self._inbox.get()
        if not events:
            if self._exchange.events.has_ended:
                self._exchange.raise_problem()
        elif not self._exchange.call.stream:
            return list(events_of(self.interaction))
        return events

    def nudge(self) -> None:
        """Has `next_events` return, with nothing if need be."""
        if self._inbox is not None:
            self._inbox.nudge()

    def abandon(self) -> None:
        """The caller is gone. The last one to leave ends the exchange. Harmless after the end."""
        if self._has_left:
            return
        self._has_left = True
        if self._inbox is not None:
            self._exchange.events.leave(self._inbox)
        self._exchange.readers -= 1
        if not self._exchange.readers:
            self._exchange.abandon()


def _incomplete() -> RuntimeError:
    return RuntimeError("An exchange came to its end with neither an answer nor an error.")


async def drain() -> None:
    """Waits until all exchanges in flight are on record."""
    while _running:
        await asyncio.gather(*(exchange.recorded() for exchange in _running))


async def stop() -> None:
    """Ends what is in flight, and waits until it is on record: for an orderly shutdown, when every response is out or
    given up, so that nobody waits for it any more."""
    for exchange in _running:
        exchange.stop()
    await drain()
