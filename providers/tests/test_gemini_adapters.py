"""What only Gemini's adapter has: messages translated into its contents, and its answers' corners.

The library sends a few names in snake case where Google's documentation has camel case; Google's servers take both.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from django.utils.module_loading import import_string

from providers.adapters.base import Adapter
from providers.errors import AnswerTooLarge, ContentRefused, InvalidRequest, MalformedAnswer
from providers.tests.subjects import GEMINI, KEY, WEATHER, Subject, over, sse
from providers.tests.upstream import Reply, Upstream, recorded
from providers.values import Event, Finished, FinishReason, Message, ReasoningDelta, TextDelta, ToolCallDelta, Usage

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", params=["sdk", "wire"])
def subject(request: pytest.FixtureRequest) -> Subject:
    found = over(request.param, GEMINI)
    import_string(found.adapter)
    return found


@pytest.fixture
async def adapter(subject: Subject, upstream: Upstream) -> AsyncIterator[Adapter]:
    made = subject.make(upstream)
    yield made
    await made.aclose()


async def drained(adapter: Adapter, **settings: Any) -> list[Event]:
    return [event async for event in adapter.stream(GEMINI.request(**settings))]


async def sent(adapter: Adapter, upstream: Upstream, **settings: Any) -> Any:
    """What Gemini receives for a request, in the names of its documentation."""
    upstream.reply = Reply(body=recorded("gemini_plain"))
    await drained(adapter, **settings)
    body = upstream.requests[-1].body
    for name in (b"parameters_json_schema", b"mime_type"):
        first, *rest = name.split(b"_")
        body = body.replace(name, first + b"".join(word.title() for word in rest))
    return json.loads(body)


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}}


def signed_call(signature: Any) -> Message:
    """An assistant's message whose call carries `signature`."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return Message(
        role="assistant", tool_calls=[{**call, "extra_content": {"google": {"thought_signature": signature}}}]
    )


async def test_call_goes_to_the_model_with_the_key_in_a_header(adapter: Adapter, upstream: Upstream) -> None:
    await sent(adapter, upstream)
    received = upstream.requests[0]
    assert (received.method, received.path, received.headers["x-goog-api-key"]) == (
        "POST",
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        KEY,
    )


async def test_every_known_parameter_is_sent_and_the_rest_is_left_out(adapter: Adapter, upstream: Upstream) -> None:
    assert await sent(
        adapter,
        upstream,
        messages=[Message(role="developer", content="Be kind."), Message(role="user", content="Hello")],
        temperature=0.0,
        top_p=0.0,
        max_tokens=7,
        stop=["a"],
        seed=0,
        presence_penalty=0.0,
        frequency_penalty=-1.0,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        extra={"logit_bias": {}},
    ) == {
        "systemInstruction": {"parts": [{"text": "Be kind."}], "role": "user"},
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {
            "temperature": 0.0,
            "topP": 0.0,
            "maxOutputTokens": 7,
            "stopSequences": ["a"],
            "seed": 0,
            "presencePenalty": 0.0,
            "frequencyPenalty": -1.0,
        },
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "get_weather",
                        "parametersJsonSchema": WEATHER["function"]["parameters"],
                    }
                ]
            }
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["get_weather"]}},
    }


