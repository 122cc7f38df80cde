"""Failover makes one whole answer out of several candidates, or tells what matters about why there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from providers.adapters.base import ProviderConfig, Timeouts
from providers.adapters.simulated import SimulatedAdapter
from providers.errors import (
    ConnectionFailed,
    ContentRefused,
    ContextLengthExceeded,
    CredentialsRejected,
    DeadlineExceeded,
    FirstByteTimeout,
    FirstTokenTimeout,
    InvalidRequest,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFault,
    Stalled,
    TruncatedAnswer,
)
from providers.failover import AttemptEnded, AttemptStarted, Candidate, Restarted, Step, attempt_in_order
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta

PATIENT = Timeouts()
SIMULATED = SimulatedAdapter(
    ProviderConfig(slug="simulated", adapter="", needs_key=False, timeouts=Timeouts(first_byte=0.01))
)
END = Finished(reason=FinishReason.STOP, raw_reason="stop")


@pytest.fixture(autouse=True)
def nothing_has_happened() -> Iterator[None]:
    SimulatedAdapter.reset()
    yield
    assert SimulatedAdapter.running == set(), "a stream was left open"
    SimulatedAdapter.reset()


def simulated(model: str, *, timeouts: Timeouts = PATIENT, **changes: Any) -> Candidate:
    asked = ChatRequest(model=model, messages=[Message(role="user", content="Hello")])
    return Candidate(provider="simulated", model=model, adapter=SIMULATED, request=asked, timeouts=timeouts, **changes)


class Scripted:
    """An adapter that does as its script says, call by call: yields events, raises errors, awaits the rest."""

    config = SIMULATED.config

    def __init__(self, *script: Sequence[Event | ProviderError | Callable[[], Any]]) -> None:
        self._script = iter(script)
        self.calls = 0
        self.closed = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        self.calls += 1
        try:
            for line in next(self._script):
                if isinstance(line, Exception):
                    raise line
                if callable(line):
                    await line()
                else:
                    yield line
        finally:
            await asyncio.sleep(0)  # closing a connection is a matter of awaiting
            self.closed += 1

    async def probe(self) -> None: ...

    async def aclose(self) -> None: ...


def scripted(
    *script: Sequence[Event | ProviderError | Callable[[], Any]], timeouts: Timeouts = PATIENT, **changes: Any
) -> tuple[Candidate, Scripted]:
    adapter = Scripted(*script)
    asked = ChatRequest(model="m", messages=[])
    candidate = Candidate(
        provider="scripted",
        model="m",
        adapter=adapter,
        request=asked,
        timeouts=timeouts,
        **changes,
    )
    return candidate, adapter


async def forever() -> None:
    await asyncio.Event().wait()


@dataclass
class Story:
    """What came of one answer: the steps, the error at their end, and the pauses between calls."""

    steps: list[Step] = field(default_factory=list)
    error: ProviderError | None = None
    pauses: list[float] = field(default_factory=list)

    @property
    def calls(self) -> list[str]:
        """The models called, in order."""
        return [step.candidate.model for step in self.steps if isinstance(step, AttemptStarted)]

    @property
    def failures(self) -> list[type[ProviderError]]:
        return [type(step.error) for step in self.steps if isinstance(step, AttemptEnded) if step.error is not None]

    @property
    def text(self) -> str:
        """The answer as one who follows the rules puts it together."""
        pieces: list[str] = []
        for step in self.steps:
            if isinstance(step, Restarted):
                pieces.clear()
            elif isinstance(step, TextDelta):
                pieces.append(step.text)
        return "".join(pieces)


async def tell(*candidates: Candidate, random: float = 0.5, **options: Any) -> Story:
    story = Story()

    async def sleep(seconds: float) -> None:
        story.pauses.append(seconds)

    try:
        async for step in attempt_in_order(candidates, sleep=sleep, random=lambda: random, **options):
            story.steps.append(step)
    except ProviderError as error:
        story.error = error
    return story


async def test_an_answer_at_the_first_call_is_told_in_order():
    candidate = simulated("ok?tokens=2")
    story = await tell(candidate)
    end = story.steps[-1]
    assert isinstance(end, Finished)
    assert story.steps == [
        AttemptStarted(number=1, candidate=candidate),
        TextDelta("The "),
        TextDelta("harbour "),
        AttemptEnded(number=1, finished=end),
        end,
    ]
    assert (story.error, story.pauses) == (None, [])
    assert end.response_id == SimulatedAdapter.log[-1].call_id


@pytest.mark.parametrize(
    ("model", "error"), [("500-once", ServerFault), ("503-once", Overloaded), ("reset-once", ConnectionFailed)]
)
async def test_a_passing_fault_is_retried_at_the_same_candidate(model, error):
    story = await tell(simulated(model), simulated("ok"))
    assert (story.calls, story.failures, story.pauses, story.error) == ([model, model], [error], [0.25], None)
    assert [type(step) for step in story.steps[:3]] == [AttemptStarted, AttemptEnded, AttemptStarted]


async def test_every_call_upstream_is_an_attempt_told():
    story = await tell(simulated("503-forever"), simulated("429-forever"), simulated("ok"))
    assert [call.model for call in SimulatedAdapter.log] == story.calls
    assert [step.number for step in story.steps if isinstance(step, AttemptStarted)] == [1, 2, 3, 4, 5, 6]
    ids = [step.error.upstream_request_id for step in story.steps if isinstance(step, AttemptEnded) if step.error]
    assert ids == [call.call_id for call in SimulatedAdapter.log][:-1]


@pytest.mark.parametrize("model", ["429-forever", "503-forever", "500-forever", "reset", "empty-200", "html-error"])
async def test_a_lasting_fault_is_left_after_three_calls(model):
    story = await tell(simulated(model), simulated("ok"))
    assert (story.calls, story.error) == ([model] * 3 + ["ok"], None)


async def test_there_are_six_calls_at_most_and_one_for_each_candidate():
    three = [simulated(f"503-forever?key={name}") for name in "abc"]
    story = await tell(*three)
    assert story.calls == [three[0].model] * 3 + [three[1].model] * 2 + [three[2].model]
    seven = await tell(*(simulated(f"503-forever?key={name}") for name in "abcdefg"))
    assert len(seven.calls) == len(set(seven.calls)) == 6
    assert type(seven.error) is Overloaded


@pytest.mark.parametrize(("random", "pauses"), [(0.0, []), (0.5, [0.25, 0.5]), (0.99, [0.495, 0.99])])
async def test_pauses_grow_with_full_jitter(random, pauses):
    story = await tell(simulated("503-forever"), random=random)
    assert story.pauses == pauses


@pytest.mark.parametrize(("random", "pause"), [(0.0, 5.0), (0.5, 5.25)])
async def test_nobody_is_called_before_the_time_that_he_asked_for(random, pause):
    story = await tell(simulated("429-once?retry_after=5"), simulated("ok"), random=random)
    assert (story.pauses, story.error) == ([pause], None)


async def test_who_asks_for_too_long_a_wait_is_left_at_once():
    story = await tell(simulated("429-forever?retry_after=5.1"), simulated("ok"))
    assert (story.calls, story.pauses) == (["429-forever?retry_after=5.1", "ok"], [])


async def test_a_wait_beyond_the_deadline_is_not_begun():
    story = await tell(simulated("429-forever?retry_after=3"), simulated("ok"), deadline=2.0)
    assert (story.calls, story.pauses) == (["429-forever?retry_after=3", "ok"], [])


async def test_without_anybody_else_a_long_wait_is_the_callers():
    story = await tell(simulated("429-forever?retry_after=30"))
    assert isinstance(story.error, RateLimited)
    assert (story.error.retry_after, len(story.calls)) == (30.0, 1)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("silence", FirstByteTimeout),
        ("key-refused", CredentialsRejected),
        ("quota-exhausted", None),
        ("no-such-model", None),
        ("huge", None),
    ],
)
async def test_what_lasts_fails_over_without_a_retry(model, error):
    story = await tell(simulated(model), simulated("ok?tokens=1"), restartable=True)
    assert (story.calls, story.text, story.error) == ([model, "ok?tokens=1"], "The ", None)
    assert error is None or story.failures == [error]


@pytest.mark.parametrize(
    ("model", "error"), [("context-length", ContextLengthExceeded), ("content-policy", ContentRefused)]
)
async def test_the_callers_own_fault_is_one_call_and_his_to_know(model, error):
    story = await tell(simulated(model), simulated("ok"))
    assert (story.calls, type(story.error)) == ([model], error)


async def test_a_prompt_too_long_goes_to_a_larger_window():
    story = await tell(
        simulated("context-length", context_window=8192),
        simulated("ok?key=same", context_window=8192),
        simulated("ok?key=unknown"),
        simulated("ok?key=larger", context_window=100_000),
    )
    assert (story.calls, story.error) == (["context-length", "ok?key=larger"], None)


async def test_a_prompt_too_long_for_all_is_told_as_such():
    story = await tell(
        simulated("context-length", context_window=8192), simulated("503-forever", context_window=100_000)
    )
    assert type(story.error) is ContextLengthExceeded


async def test_a_fallbacks_trouble_never_masks_the_first_choices():
    for trouble in (InvalidRequest("no prefill"), CredentialsRejected("no"), RateLimited("busy", retry_after=60.0)):
        first, _ = scripted([ServerFault("down", retry_after=9.0)])
        fallback, adapter = scripted([trouble])
        story = await tell(first, fallback)
        assert (type(story.error), adapter.calls) == (ServerFault, 1)


async def test_the_last_of_the_first_choices_errors_is_told():
    first, _ = scripted([ServerFault("one")], [ConnectionFailed("two")], [Overloaded("three")])
    story = await tell(first, simulated("key-refused"))
    assert (type(story.error), story.failures) == (
        Overloaded,
        [ServerFault, ConnectionFailed, Overloaded, CredentialsRejected],
    )


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("cut?after=2", TruncatedAnswer),
        ("reset-midway?after=2", ConnectionFailed),
        ("error-in-stream?after=2", ServerFault),
    ],
)
async def test_nothing_is_tried_again_once_something_was_shown(model, error):
    story = await tell(simulated(model), simulated("ok"))
    assert (story.calls, type(story.error), story.text) == ([model], error, "The harbour ")
    assert isinstance(story.steps[-1], AttemptEnded)


async def test_what_a_fallback_showed_makes_its_error_the_one_to_tell():
    story = await tell(simulated("key-refused"), simulated("cut?after=2"))
    assert (type(story.error), story.failures) == (TruncatedAnswer, [CredentialsRejected, TruncatedAnswer])


async def test_a_cut_answer_that_nobody_saw_begins_anew():
    story = await tell(simulated("cut?after=2"), simulated("ok?tokens=3"), restartable=True)
    assert story.calls == ["cut?after=2"] * 3 + ["ok?tokens=3"]
    assert (story.text, story.error) == ("The harbour wakes ", None)
    kinds = [type(step) for step in story.steps]
    assert kinds == [AttemptStarted, TextDelta, TextDelta, AttemptEnded, Restarted] * 3 + [
        AttemptStarted,
        TextDelta,
        TextDelta,
        TextDelta,
        AttemptEnded,
        Finished,
    ]


async def test_nothing_begins_anew_where_nothing_had_begun_or_nothing_follows():
    story = await tell(simulated("503-once"), restartable=True)
    assert not any(isinstance(step, Restarted) for step in story.steps)
    last = await tell(simulated("stall?after=1", timeouts=Timeouts(between_chunks=0.01)), restartable=True)
    assert (type(last.error), last.text) == (Stalled, "The ")


async def test_a_late_first_token_goes_to_the_next_candidate():
    story = await tell(simulated("slow-first-token", timeouts=Timeouts(first_token=0.01)), simulated("ok"))
    assert (story.calls, story.failures, story.error) == (["slow-first-token", "ok"], [FirstTokenTimeout], None)


async def test_a_stalled_answer_that_nobody_saw_goes_to_the_next_candidate():
    stalling = simulated("stall?after=2", timeouts=Timeouts(first_token=30.0, between_chunks=0.01))
    story = await tell(stalling, simulated("ok?tokens=1"), restartable=True)
    assert (story.calls, story.failures, story.text) == (["stall?after=2", "ok?tokens=1"], [Stalled], "The ")


async def test_a_stalled_answer_that_was_shown_is_told_as_stalled():
    story = await tell(simulated("stall?after=2", timeouts=Timeouts(between_chunks=0.01)), simulated("ok"))
    assert (story.calls, type(story.error)) == (["stall?after=2"], Stalled)
    assert story.error is not None
    assert story.error.provider == "simulated"


async def test_a_pause_of_the_reader_is_no_stall_of_the_model():
    candidate = simulated("ok?tokens=3", timeouts=Timeouts(first_token=0.1, between_chunks=0.1))
    steps = []
    async for step in attempt_in_order([candidate]):
        steps.append(type(step))
        await asyncio.sleep(0.12)
    assert steps == [AttemptStarted, TextDelta, TextDelta, TextDelta, AttemptEnded, Finished]


@pytest.mark.parametrize(
    ("timeouts", "options"), [(Timeouts(total=0.02), {}), (PATIENT, {"deadline": 0.02})], ids=["call", "all"]
)
async def test_when_the_time_is_over_nothing_more_is_tried(timeouts, options):
    story = await tell(simulated("stall", timeouts=timeouts), simulated("ok"), restartable=True, **options)
    assert (story.calls, type(story.error)) == (["stall"], DeadlineExceeded)


async def test_a_deadline_that_passes_at_a_fallback_is_told_as_such():
    story = await tell(simulated("key-refused"), simulated("stall"), deadline=0.05, restartable=True)
    assert (story.calls, type(story.error)) == (["key-refused", "stall"], DeadlineExceeded)


async def test_an_adapter_that_ends_without_an_end_is_cut():
    candidate, adapter = scripted([TextDelta("Well")], [], [END])
    story = await tell(candidate, restartable=True)
    assert (story.failures, story.text, story.error) == ([TruncatedAnswer, TruncatedAnswer], "", None)
    assert (adapter.calls, adapter.closed) == (3, 3)


@pytest.mark.parametrize(
    "after",
    [[], [TextDelta("more")], [ConnectionFailed("reset")], [forever]],
    ids=["nothing", "an event", "an error", "silence"],
)
async def test_what_comes_after_the_end_changes_nothing(after):
    candidate, adapter = scripted([TextDelta("Well"), END, *after])
    story = await tell(candidate)
    assert story.steps == [
        AttemptStarted(number=1, candidate=candidate),
        TextDelta("Well"),
        AttemptEnded(number=1, finished=END),
        END,
    ]
    assert adapter.closed == 1


async def test_an_adapter_may_tidy_up_after_the_end():
    tidied = []

    async def tidy() -> None:
        await asyncio.sleep(0)
        tidied.append(True)

    candidate, _ = scripted([END, tidy])
    await tell(candidate)
    assert tidied == [True]


async def test_every_stream_is_closed_before_the_next_call():
    closed_at_call: list[int] = []

    async def look() -> None:
        closed_at_call.append(adapter.closed)

    candidate, adapter = scripted(
        [look, TextDelta("a"), ServerFault("down")], [look, TextDelta("b")], [look, TextDelta("c"), END]
    )
    await tell(candidate, restartable=True)
    assert closed_at_call == [0, 1, 2]
    assert adapter.closed == 3


async def test_a_reader_who_leaves_closes_the_upstream():
    candidate, adapter = scripted([TextDelta("a"), TextDelta("b"), forever])
    async with aclosing(attempt_in_order([candidate])) as steps:
        async for step in steps:
            if isinstance(step, TextDelta):
                break
    assert (adapter.calls, adapter.closed) == (1, 1)


async def test_a_cancelled_reader_closes_the_upstream_and_tries_nothing_else():
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await forever()

    candidate, adapter = scripted([hang])
    fallback, untouched = scripted([END])
    reading = asyncio.create_task(tell(candidate, fallback))
    await reached.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (adapter.calls, adapter.closed, untouched.calls) == (1, 1, 0)


async def test_a_fault_of_an_adapter_itself_is_not_hidden():
    candidate, adapter = scripted([ValueError("a bug")])  # type: ignore[list-item]
    fallback, untouched = scripted([END])
    with pytest.raises(ValueError, match="a bug"):
        await tell(candidate, fallback)
    assert (adapter.closed, untouched.calls) == (1, 0)


async def test_without_a_candidate_there_is_nothing_to_try():
    with pytest.raises(ValueError, match="candidate"):
        await tell()


async def test_time_is_kept_with_a_handful_of_timers_however_long_the_answer(monkeypatch):
    loop, timers = asyncio.get_running_loop(), []
    real = loop.call_at

    def call_at(when, *args, **kwargs):
        timers.append(when)
        return real(when, *args, **kwargs)

    monkeypatch.setattr(loop, "call_at", call_at)
    candidate, _ = scripted([*[TextDelta("x")] * 500, END])
    story = await tell(candidate)
    assert story.text == "x" * 500
    assert len(timers) < 5


async def test_a_stall_after_many_events_and_a_slow_reader_is_noticed():
    timeouts = Timeouts(first_token=0.05, between_chunks=0.05)
    candidate, adapter = scripted([TextDelta("a"), TextDelta("b"), forever], timeouts=timeouts)
    shown = []

    async def read_slowly() -> None:
        async with aclosing(attempt_in_order([candidate])) as steps:
            async for step in steps:
                shown.append(step)
                await asyncio.sleep(0.12)

    with pytest.raises(Stalled):
        await read_slowly()
    assert [step for step in shown if isinstance(step, TextDelta)] == [TextDelta("a"), TextDelta("b")]
    assert (adapter.closed, asyncio.current_task().cancelling()) == (1, 0)


async def test_a_cancellation_from_outside_that_meets_our_own_is_not_taken_for_a_stall():
    async def cancelled_twice() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            task.cancel()
            raise

    candidate, _ = scripted([cancelled_twice], timeouts=Timeouts(first_token=0.02))
    task = asyncio.ensure_future(tell(candidate))
    with pytest.raises(asyncio.CancelledError):
        await task
