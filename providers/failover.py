"""One answer out of several candidates: calls them in order, tries again where that may help, and keeps the time.

Knows adapters only by their `stream`; knows nothing of HTTP, Django, the record or why these are the candidates. What
happens is told as steps, so that each upstream call can be put on record:

    AttemptStarted  (event ...)  AttemptEnded(error)  [Restarted]  AttemptStarted  (event ...)  AttemptEnded  Finished

A stream that is given up (closed, or its task cancelled) ends without the AttemptEnded of the running call.
"""

from __future__ import annotations

import asyncio
import math
import random as _random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Final, Self

from llmchat.lib.frozen import dataclass
from providers.adapters.base import Adapter, Timeouts, bursts
from providers.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    FirstTokenTimeout,
    ProviderError,
    Stalled,
    TruncatedAnswer,
)
from providers.values import ChatRequest, Event, Finished, Piece

MAX_CALLS_PER_CANDIDATE: Final = 3
MAX_CALLS: Final = 6
#: Whoever asks us to wait for longer than this, in seconds, is left for the next candidate.
LONGEST_WAIT: Final = 5.0
#: The first pause before a retry is at most this long, in seconds; each further one at most twice the one before.
FIRST_PAUSE: Final = 0.5
#: How long an adapter may tidy up its connection for the next call after the last event, in seconds.
_TIDYING: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to the answer. `request` is made for it: its model, and messages that fit its window of `context_window`
    tokens (None: not known)."""

    provider: str
    model: str
    adapter: Adapter
    request: ChatRequest
    timeouts: Timeouts
    context_window: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    """An upstream call begins. `number` counts the calls for this answer from 1."""

    number: int
    candidate: Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """The upstream call `number` is over: either `error` or `finished` is set."""

    number: int
    error: ProviderError | None = None
    finished: Finished | None = None


@dataclass(frozen=True, slots=True)
class Restarted:
    """The answer begins anew: forget the pieces that came so far."""


@dataclass(frozen=True, slots=True)
class Together:
    """Pieces of the answer that came at the same time, two or more."""

    pieces: Sequence[Piece]


Step = AttemptStarted | AttemptEnded | Restarted | Together | Event


async def attempt_in_order(
    candidates: Sequence[Candidate],
    *,
    restartable: bool = False,
    deadline: float | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    random: Callable[[], float] = _random.random,
) -> AsyncGenerator[Step, None]:
    """Yield the steps to one whole answer, `Finished` last.

    `restartable`: pieces may be taken back, because nobody has seen them; otherwise the first piece binds us to
    the call that gave it. `deadline`: seconds for everything, pauses included. `sleep` takes seconds, `random` gives
    [0, 1).

    Raises the ProviderError that says most when there is no answer: of the candidates that came to nothing the first
    one's, which is the one that was asked for; DeadlineExceeded; or, after a piece that cannot be taken back, that
    call's.
    """
    loop = asyncio.get_running_loop()
    until = math.inf if deadline is None else loop.time() + deadline
    plan = _Plan(candidates, random=random)
    while True:
        candidate = plan.begin_call()
        yield AttemptStarted(number=plan.calls, candidate=candidate)
        begun = False
        # An adapter's iterator can be closed, says its protocol
        stream = bursts(candidate.adapter, candidate.request)
        try:
            async with aclosing(stream), _Watch(candidate, until=until) as watch:
                while True:
                    burst = await watch.next(stream)
                    last = burst[-1]
                    if isinstance(last, Finished):
                        await watch.tidy(stream)
                        yield AttemptEnded(number=plan.calls, finished=last)
                        yield last
                        return
                    begun = True
                    yield last if len(burst) == 1 else Together(burst)  # type: ignore[arg-type]  # `Finished` comes alone
        except ProviderError as error:
            failure = error
        yield AttemptEnded(number=plan.calls, error=failure)
        if begun and not restartable:
            raise failure
        pause = plan.pause_after(failure, time_left=until - loop.time())
        if pause is None:
            raise plan.telling(failure)
        if begun:
            yield Restarted()
        if pause:
            await sleep(pause)


class _Plan:
    """Which call comes next, and when. Looks at errors and counts only; makes no calls."""

    def __init__(self, candidates: Sequence[Candidate], *, random: Callable[[], float]) -> None:
        if not candidates:
            raise ValueError("There must be a candidate.")
        self.calls = 0
        self._candidates = candidates
        self._random = random
        self._place = 0
        self._calls_here = 0
        self._first_choice_failed: ProviderError | None = None

    def begin_call(self) -> Candidate:
        self.calls += 1
        self._calls_here += 1
        return self._candidates[self._place]

    def pause_after(self, error: ProviderError, *, time_left: float) -> float | None:
        """Seconds until the next call, which may be another candidate's; None when there is none to make."""
        if self._place == 0:
            self._first_choice_failed = error
        pause = self._pause(error)
        if self._may_retry(error) and pause < time_left:
            return pause
        return 0.0 if self._go_on(error) else None

    def telling(self, error: ProviderError) -> ProviderError:
        """What the caller is told when `error` was the last one. A fallback's troubles are not what he asked about."""
        if isinstance(error, DeadlineExceeded):
            return error
        return self._first_choice_failed or error

    def _may_retry(self, error: ProviderError) -> bool:
        others = len(self._candidates) - self._place - 1
        return (
            error.retryable
            and (error.retry_after or 0.0) <= LONGEST_WAIT
            and self._calls_here < MAX_CALLS_PER_CANDIDATE
            and self.calls + others < MAX_CALLS  # one call is kept for each candidate that has had none
        )

    def _pause(self, error: ProviderError) -> float:
        """Exponential backoff with full jitter, on top of what the vendor asks for.

        https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        return (error.retry_after or 0.0) + self._random() * FIRST_PAUSE * 2.0 ** (self._calls_here - 1)

    def _go_on(self, error: ProviderError) -> bool:
        if self.calls >= MAX_CALLS:
            return False
        failed = self._candidates[self._place]
        for place in range(self._place + 1, len(self._candidates)):
            if _may_help(error, failed, self._candidates[place]):
                self._place, self._calls_here = place, 0
                return True
        return False


def _may_help(error: ProviderError, failed: Candidate, other: Candidate) -> bool:
    """May `other` do what `failed` could not?"""
    if isinstance(error, ContextLengthExceeded):
        return failed.context_window is not None and (other.context_window or 0) > failed.context_window
    return error.failover


class _Watch:
    """Keeps the time of one upstream call; `until` is a moment of the loop's clock. One timer for all of its events:
    when it rings too early, because events have come since, it is set anew."""

    __slots__ = (
        "_began_with",
        "_due",
        "_end",
        "_has_rung",
        "_is_begun",
        "_limits",
        "_loop",
        "_provider",
        "_task",
        "_timer",
        "_timer_at",
    )

    def __init__(self, candidate: Candidate, *, until: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = candidate.timeouts
        self._provider = candidate.provider
        self._end = min(until, self._loop.time() + self._limits.total)
        self._is_begun = False
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._task: asyncio.Task[object] | None = None
        self._began_with = 0
        self._has_rung = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def next(self, stream: AsyncGenerator[Sequence[Event], None]) -> Sequence[Event]:
        """The next events. Raises what the adapter raises, FirstTokenTimeout, Stalled, DeadlineExceeded, and
        TruncatedAnswer for an end without `Finished`."""
        limits = self._limits
        patience = limits.between_chunks if self._is_begun else limits.first_token
        try:
            burst = await self._within(patience, stream)
        except TimeoutError:
            if self._due == self._end:
                raise DeadlineExceeded("The whole answer took too long.", provider=self._provider) from None
            impatience = Stalled if self._is_begun else FirstTokenTimeout
            raise impatience(f"Nothing came for {patience:g} seconds.", provider=self._provider) from None
        if burst is None:
            raise TruncatedAnswer("The answer ended without a finish reason.", provider=self._provider)
        self._is_begun = True
        return burst

    async def tidy(self, stream: AsyncGenerator[Sequence[Event], None]) -> None:
        """Lets the adapter come to its own end. The answer is whole, whatever happens there."""
        self._end = math.inf
        with suppress(ProviderError, TimeoutError):
            await self._within(_TIDYING, stream)

    async def _within(self, seconds: float, stream: AsyncGenerator[Sequence[Event], None]) -> Sequence[Event] | None:
        """As `asyncio.timeout` around the next events, without a timer for each."""
        self._due = min(self._loop.time() + seconds, self._end)
        if self._due < self._timer_at:
            self._set_timer()
        task = self._task = asyncio.current_task()
        self._began_with = task.cancelling() if task else 0
        try:
            burst = await anext(stream, None)
        except BaseException as error:
            self._task = None
            if self._take_back(task) and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error
            raise
        self._task = None
        if self._has_rung:
            self._take_back(task)
        return burst

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._task is None:
            # Nobody waits for the provider: whoever takes the events is slow.
            return
        if self._loop.time() < self._due:
            self._set_timer()
            return
        self._has_rung = True
        self._task.cancel()

    def _take_back(self, task: asyncio.Task[object] | None) -> bool:
        """Takes our cancellation back; whether it was ours, and the only one."""
        if task is None or not self._has_rung:
            return False
        self._has_rung = False
        return task.uncancel() <= self._began_with
