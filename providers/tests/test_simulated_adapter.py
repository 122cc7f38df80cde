"""Each simulated model does what its name says, in events and errors, and the log knows every call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from providers.adapters.base import ProviderConfig, Timeouts
from providers.adapters.reading import MAX_ANSWER_BYTES
from providers.adapters.simulated import FAULTS, SimulatedAdapter
from providers.errors import (
    AnswerTooLarge,
    ConnectionFailed,
    ContentRefused,
    ContextLengthExceeded,
    CredentialsRejected,
    FirstByteTimeout,
    InvalidRequest,
    MalformedAnswer,
    ModelNotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFault,
    TruncatedAnswer,
)
from providers.values import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

pytestmark = pytest.mark.once

ASKED = [Message(role="system", content="Be brief."), Message(role="user", content="Grüß mich, Köln!  Zweimal.\n")]
INPUT = 10  # 9 and 30 bytes, four to a token
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
        },
    },
}


@pytest.fixture(autouse=True)
def nothing_has_happened() -> Iterator[None]:
    SimulatedAdapter.reset()
    yield
    SimulatedAdapter.reset()


@pytest.fixture
def simulated() -> SimulatedAdapter:
    return SimulatedAdapter(
        ProviderConfig(slug="simulated", adapter="", needs_key=False, timeouts=replace(Timeouts(), first_byte=0.01))
    )


def request(model: str, **changes: Any) -> ChatRequest:
    settled: dict[str, Any] = {"messages": ASKED, **changes}
    return ChatRequest(model=model, **settled)


async def play(simulated: SimulatedAdapter, model: str, **changes: Any) -> tuple[list[Event], ProviderError | None]:
    """All that comes of a call: its events, and the error at their end."""
    events: list[Event] = []
    try:
        async for event in simulated.stream(request(model, **changes)):
            events.append(event)  # noqa: PERF401 - what came before an error counts
    except ProviderError as error:
        return events, error
    return events, None


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def finished(model: str, output: int, **changes: Any) -> Finished:
    settled: dict[str, Any] = {
        "reason": FinishReason.STOP,
        "raw_reason": "stop",
        "usage": Usage(input_tokens=INPUT, output_tokens=output),
        "model": model,
        "response_id": SimulatedAdapter.log[-1].call_id,
        **changes,
    }
    return Finished(**settled)


async def test_ok_answers_with_as_many_words_as_asked_for(simulated):
    events, _ = await play(simulated, "ok?tokens=4")
    pieces = ["The ", "harbour ", "wakes ", "before "]
    assert events == [*map(TextDelta, pieces), finished("ok?tokens=4", 4)]


async def test_the_same_call_gives_the_same_text(simulated):
    texts = [text_of((await play(simulated, "ok?tokens=200"))[0]) for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(texts[0].split()) == 200


async def test_an_answer_is_no_longer_than_the_request_allows(simulated):
    events, _ = await play(simulated, "ok", max_tokens=2)
    assert events == [
        TextDelta("The "),
        TextDelta("harbour "),
        finished("ok", 2, reason=FinishReason.LENGTH, raw_reason="length"),
    ]


async def test_echo_repeats_the_last_user_message_to_the_letter(simulated):
    events, _ = await play(simulated, "echo")
    assert text_of(events) == "Grüß mich, Köln!  Zweimal.\n"
    assert events[-1] == finished("echo", 4)


async def test_slow_pauses_before_each_word(simulated, monkeypatch):
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await play(simulated, "slow?tokens=2")
    await play(simulated, "slow?tokens=1&delay=2")
    await play(simulated, "slow-first-token?tokens=1")
    assert pauses == [0.25, 0.25, 2.0, 20.0]


async def test_reasoning_comes_before_the_answer_and_counts_as_output(simulated):
    events, _ = await play(simulated, "reasoning?tokens=1")
    thoughts = [event for event in events if isinstance(event, ReasoningDelta)]
    assert events[len(thoughts) :] == [
        TextDelta("The "),
        finished(
            "reasoning?tokens=1",
            len(thoughts) + 1,
            usage=Usage(input_tokens=INPUT, output_tokens=len(thoughts) + 1, reasoning_tokens=len(thoughts)),
        ),
    ]
    assert len(thoughts) > 5


async def test_a_tool_is_called_in_pieces(simulated):
    events, _ = await play(simulated, "tool-call", tools=[WEATHER])
    calls = [event for event in events if isinstance(event, ToolCallDelta)]
    call_id = SimulatedAdapter.log[-1].call_id
    assert calls[0] == ToolCallDelta(index=0, id=f"call_{call_id}", name="weather")
    assert len(calls) > 2
    assert "".join(call.arguments for call in calls) == '{"city": "Paris", "days": 3, "unit": "C"}'
    assert events[-1] == finished("tool-call", len(calls), reason=FinishReason.TOOL_CALLS, raw_reason="tool_calls")


async def test_the_tool_that_the_request_insists_on_is_called(simulated):
    other = {"type": "function", "function": {"name": "time"}}
    events, _ = await play(
        simulated, "tool-call", tools=[WEATHER, other], tool_choice={"type": "function", "function": {"name": "time"}}
    )
    assert isinstance(events[0], ToolCallDelta)
    assert events[0].name == "time"


@pytest.mark.parametrize(
    ("schema", "argument"),
    [
        ({"type": "integer"}, 3),
        ({"type": ["number", "null"]}, 3.5),
        ({"enum": ["small", "large"]}, "small"),
        ({"type": "null"}, None),
        ({}, "Paris"),
        (True, "Paris"),
        ({"enum": "no list", "type": 5}, "Paris"),
    ],
)
async def test_arguments_fit_the_tools_schema(simulated, schema, argument):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}
    events, _ = await play(simulated, "tool-call", tools=[tool])
    assert json.loads("".join(event.arguments for event in events[:-1])) == {"a": argument}


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], None),
        ([{}], None),
        ([{"function": "weather"}], None),
        ([{"function": {"name": None}}], "auto"),
        ([{"function": {"description": "nameless"}}], {"type": "function"}),
    ],
)
async def test_a_tool_call_is_made_up_when_there_is_no_tool(simulated, tools, choice):
    events, _ = await play(simulated, "tool-call", tools=tools, tool_choice=choice)
    assert isinstance(events[0], ToolCallDelta)
    assert events[0].name == "get_weather"


async def test_the_result_of_a_tool_is_answered_with_text(simulated):
    messages = [*ASKED, Message(role="tool", tool_call_id="1", content="sunny")]
    events, _ = await play(simulated, "tool-call?tokens=1", tools=[WEATHER], messages=messages)
    assert text_of(events) == "The "


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("no-done", {}),
        ("error-null", {}),
        ("garbage", {"malformed_chunks": 1}),
        ("no-usage", {"usage": None}),
        ("reports-cost", {"cost_usd": Decimal("0.000123")}),
        ("content-filter", {"reason": FinishReason.CONTENT_FILTER, "raw_reason": "content_filter"}),
        ("unknown-reason", {"reason": FinishReason.UNKNOWN, "raw_reason": "tired"}),
    ],
)
async def test_an_odd_ending_still_is_a_whole_answer(simulated, model, changes):
    events, error = await play(simulated, f"{model}?tokens=1")
    assert (events, error) == ([TextDelta("The "), finished(f"{model}?tokens=1", 1, **changes)], None)


async def test_invalid_utf8_becomes_a_replacement_character(simulated):
    events, _ = await play(simulated, "invalid-utf8?tokens=1")
    assert events == [
        TextDelta("Caf\ufffd "),
        TextDelta("The "),
        finished("invalid-utf8?tokens=1", 2, malformed_chunks=1),
    ]


@pytest.mark.parametrize(
    ("model", "kind", "status", "code"),
    [
        ("429-forever", RateLimited, 429, "rate_limit_exceeded"),
        ("500-forever", ServerFault, 500, "server_error"),
        ("503-forever", Overloaded, 503, "overloaded"),
        ("context-length", ContextLengthExceeded, 400, "context_length_exceeded"),
        ("content-policy", ContentRefused, 400, "content_policy_violation"),
        ("html-error", ServerFault, 502, None),
        ("empty-200", MalformedAnswer, 200, None),
        ("wrong-content-type", MalformedAnswer, 200, None),
        ("key-refused", CredentialsRejected, 401, "invalid_api_key"),
        ("quota-exhausted", QuotaExhausted, 429, "insufficient_quota"),
        ("down-60s", Overloaded, 503, None),
    ],
)
async def test_a_refusal_comes_every_time_with_the_vendors_words(simulated, model, kind, status, code):
    for _ in range(3):
        events, error = await play(simulated, model)
        assert events == []
        assert error is not None
        assert (type(error), error.upstream_status, error.upstream_code) == (kind, status, code)
        assert (error.provider, error.upstream_request_id) == ("simulated", SimulatedAdapter.log[-1].call_id)
        assert error.retry_after is None


@pytest.mark.parametrize(("model", "kind"), [("reset", ConnectionFailed), ("silence", FirstByteTimeout)])
async def test_without_a_response_there_is_no_request_id(simulated, model, kind):
    events, error = await play(simulated, model)
    assert events == []
    assert error is not None
    assert (type(error), error.upstream_status, error.upstream_request_id) == (kind, None, None)


@pytest.mark.parametrize(
    ("model", "kind"),
    [("cut", TruncatedAnswer), ("reset-midway", ConnectionFailed), ("error-in-stream", ServerFault)],
)
async def test_a_stream_breaks_in_mid_answer(simulated, model, kind):
    events, error = await play(simulated, f"{model}?after=2")
    assert (events, type(error)) == ([TextDelta("The "), TextDelta("harbour ")], kind)


@pytest.mark.parametrize(
    ("model", "kind"),
    [("429-once", RateLimited), ("500-once", ServerFault), ("503-once", Overloaded), ("reset-once", ConnectionFailed)],
)
async def test_once_is_once_per_model_name(simulated, model, kind):
    kinds = [type((await play(simulated, name))[1]) for name in (model, model, f"{model}?key=other", model)]
    assert kinds == [kind, type(None), kind, type(None)]


async def test_once_is_once_for_all_adapters_until_reset(simulated):
    await play(simulated, "500-once")
    another = SimulatedAdapter(simulated.config)
    assert (await play(another, "500-once"))[1] is None
    SimulatedAdapter.reset()
    assert type((await play(another, "500-once"))[1]) is ServerFault


@pytest.mark.parametrize(("model", "seconds"), [("429-once", 2.0), ("429-once?retry_after=7", 7.0)])
async def test_a_rate_limit_says_when_to_come_back(simulated, model, seconds):
    _, error = await play(simulated, model)
    assert error is not None
    assert error.retry_after == seconds


async def test_down_is_over_after_a_minute_from_the_first_call(simulated, monkeypatch):
    times = iter((1000.0, 1059.9, 1060.0, 5000.0))
    monkeypatch.setattr(SimulatedAdapter, "clock", staticmethod(lambda: next(times)))
    seen = [type((await play(simulated, "down-60s"))[1]) for _ in range(4)]
    assert seen == [Overloaded, Overloaded, type(None), type(None)]


async def test_a_prefilled_answer_is_refused_and_others_are_not(simulated):
    prefilled = [*ASKED, Message(role="assistant", content="Well,")]
    refused, passed = (
        await play(simulated, "refuses-prefill", messages=prefilled),
        await play(simulated, "refuses-prefill"),
    )
    assert (type(refused[1]), passed[1]) == (InvalidRequest, None)


async def test_huge_is_ended_at_what_we_take(simulated):
    events, error = await play(simulated, "huge")
    assert isinstance(error, AnswerTooLarge)
    assert 0.95 * MAX_ANSWER_BYTES < len(text_of(events)) <= MAX_ANSWER_BYTES


@pytest.mark.parametrize(("model", "pieces"), [("stall?after=3", 3), ("slow-first-token", 0)])
async def test_a_model_that_hangs_can_be_left(simulated, model, pieces):
    events = []

    async def read() -> None:
        async with aclosing(simulated.stream(request(model))) as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - the loop never ends by itself

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.05)
    assert len(events) == pieces
    assert SimulatedAdapter.running == set()


async def test_a_call_runs_until_it_is_closed(simulated):
    stream = simulated.stream(request("stall"))
    await anext(stream)
    assert {SimulatedAdapter.log[-1].call_id} == SimulatedAdapter.running
    await stream.aclose()
    assert SimulatedAdapter.running == set()


async def test_the_log_has_every_call_in_order_whatever_came_of_it(simulated):
    events, _ = await play(simulated, "ok")
    _, error = await play(simulated, "500-forever")
    await play(simulated, "nonsense")
    assert isinstance(events[-1], Finished)
    assert error is not None
    log = list(SimulatedAdapter.log)
    assert [call.model for call in log] == ["ok", "500-forever", "nonsense"]
    assert [call.call_id for call in log[:2]] == [events[-1].response_id, error.upstream_request_id]
    assert log[0].at <= log[1].at <= log[2].at


async def test_an_unknown_model_names_near_ones(simulated):
    _, error = await play(simulated, "429-onse")
    assert isinstance(error, ModelNotFound)
    assert error.message == "There is no simulated model '429-onse'. Near ones: 429-once, 429-forever."


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("slow?speed=2", "slow has the parameters tokens, delay, not 'speed'."),
        ("ok?tokens=many", "tokens of ok is a number from 0 to 1000000, not 'many'."),
        ("ok?tokens=-1", "tokens of ok is a number from 0 to 1000000, not '-1'."),
        ("ok?tokens=nan", "tokens of ok is a number from 0 to 1000000, not 'nan'."),
        ("ok?tokens=1e9", "tokens of ok is a number from 0 to 1000000, not '1e9'."),
    ],
)
async def test_a_wrong_parameter_is_refused(simulated, model, says):
    _, error = await play(simulated, model)
    assert isinstance(error, InvalidRequest)
    assert error.message == says


async def test_memory_of_model_names_is_bounded(simulated, monkeypatch):
    monkeypatch.setattr("providers.adapters.simulated.adapter._REMEMBERED", 2)
    for key in "abc":
        await play(simulated, f"500-once?key={key}")
    kinds = [type((await play(simulated, f"500-once?key={key}"))[1]) for key in "ca"]
    assert kinds == [type(None), ServerFault]  # the oldest was forgotten


def test_every_upstream_fault_of_the_requirements_can_be_played():
    told = {fault.description.split(":")[0] for fault in FAULTS.values() if fault.description.startswith("U")}
    assert told == {f"U{number}" for number in range(1, 18)}
    assert all(fault.name == name and fault.description for name, fault in FAULTS.items())


async def test_it_needs_no_key_and_is_always_well(simulated):
    assert simulated.config.configured
    await simulated.probe()
    await simulated.aclose()