@pytest.mark.parametrize(
    ("response_format", "expected"),
    [
        ({"type": "text"}, {}),
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
    ],
)
async def test_response_format_in_geminis_words(
    adapter: Adapter, upstream: Upstream, response_format: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = await sent(adapter, upstream, response_format=response_format)
    assert body.get("generationConfig", {}) == expected


async def test_images_are_sent_inside_the_request(adapter: Adapter, upstream: Upstream) -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is this?"}, IMAGE]
    body = await sent(adapter, upstream, messages=[Message(role="user", content=parts)])
    assert body["contents"] == [
        {
            "role": "user",
            "parts": [{"text": "What is this?"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0K"}}],
        }
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"messages": [Message(role="user", content=[{"type": "input_audio", "input_audio": {}}])]},
        {"messages": [Message(role="user", content=[{"type": "image_url", "image_url": {"url": "https://x/y"}}])]},
        {
            "messages": [
                Message(role="user", content=[{"type": "image_url", "image_url": {"url": "data:a/b;base64,="}}])
            ]
        },
        {"messages": [Message(role="assistant", tool_calls=[{"id": "c", "function": {"arguments": "{"}}])]},
        {"messages": [signed_call("not base64")]},
        {"messages": [signed_call("Cv8+/w=")]},
        {"messages": [signed_call("Köln")]},
        {"messages": [signed_call(5)]},
        {"messages": [Message(role="tool", tool_call_id="nobody", content="x")]},
        {"messages": [signed_call(""), Message(role="tool", tool_call_id="c", content=[IMAGE])]},
        {"messages": [Message(role="user", content="")]},
        {"messages": [Message(role="system", content=[IMAGE]), Message(role="user", content="Hello")]},
        {"messages": [Message(role="developer", content=[{"type": "file"}]), Message(role="user", content="Hello")]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "function": {"name": ["no", "name"]}}]},
        {"tools": [WEATHER], "tool_choice": "whatever"},
        {"response_format": {"type": "grammar"}},
    ],
)
async def test_content_that_cannot_be_said_is_refused_before_anything_is_sent(
    adapter: Adapter, upstream: Upstream, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        await drained(adapter, **settings)
    assert upstream.requests == []


async def test_blocked_prompt_is_refused_content(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("gemini_blocked"))
    with pytest.raises(ContentRefused) as caught:
        await drained(adapter)
    assert (caught.value.message, caught.value.upstream_code) == (
        "gemini: the prompt was blocked (PROHIBITED_CONTENT).",
        "PROHIBITED_CONTENT",
    )


async def test_answer_stopped_for_safety_says_so(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("gemini_unsafe"))
    assert await drained(adapter) == [
        TextDelta("Grüße"),
        Finished(
            reason=FinishReason.CONTENT_FILTER,
            raw_reason="SAFETY",
            usage=Usage(input_tokens=25, output_tokens=2),
            model="gemini-2.5-flash",
            response_id="wKofabCDOp2Xz7IP0-m4sAg",
        ),
    ]


async def test_tool_call_without_an_id_gets_one(adapter: Adapter, upstream: Upstream) -> None:
    call = {"functionCall": {"name": "f", "args": {"a": 1}}}
    chunk = {"candidates": [{"content": {"parts": [call, call], "role": "model"}, "finishReason": "STOP"}]}
    upstream.reply = Reply(body=sse({**chunk, "usageMetadata": {"promptTokenCount": 1}}))
    first, second, _ = await drained(adapter)
    assert isinstance(first, ToolCallDelta)
    assert isinstance(second, ToolCallDelta)
    assert first.id != second.id
    assert [re.sub("[0-9a-f]{32}", "...", str(event.id)) for event in (first, second)] == ["call_...", "call_..."]


async def test_signature_of_parallel_calls_stays_with_the_first(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("gemini_signed"))
    assert await drained(adapter, tools=[WEATHER]) == [
        ReasoningDelta("Two cities, two calls."),
        ToolCallDelta(
            index=0,
            id="fc_1",
            name="get_weather",
            arguments='{"city": "K\\u00f6ln"}',
            extra={"extra_content": {"google": {"thought_signature": "EtkDCtYDAb4+9vv/Zk1n"}}},
        ),
        ToolCallDelta(index=1, id="fc_2", name="get_weather", arguments='{"city": "Bonn"}'),
        Finished(
            reason=FinishReason.TOOL_CALLS,
            raw_reason="STOP",
            usage=Usage(input_tokens=88, output_tokens=108, reasoning_tokens=72),
            model="gemini-3-pro-preview",
            response_id="q1YfacyTHe-kz7IPnPGqoAY",
        ),
    ]


async def test_signed_calls_go_back_as_they_came(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("gemini_signed"))
    calls = [
        {"id": event.id, "function": {"name": event.name, "arguments": event.arguments}, **event.extra}
        for event in await drained(adapter, tools=[WEATHER])
        if isinstance(event, ToolCallDelta)
    ]
    body = await sent(adapter, upstream, messages=[Message(role="assistant", tool_calls=calls)])
    assert body["contents"] == [
        {
            "role": "model",
            "parts": [
                {
                    "functionCall": {"id": "fc_1", "name": "get_weather", "args": {"city": "Köln"}},
                    "thoughtSignature": "EtkDCtYDAb4-9vv_Zk1n",
                },
                {"functionCall": {"id": "fc_2", "name": "get_weather", "args": {"city": "Bonn"}}},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("signature", "expected"),
    [("skip_thought_signature_validator", "skip_thought_signature_validator"), ("", None), (None, None)],
    ids=["Google's placeholder", "empty", "null"],
)
async def test_placeholder_is_sent_and_nothing_is_left_out(
    adapter: Adapter, upstream: Upstream, signature: str | None, expected: str | None
) -> None:
    body = await sent(adapter, upstream, messages=[signed_call(signature)])
    assert body["contents"][0]["parts"][0].get("thoughtSignature") == expected


PLACEHOLDER = "skip_thought_signature_validator"


def unsigned_calls(*names: str) -> Message:
    """An assistant's message whose calls another vendor's model made."""
    return Message(
        role="assistant",
        tool_calls=[{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in names],
    )


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gemini-3-pro-preview", [None, None, PLACEHOLDER, None]),
        ("models/gemini-3.5-flash", [None, None, PLACEHOLDER, None]),
        ("gemini-2.5-flash", [None] * 4),
        ("gemma-3-27b-it", [None] * 4),
    ],
)
async def test_calls_of_another_model_get_googles_placeholder_where_gemini_insists_on_signatures(
    subject: Subject, upstream: Upstream, model: str, expected: list[str | None]
) -> None:
    adapter = replace(subject, model=model).make(upstream)
    upstream.reply = Reply(body=recorded("gemini_plain"))
    messages = [
        Message(role="user", content="One"),
        unsigned_calls("a", "b"),  # of a turn that is over
        Message(role="tool", tool_call_id="a", content="1"),
        Message(role="user", content="Two"),
        unsigned_calls("c", "d"),
        Message(role="tool", tool_call_id="c", content="1"),
        Message(role="tool", tool_call_id="d", content="1"),
    ]
    async for _ in adapter.stream(replace(subject, model=model).request(messages=messages)):
        pass
    await adapter.aclose()
    parts = [part for content in upstream.requests[0].json["contents"] for part in content["parts"]]
    assert [part.get("thoughtSignature") for part in parts if "functionCall" in part] == expected


async def test_signed_calls_need_no_placeholder(subject: Subject, upstream: Upstream) -> None:
    adapter = subject.make(upstream)
    upstream.reply = Reply(body=recorded("gemini_plain"))
    message = Message(
        role="assistant", tool_calls=[*signed_call("Cv8+/w==").tool_calls, *unsigned_calls("b").tool_calls]
    )
    async for _ in adapter.stream(replace(subject, model="gemini-3-pro").request(messages=[message])):
        pass
    await adapter.aclose()
    parts = upstream.requests[0].json["contents"][0]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["Cv8-_w==", None]


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ("models/gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("../../files/x?key=1#", "models/..%2F..%2Ffiles%2Fx%3Fkey%3D1%23"),
        ("models/../x", "models/..%2Fx"),
    ],
)
async def test_model_that_a_caller_names_cannot_lead_to_another_path(
    upstream: Upstream, model: str, place: str
) -> None:
    subject = replace(over("wire", GEMINI), model=model)
    adapter = subject.make(upstream)
    upstream.reply = Reply(body=recorded("gemini_plain"))
    async for _ in adapter.stream(subject.request()):
        pass
    await adapter.aclose()
    assert upstream.requests[0].path == f"/v1beta/{place}:streamGenerateContent?alt=sse"


async def test_extra_content_of_other_vendors_is_ignored(adapter: Adapter, upstream: Upstream) -> None:
    calls = [
        {"id": "c", "function": {"name": "f", "arguments": "{}"}, "extra_content": extra}
        for extra in (None, "x", {"google": "x"}, {"other": {"thought_signature": "x"}})
    ]
    body = await sent(adapter, upstream, messages=[Message(role="assistant", tool_calls=calls)])
    assert body["contents"][0]["parts"] == [{"functionCall": {"id": "c", "name": "f", "args": {}}}] * 4


async def test_signatures_count_towards_the_size_of_an_answer(subject: Subject, upstream: Upstream) -> None:
    adapter = subject.make(upstream, options={"max_answer_bytes": 1000})
    call = {"functionCall": {"name": "f"}, "thoughtSignature": "A" * 400}
    upstream.reply = Reply(body=sse({"candidates": [{"content": {"parts": [call] * 3}, "finishReason": "STOP"}]}))
    with pytest.raises(AnswerTooLarge):
        await drained(adapter)
    await adapter.aclose()


@pytest.mark.parametrize(
    "chunk",
    [
        {"candidates": [{"content": {"parts": "no list"}}]},
        {"candidates": 5},
        {"candidates": ["strange"]},
        {"candidates": [{"finishReason": ["STOP"]}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}, "thoughtSignature": "not base64"}]}}]},
        {"usageMetadata": True},
    ],
)
async def test_chunk_of_another_shape_is_malformed(adapter: Adapter, upstream: Upstream, chunk: Any) -> None:
    upstream.reply = Reply(body=sse(chunk))
    with pytest.raises(MalformedAnswer):
        await drained(adapter)


async def test_failed_connection_is_not_tried_again_by_the_library(subject: Subject, upstream: Upstream) -> None:
    adapter = subject.make(upstream)
    upstream.reply = Reply(status=503, body=json.dumps({}).encode(), content_type="application/json")
    with pytest.raises(Exception, match="gemini: HTTP 503"):
        await drained(adapter)
    await adapter.aclose()
    assert len(upstream.requests) == 1
