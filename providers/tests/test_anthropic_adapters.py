"""What only Anthropic's dialect has: messages translated into its blocks, and its events' corners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.utils.module_loading import import_string

from providers.adapters.base import Adapter
from providers.adapters.dialects import anthropic as dialect
from providers.errors import InvalidRequest, Overloaded
from providers.tests.subjects import ANTHROPIC, KEY, WEATHER, Subject, over, sse
from providers.tests.upstream import Reply, Upstream, recorded
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta, ToolCallDelta

pytestmark = pytest.mark.once

HELLO = [Message(role="user", content="Hello")]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}
SAID = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]


@pytest.fixture(scope="module", params=["sdk", "wire"])
def subject(request: pytest.FixtureRequest) -> Subject:
    found = over(request.param, ANTHROPIC)
    import_string(found.adapter)
    return found


@pytest.fixture
async def adapter(subject: Subject, upstream: Upstream) -> AsyncIterator[Adapter]:
    made = subject.make(upstream)
    yield made
    await made.aclose()


async def drained(adapter: Adapter, **settings: Any) -> list[Event]:
    return [event async for event in adapter.stream(ANTHROPIC.request(**settings))]


def body(*, messages: list[Message] | None = None, options: dict[str, Any] | None = None, **settings: Any) -> Any:
    return dialect.body(ChatRequest(model="m", messages=messages or HELLO, **settings), options=options or {})


def ending(reason: str, **delta: Any) -> bytes:
    return sse({"type": "message_delta", "delta": {"stop_reason": reason, **delta}, "usage": {"output_tokens": 1}})


def test_smallest_request_has_the_limit_that_anthropic_demands() -> None:
    assert body() == {"model": "m", "max_tokens": 16_384, "messages": SAID, "stream": True}


def test_every_known_parameter_is_sent_and_the_rest_is_left_out() -> None:
    assert body(
        messages=[
            Message(role="system", content="Be brief."),
            Message(role="developer", content="Be kind."),
            *HELLO,
        ],
        temperature=0.0,
        top_p=0.0,
        max_tokens=7,
        stop=["a"],
        seed=1,
        presence_penalty=1.0,
        frequency_penalty=1.0,
        tools=[WEATHER, {"type": "function", "function": {"name": "now", "description": "The time"}}],
        tool_choice="required",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        extra={"logit_bias": {}, "parallel_tool_calls": False},
    ) == {
        "model": "m",
        "max_tokens": 7,
        "messages": SAID,
        "stream": True,
        "system": "Be brief.\n\nBe kind.",
        "stop_sequences": ["a"],
        "tools": [
            {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]},
            {"name": "now", "description": "The time", "input_schema": {"type": "object", "properties": {}}},
        ],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "get_weather"}}, {"type": "tool", "name": "get_weather"}),
    ],
)
def test_tool_choice_in_anthropics_words(choice: Any, expected: Any) -> None:
    assert body(tools=[WEATHER], tool_choice=choice).get("tool_choice") == expected


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("data:image/png;base64,iVBORw0K", {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}),
        ("https://example.com/cat.png", {"type": "url", "url": "https://example.com/cat.png"}),
    ],
)
def test_images_are_sent(url: str, source: dict[str, str]) -> None:
    message = Message(role="user", content=[{"type": "image_url", "image_url": {"url": url}}])
    assert body(messages=[message])["messages"] == [{"role": "user", "content": [{"type": "image", "source": source}]}]


def test_empty_messages_are_left_out_because_anthropic_refuses_them() -> None:
    messages = [Message(role="assistant", content=""), *HELLO]
    assert body(messages=messages)["messages"] == SAID


@pytest.mark.parametrize(
    "settings",
    [
        {"messages": [Message(role="system", content=[IMAGE]), *HELLO]},
        {"messages": [Message(role="developer", content=[{"type": "file"}]), *HELLO]},
        {"messages": [Message(role="user", content=[{"type": "input_audio", "input_audio": {}}])]},
        {"messages": [Message(role="user", content=[{"type": "image_url", "image_url": {"url": "file:///x"}}])]},
        {"messages": [Message(role="user", content=[{"type": "image_url"}])]},
        {"messages": [Message(role="assistant", tool_calls=[{"id": "c", "function": {"arguments": "{"}}])]},
        {"messages": [Message(role="assistant", tool_calls=[{"id": "c", "function": {"arguments": "[1]"}}])]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [WEATHER], "tool_choice": "whatever"},
        {"response_format": {"type": "json_object"}},
    ],
)
async def test_content_that_cannot_be_said_is_refused_before_anything_is_sent(
    adapter: Adapter, upstream: Upstream, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        await anext(aiter(adapter.stream(ANTHROPIC.request(**settings))))
    assert upstream.requests == []


async def test_key_goes_with_every_call_as_its_api_version_wants_it(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("anthropic_plain"))
    await drained(adapter)
    await drained(adapter, temperature=0.0)
    names = ("authorization", "x-api-key", "anthropic-version")
    assert [[received.headers.get(name) for name in names] for received in upstream.requests] == [
        [f"Bearer {KEY}", None, "2026-10-21"],
        [None, KEY, "2023-06-01"],
    ]
    assert {received.path for received in upstream.requests} == {"/v1/messages"}


@pytest.mark.parametrize(
    "model",
    [
        "claude-3-haiku-20240307",
        "claude-3-7-sonnet-latest",
        "claude-opus-4-20250514",
        "claude-opus-4-1-20250805",
        "claude-haiku-4-5",
        "claude-sonnet-4-6",
    ],
)
@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"temperature": 1.7}, {"temperature": 1.0}),
        ({"top_p": 0.0}, {"top_p": 0.0}),
        ({"temperature": 0.5, "top_p": 0.5}, {"temperature": 0.5}),
        ({}, {}),
    ],
)
def test_sampling_is_sent_to_models_that_know_it(model: str, asked: dict[str, float], sent: dict[str, float]) -> None:
    made = dialect.body(ChatRequest(model=model, messages=HELLO, **asked), options={})  # type: ignore[arg-type]
    assert {name: made[name] for name in ("temperature", "top_p") if name in made} == sent
    assert dialect.headers(made) == ({"anthropic-version": "2023-06-01"} if sent else {})


@pytest.mark.parametrize(
    "model",
    ["claude-opus-4-7", "claude-sonnet-5", "claude-haiku-5-5-20260901", "claude-opus-10", "claude-mythos-preview"],
)
def test_sampling_is_left_out_for_models_that_refuse_it(model: str) -> None:
    made = dialect.body(ChatRequest(model=model, messages=HELLO, temperature=0.0, top_p=0.5), options={})
    assert (made.keys() & {"temperature", "top_p"}, dialect.headers(made)) == (set(), {})


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("tool_use", FinishReason.TOOL_CALLS),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("pause_turn", FinishReason.UNKNOWN),
    ],
)
async def test_stop_reasons(adapter: Adapter, upstream: Upstream, word: str, reason: FinishReason) -> None:
    upstream.reply = Reply(body=ending(word))
    (finished,) = await drained(adapter)
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.raw_reason) == (reason, word)


async def test_stop_sequence_is_kept(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=ending("stop_sequence", stop_sequence="END"))
    (finished,) = await drained(adapter)
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.extra) == (FinishReason.STOP, {"stop_sequence": "END"})


async def test_overload_in_mid_answer(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("anthropic_error_in_stream"))
    with pytest.raises(Overloaded) as caught:
        await drained(adapter)
    assert (caught.value.message, caught.value.upstream_code) == ("anthropic: Overloaded", "overloaded_error")


async def test_block_that_begins_with_its_content_loses_nothing(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(
        body=sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Hi"}})
        + sse(
            {
                "type": "content_block_start",
                "index": 1,
                "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            }
        )
        + sse({"type": "content_block_stop", "index": 1})
        + sse({"type": "something_of_next_year"})
        + ending("tool_use")
    )
    *events, _ = await drained(adapter)
    assert events == [TextDelta("Hi"), ToolCallDelta(index=0, id="t", name="f", arguments='{"a": 1}')]
