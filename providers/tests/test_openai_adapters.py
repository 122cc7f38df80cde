"""What only OpenAI's dialect has: its body as sent, its vendors' differences, and their oddities in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, cast

import pytest
from django.utils.module_loading import import_string

from providers.adapters.base import Adapter
from providers.adapters.dialects import openai as dialect
from providers.errors import Overloaded, ProviderError, ServerFault
from providers.tests.subjects import KEY, OPENAI, OPENROUTER, SIGNED, WEATHER, Subject, over, sse
from providers.tests.upstream import Ending, Reply, Upstream, recorded
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta, ToolCallDelta, Usage

pytestmark = pytest.mark.once

HELLO = [Message(role="user", content="Hello")]


@pytest.fixture(scope="module", params=["sdk", "wire"])
def family(request: pytest.FixtureRequest) -> str:
    import_string(over(request.param, OPENAI).adapter)
    return cast("str", request.param)


@pytest.fixture
def openrouter(family: str) -> Subject:
    return over(family, OPENROUTER)


@pytest.fixture
async def adapter(family: str, upstream: Upstream) -> AsyncIterator[Adapter]:
    made = over(family, OPENAI).make(upstream)
    yield made
    await made.aclose()


async def drained(adapter: Adapter, request: ChatRequest | None = None) -> list[Event]:
    return [event async for event in adapter.stream(request or OPENAI.request())]


def chunk(delta: dict[str, Any], *, reason: str | None = None, **fields: Any) -> bytes:
    return sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **fields})


USAGE = sse({"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
STOP = chunk({}, reason="stop") + USAGE


# The body


def test_smallest_request_says_nothing_that_nobody_said() -> None:
    assert dialect.body(ChatRequest(model="m", messages=HELLO), options={}) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_known_parameter_is_sent() -> None:
    request = ChatRequest(
        model="m",
        messages=[
            Message(role="developer", content="Be brief."),
            Message(role="user", content="Hello", name="ann"),
        ],
        temperature=0.0,
        top_p=0.0,
        max_tokens=7,
        stop=["a", "b"],
        seed=0,
        presence_penalty=0.0,
        frequency_penalty=-1.0,
        tools=[WEATHER],
        tool_choice="auto",
        response_format={"type": "json_object"},
    )
    assert dialect.body(request, options={"max_tokens_field": "max_completion_tokens"}) == {
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hello", "name": "ann"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 0.0,
        "max_completion_tokens": 7,
        "stop": ["a", "b"],
        "seed": 0,
        "presence_penalty": 0.0,
        "frequency_penalty": -1.0,
        "tools": [WEATHER],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"stream_usage": False}, {"stream_options": None}),
        ({"reports_cost": True}, {"usage": {"include": True}}),
        ({"developer_role": "system"}, {"messages": [{"role": "system", "content": "Be brief."}]}),
    ],
)
def test_vendors_difference_is_a_setting(options: dict[str, Any], expected: dict[str, Any]) -> None:
    request = ChatRequest(
        model="m",
        messages=[Message(role="developer", content="Be brief.")],
        extra={"stream_options": {"include_obfuscation": False}},
    )
    body = dialect.body(request, options=options)
    assert {name: body.get(name) for name in expected} == expected


async def test_unknown_parameters_arrive_as_they_are(adapter: Adapter, upstream: Upstream) -> None:
    extra = {
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "low",
        "provider": {"order": ["Azure", "OpenAI"], "nested": [None, {"ü": 1.5}]},
        "metadata": {"ticket": "1"},
    }
    upstream.reply = Reply(body=STOP)
    await drained(adapter, OPENAI.request(extra=extra))
    sent = upstream.requests[0].json
    assert {name: sent[name] for name in extra} == extra


async def test_unknown_parameters_cannot_displace_known_ones(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=STOP)
    extra = {"model": "dearer", "stream": False, "stream_options": {"include_usage": False, "x": 1}, "messages": []}
    await drained(adapter, OPENAI.request(extra=extra))
    sent = upstream.requests[0].json
    assert {name: sent[name] for name in extra} == {
        "model": "some-model",
        "stream": True,
        "stream_options": {"include_usage": True, "x": 1},
        "messages": [{"role": "user", "content": "Grüß mich!"}],
    }


async def test_vendors_own_headers_are_sent(openrouter: Subject, upstream: Upstream) -> None:
    adapter = openrouter.make(upstream)
    upstream.reply = Reply(body=STOP)
    await drained(adapter)
    await adapter.aclose()
    headers = upstream.requests[0].headers
    assert [headers[name] for name in ("authorization", "http-referer", "x-title")] == [
        f"Bearer {KEY}",
        "https://llmchat.example",
        "llmchat",
    ]


async def test_openais_environment_does_not_reach_another_vendor(
    openrouter: Subject, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "secret-of-openai")
    adapter = openrouter.make(upstream, api_key=None, needs_key=False)
    upstream.reply = Reply(body=STOP)
    await drained(adapter)
    await adapter.aclose()
    assert "secret-of-openai" not in str(upstream.requests[0].headers)


async def test_probe_path_is_a_setting(openrouter: Subject, upstream: Upstream) -> None:
    adapter = openrouter.make(upstream, options={"probe_path": "/key"})
    upstream.reply = Reply(body=b"{}", content_type="application/json")
    await adapter.probe()
    await adapter.aclose()
    assert upstream.requests[0].path == "/v1/key"


# The answer


async def test_log_probabilities_stay_with_their_text(adapter: Adapter, upstream: Upstream) -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -0.1, "bytes": [72, 105], "top_logprobs": []}], "refusal": None}
    choice = {"index": 0, "delta": {"content": "Hi"}, "logprobs": logprobs, "finish_reason": None}
    upstream.reply = Reply(body=sse({"id": "c", "model": "m", "choices": [choice]}) + STOP)
    assert (await drained(adapter))[0] == TextDelta("Hi", logprobs)


async def test_refusal_in_its_own_field_is_the_answers_text(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=chunk({"content": None, "refusal": "I cannot."}) + STOP)
    assert (await drained(adapter))[0] == TextDelta("I cannot.")


async def test_second_choice_is_not_mixed_into_the_first(adapter: Adapter, upstream: Upstream) -> None:
    second = sse({"choices": [{"index": 1, "delta": {"content": "No"}, "finish_reason": "length"}]})
    upstream.reply = Reply(body=chunk({"content": "Yes"}) + second + STOP)
    text, finished = await drained(adapter)
    assert isinstance(finished, Finished)
    assert (text, finished.reason) == (TextDelta("Yes"), FinishReason.STOP)


def piece(arguments: str, **call: Any) -> bytes:
    name = call.pop("name", None)
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return chunk({"tool_calls": [{**call, "function": function}]})


@pytest.mark.parametrize(
    "body",
    [
        piece("{", index=0, id="a", name="f") + piece("}", index=0) + piece("{}", index=1, id="b", name="g"),
        piece("{", index=3, id="a", name="f") + piece("}", index=3) + piece("{}", index=7, id="b", name="g"),
        piece("{", id="a", name="f") + piece("}") + piece("{}", id="b", name="g"),
        piece("{", index=0, id="a", name="f") + piece("}", index=0) + piece("{}", index=0, id="b", name="g"),
        (
            piece("{", index=0, id="a", name="f")
            + piece("}", index=0, id="a", name="f")
            + piece("{}", index=1, id="b", name="g")
        ),
    ],
    ids=["as documented", "gaps", "no index", "always index 0", "id and name on every piece"],
)
async def test_tool_calls_are_told_apart_however_the_vendor_numbers_them(
    adapter: Adapter, upstream: Upstream, body: bytes
) -> None:
    upstream.reply = Reply(body=body + chunk({}, reason="tool_calls") + USAGE)
    *pieces, _ = await drained(adapter)
    assert pieces == [
        ToolCallDelta(index=0, id="a", name="f", arguments="{"),
        ToolCallDelta(index=0, arguments="}"),
        ToolCallDelta(index=1, id="b", name="g", arguments="{}"),
    ]


async def test_signed_calls_of_googles_own_endpoint(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("google_compatible_signed"))
    assert await drained(adapter) == [
        ToolCallDelta(
            index=0,
            id="jm4owj31",
            name="get_weather",
            arguments='{"city":"Köln"}',
            extra={"extra_content": {"google": {"thought_signature": "EtkDCtYDAb4+9vv/Zk1n"}}},
        ),
        ToolCallDelta(index=1, id="x09dk2la", name="get_weather", arguments='{"city":"Bonn"}'),
        Finished(
            reason=FinishReason.TOOL_CALLS,
            raw_reason="tool_calls",
            usage=Usage(input_tokens=88, output_tokens=36),
            model="gemini-3-pro-preview",
            response_id="q1YfacyTHe-kz7IPnPGqoAY",
        ),
    ]


async def test_what_comes_after_a_call_and_names_none_belongs_to_the_last(adapter: Adapter, upstream: Upstream) -> None:
    signed = chunk({"tool_calls": [{**SIGNED, "function": {"arguments": "}"}}]})
    upstream.reply = Reply(
        body=piece("", index=0, id="a", name="f")
        + piece("{", index=1, id="b", name="g")
        + signed
        + chunk({}, reason="tool_calls")
        + USAGE
    )
    *pieces, _ = await drained(adapter)
    assert pieces[2:] == [ToolCallDelta(index=1, arguments="}", extra=SIGNED)]


async def test_interleaved_tool_calls_keep_their_arguments(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(
        body=piece("", index=0, id="a", name="f")
        + piece("", index=1, id="b", name="g")
        + piece("[0]", index=0)
        + piece("[1]", index=1)
        + chunk({}, reason="tool_calls")
        + USAGE
    )
    *pieces, _ = await drained(adapter)
    assert pieces[2:] == [ToolCallDelta(index=0, arguments="[0]"), ToolCallDelta(index=1, arguments="[1]")]


async def test_answer_is_whole_when_its_usage_never_comes(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=chunk({"content": "Hi"}) + chunk({}, reason="stop"), ending=Ending.HELD)
    assert (await drained(adapter))[-1] == Finished(
        reason=FinishReason.STOP, raw_reason="stop", model="m", response_id="c"
    )


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (0.00014, Decimal("0.00014")),
        (1e-7, Decimal("0.0000001")),
        (0, Decimal(0)),
        ("0.5", Decimal("0.5")),
        (None, None),
        ("free", None),
        (-1, None),
        (True, None),
    ],
)
async def test_price_that_the_vendor_reports_is_exact_or_unknown(
    adapter: Adapter, upstream: Upstream, cost: Any, expected: Decimal | None
) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": cost}
    upstream.reply = Reply(body=chunk({}, reason="stop", usage=usage))
    (finished,) = await drained(adapter)
    assert isinstance(finished, Finished)
    assert (finished.cost_usd, finished.usage) == (expected, Usage(input_tokens=1, output_tokens=1))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (recorded("openrouter_error_in_stream"), ServerFault),
        (chunk({"content": "Grüße"}) + chunk({}, reason="error"), ServerFault),
        (chunk({"content": "Grüße"}) + chunk({}, reason="insufficient_system_resource"), Overloaded),
    ],
    ids=["OpenRouter's error", "only the reason", "DeepSeek"],
)
async def test_answer_that_the_vendor_breaks_off_is_an_error(
    adapter: Adapter, upstream: Upstream, body: bytes, expected: type[ProviderError]
) -> None:
    upstream.reply = Reply(body=body)
    with pytest.raises(expected):
        await drained(adapter)


async def test_what_the_provider_behind_openrouter_said_is_told(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openrouter_error_in_stream"))
    with pytest.raises(ServerFault) as caught:
        await drained(adapter)
    assert caught.value.message == "openai: Provider returned error: upstream connect error"
