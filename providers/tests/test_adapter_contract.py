"""The rules that every adapter keeps, whatever the vendor: run over real sockets against a vendor on this machine."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import pytest
from django.utils.module_loading import import_string

from providers.adapters.base import Adapter
from providers.errors import (
    AnswerTooLarge,
    ConnectionFailed,
    ContentRefused,
    ContextLengthExceeded,
    CredentialsRejected,
    FirstByteTimeout,
    FirstTokenTimeout,
    InvalidRequest,
    MalformedAnswer,
    ModelNotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFault,
    Stalled,
    TruncatedAnswer,
)
from providers.tests.subjects import CONVERSATION, IMPATIENT, KEY, SUBJECTS, WEATHER, Subject, sse
from providers.tests.upstream import Ending, Reply, Upstream, recorded
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta, Usage

pytestmark = pytest.mark.once


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """As in production, where the registry imports in a thread: an import blocks the event loop for a second."""
    for subject in SUBJECTS:
        import_string(subject.adapter)


@pytest.fixture(params=SUBJECTS, ids=lambda subject: f"{subject.family} {subject.name}")
def subject(request: pytest.FixtureRequest) -> Subject:
    return cast("Subject", request.param)


@pytest.fixture
async def adapter(subject: Subject, upstream: Upstream) -> AsyncIterator[Adapter]:
    made = subject.make(upstream)
    yield made
    await made.aclose()


@pytest.fixture
async def impatient(subject: Subject, upstream: Upstream) -> AsyncIterator[Adapter]:
    made = subject.make(upstream, timeouts=IMPATIENT)
    yield made
    await made.aclose()


async def drained(adapter: Adapter, request: ChatRequest) -> list[Event]:
    return [event async for event in adapter.stream(request)]


async def broken_off(adapter: Adapter, request: ChatRequest) -> tuple[list[Event], ProviderError]:
    """The events that came before the call failed, and how it failed."""
    received: list[Event] = []
    try:
        async for event in adapter.stream(request):
            received.append(event)  # noqa: PERF401
    except ProviderError as error:
        return received, error
    pytest.fail(f"The call did not fail: {received}")


async def failure(adapter: Adapter, request: ChatRequest) -> ProviderError:
    _, error = await broken_off(adapter, request)
    return error


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# What an answer means


@pytest.mark.parametrize("pieces", [1, 7, 65536], ids=["byte by byte", "cut anywhere", "at once"])
async def test_recorded_answer_gives_its_events_however_the_network_cuts_it(
    subject: Subject, adapter: Adapter, upstream: Upstream, pieces: int
) -> None:
    upstream.reply = Reply(body=recorded(subject.plain), pieces=pieces)
    assert await drained(adapter, subject.request()) == subject.plain_events


async def test_tool_calls_are_numbered_in_the_order_in_which_they_began(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=recorded(subject.tools))
    assert await drained(adapter, subject.request(tools=[WEATHER])) == subject.tools_events


async def test_unknown_finish_reason_stays_unknown_with_the_vendors_word(
    subject: Subject, adapter: Adapter, upstream: Upstream, recwarn: pytest.WarningsRecorder
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi") + subject.ending("TIRED"))
    *_, finished = await drained(adapter, subject.request())
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.raw_reason) == (FinishReason.UNKNOWN, "TIRED")
    recwarn.clear()  # google-genai warns of words that it does not know


async def test_null_error_is_no_error(subject: Subject, adapter: Adapter, upstream: Upstream) -> None:
    chunk = subject.delta("Hi").replace(b"data: {", b'data: {"error": null, ')
    upstream.reply = Reply(body=chunk + subject.ending("stop"))
    assert text_of(await drained(adapter, subject.request())) == "Hi"


async def test_malformed_chunk_is_skipped_and_counted(subject: Subject, adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(
        body=subject.delta("One") + b'data: {"choices": [{"del\n\n' + subject.delta("Two") + subject.ending("stop")
    )
    *texts, finished = await drained(adapter, subject.request())
    assert texts == [TextDelta("One"), TextDelta("Two")]
    assert isinstance(finished, Finished)
    assert finished.malformed_chunks == 1


async def test_bytes_that_are_no_utf8_become_replacement_characters_and_are_counted(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=subject.delta("a@b").replace(b"@", b"\xff") + subject.ending("stop"))
    *texts, finished = await drained(adapter, subject.request())
    assert texts == [TextDelta("a�b")]
    assert isinstance(finished, Finished)
    assert finished.malformed_chunks == 1


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
async def test_every_line_end_of_the_protocol_is_understood(
    subject: Subject, adapter: Adapter, upstream: Upstream, line_end: bytes
) -> None:
    body = b": comment\n\nretry: 10\n\n" + subject.delta("Hi") + subject.ending("stop")
    upstream.reply = Reply(body=body.replace(b"\n", line_end), pieces=1)
    assert text_of(await drained(adapter, subject.request())) == "Hi"


async def test_answer_without_a_closing_mark_is_finalised_though_the_connection_stays_open(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi") + subject.ending("stop"), ending=Ending.HELD)
    *_, finished = await drained(adapter, subject.request())
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.usage) == (FinishReason.STOP, Usage(input_tokens=3, output_tokens=2))


async def test_reset_after_the_finish_reason_takes_nothing_away(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi") + subject.ending("stop"), ending=Ending.RESET)
    assert isinstance((await drained(adapter, subject.request()))[-1], Finished)


async def test_connection_serves_the_next_call_after_a_whole_answer(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=recorded(subject.plain))
    for _ in range(3):
        await drained(adapter, subject.request())
    assert (len(upstream.requests), upstream.connections) == (3, 1)


# What is sent


async def test_zero_temperature_is_sent_and_none_is_left_out(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=recorded(subject.plain))
    await drained(adapter, subject.request(temperature=0.0))
    await drained(adapter, subject.request())
    assert [subject.temperature_of(received) for received in upstream.requests] == [0, None]


async def test_conversation_keeps_its_order_and_its_content(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=recorded(subject.plain))
    await drained(adapter, subject.request(messages=CONVERSATION))
    assert subject.conversation_of(upstream.requests[0]) == subject.conversation


@pytest.mark.parametrize(
    "settings",
    [
        {"messages": [Message(role="assistant", tool_calls=[{"id": "c", "function": "get_weather"}])]},
        {"messages": [Message(role="assistant", tool_calls=[{"id": ["c"], "function": {"name": "f"}}])]},
        {"messages": [Message(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": {"a": 1}}}])]},
        {"messages": [Message(role="assistant", tool_calls=[{}])]},
        {"messages": [Message(role="user", content=[{"type": "image_url", "image_url": "data:image/png;base64,AA"}])]},
        {"messages": [Message(role="user", content=[{"type": "image_url"}])]},
        {"messages": [Message(role="user", content=[{"type": "text", "text": 5}])]},
        {"messages": [Message(role="user", content=[{}])]},
        {"tools": [{"type": "function", "function": "get_weather"}]},
        {"tools": [{"type": "function", "function": {"parameters": "none"}}]},
        {"tools": [{}]},
        {"tools": [WEATHER], "tool_choice": {"type": "function"}},
        {"response_format": {"type": "json_schema"}},
        {"extra": {"stream_options": "usage"}},
    ],
)
async def test_content_of_another_shape_is_refused_or_left_to_the_vendor(
    subject: Subject, adapter: Adapter, upstream: Upstream, settings: dict[str, Any]
) -> None:
    upstream.reply = Reply(body=recorded(subject.plain))
    try:
        await drained(adapter, subject.request(**settings))
    except InvalidRequest:
        assert upstream.requests == []
    else:
        assert len(upstream.requests) == 1


async def test_configured_headers_go_with_every_call(subject: Subject, upstream: Upstream) -> None:
    adapter = subject.make(upstream, headers={"X-Title": "llmchat"})
    upstream.reply = Reply(body=recorded(subject.plain))
    await drained(adapter, subject.request())
    await adapter.aclose()
    assert upstream.requests[0].headers["x-title"] == "llmchat"


async def test_probe_asks_for_models_and_nothing_else(subject: Subject, adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=b'{"data": [], "models": []}', content_type="application/json")
    await adapter.probe()
    assert [(received.method, received.path) for received in upstream.requests] == [("GET", subject.probe_path)]


async def test_probe_fails_like_a_call(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(status=503, body=b"{}", content_type="application/json")
    with pytest.raises(Overloaded):
        await adapter.probe()


# Answers that are none


async def test_answer_without_a_finish_reason_is_truncated(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi"))
    assert type(await failure(adapter, subject.request())) is TruncatedAnswer


@pytest.mark.parametrize("ending", [Ending.CUT, Ending.RESET])
async def test_connection_that_breaks_in_mid_answer_is_a_truncated_answer(
    subject: Subject, adapter: Adapter, upstream: Upstream, ending: Ending
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi"), ending=ending)
    assert type(await failure(adapter, subject.request())) is TruncatedAnswer


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>Sign in</html>", content_type="text/html"),
        Reply(body=b"<html>Sign in</html>"),
        Reply(body=b""),
        Reply(body=b"", content_type=None),
        Reply(body=b'{"choices": []}', content_type="application/json"),
        Reply(body=b"data: nonsense\n\ndata: [1]\n\n"),
        Reply(status=302, headers={"Location": "/elsewhere"}),
    ],
    ids=["page", "page called stream", "empty", "empty, no type", "JSON", "nothing readable", "redirect"],
)
async def test_what_is_no_answer_is_malformed(
    subject: Subject, adapter: Adapter, upstream: Upstream, reply: Reply
) -> None:
    upstream.reply = reply
    assert type(await failure(adapter, subject.request())) is MalformedAnswer
    assert len(upstream.requests) == 1


async def test_answer_beyond_the_limit_is_cut_off(subject: Subject, upstream: Upstream) -> None:
    adapter = subject.make(upstream, options={"max_answer_bytes": 1000})
    upstream.reply = Reply(body=subject.delta("ä" * 100) * 20 + subject.ending("stop"), ending=Ending.HELD)
    received, error = await broken_off(adapter, subject.request())
    assert type(error) is AnswerTooLarge
    await asyncio.wait_for(upstream.left.wait(), 5)
    await adapter.aclose()
    assert text_of(received) == "ä" * 500


async def test_endless_event_is_cut_off(subject: Subject, adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=b"data: " + b"x" * 9_000_000, ending=Ending.HELD)
    assert type(await failure(adapter, subject.request())) is AnswerTooLarge


# The way there


async def test_refused_connection(subject: Subject, upstream: Upstream) -> None:
    adapter = subject.make(upstream, base_url="http://127.0.0.1:9")
    assert type(await failure(adapter, subject.request())) is ConnectionFailed
    await adapter.aclose()


@pytest.mark.parametrize("ending", [Ending.CUT, Ending.RESET])
async def test_connection_that_breaks_before_any_byte(
    subject: Subject, adapter: Adapter, upstream: Upstream, ending: Ending
) -> None:
    upstream.reply = Reply(mute=True, ending=ending)
    assert type(await failure(adapter, subject.request())) is ConnectionFailed
    assert len(upstream.requests) == 1


async def test_silence_before_headers(subject: Subject, impatient: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(mute=True, ending=Ending.HELD)
    assert type(await failure(impatient, subject.request())) is FirstByteTimeout
    assert len(upstream.requests) == 1


async def test_silence_after_headers(subject: Subject, impatient: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(ending=Ending.HELD)
    assert type(await failure(impatient, subject.request())) is FirstTokenTimeout


async def test_silence_in_mid_answer(subject: Subject, impatient: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=subject.delta("Hi"), ending=Ending.HELD)
    assert type(await failure(impatient, subject.request())) is Stalled


async def test_closing_the_iterator_closes_the_connection(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi"), ending=Ending.HELD)
    async with aclosing(cast("Any", adapter.stream(subject.request()))) as answer:
        assert await anext(answer) == TextDelta("Hi")
    await asyncio.wait_for(upstream.left.wait(), 5)  # our own time limits would take longer


async def test_cancelling_the_reading_task_closes_the_connection(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi"), ending=Ending.HELD)
    began = asyncio.Event()

    async def read() -> None:
        async for _ in adapter.stream(subject.request()):
            began.set()

    task = asyncio.create_task(read())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(upstream.left.wait(), 5)


# Refusals


REFUSALS: list[tuple[str, int, dict[str, Any], type[ProviderError]]] = [
    ("bare 400", 400, {"error": {"message": "bad"}}, InvalidRequest),
    ("bare 401", 401, {"error": {"message": "who"}}, CredentialsRejected),
    ("bare 402", 402, {"error": {"message": "pay"}}, QuotaExhausted),
    ("bare 403", 403, {"error": {"message": "no"}}, CredentialsRejected),
    ("bare 404", 404, {"error": {"message": "which"}}, ModelNotFound),
    ("bare 422", 422, {"detail": "bad"}, InvalidRequest),
    ("bare 429", 429, {"error": {"message": "slow down"}}, RateLimited),
    ("bare 500", 500, {}, ServerFault),
    ("bare 502", 502, {}, ServerFault),
    ("bare 503", 503, {}, Overloaded),
    ("bare 529", 529, {}, Overloaded),
    ("quota beats 429", 429, {"error": {"code": "insufficient_quota", "type": "x", "message": "m"}}, QuotaExhausted),
    ("context", 400, {"error": {"code": "context_length_exceeded", "message": "m"}}, ContextLengthExceeded),
    ("policy", 400, {"error": {"code": "content_policy_violation", "message": "m"}}, ContentRefused),
    (
        "OpenRouter policy",
        403,
        {"error": {"code": 403, "message": "m", "metadata": {"reasons": ["x"]}}},
        ContentRefused,
    ),
    ("DeepSeek", 402, {"error": {"message": "Insufficient Balance", "code": "invalid_request_error"}}, QuotaExhausted),
    ("Ollama", 404, {"error": "model 'x' not found"}, ModelNotFound),
    (
        "Anthropic overloaded",
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        Overloaded,
    ),
    (
        "Anthropic context",
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}},
        ContextLengthExceeded,
    ),
    (
        "Google key",
        400,
        {
            "error": {
                "code": 400,
                "message": "API key not valid.",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
            }
        },
        CredentialsRejected,
    ),
    (
        "Google quota of the day",
        429,
        {
            "error": {
                "code": 429,
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}],
            }
        },
        QuotaExhausted,
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal[0])
async def test_refusal_becomes_the_error_that_it_means(
    subject: Subject, adapter: Adapter, upstream: Upstream, refusal: tuple[str, int, Any, type[ProviderError]]
) -> None:
    _, status, payload, expected = refusal
    upstream.reply = Reply(
        status=status,
        body=sse(payload)[6:],
        content_type="application/json",
        headers={"x-request-id": "req_1"},
    )
    error = await failure(adapter, subject.request())
    assert (type(error), error.provider, error.upstream_status, error.upstream_request_id) == (
        expected,
        subject.name,
        status,
        "req_1",
    )
    assert len(upstream.requests) == 1


async def test_error_page_of_fifty_megabytes_is_not_read(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(status=500, body=b"<html>" + b"x" * 50_000_000, content_type="text/html")
    assert type(await failure(adapter, subject.request())) is ServerFault
    await asyncio.wait_for(upstream.left.wait(), 5)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"error": {"code": 502, "message": "Provider returned error"}}, ServerFault),
        ({"error": {"code": 429, "message": "slow down"}}, RateLimited),
        ({"error": {"code": "server_error", "message": "oops"}}, ServerFault),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, Overloaded),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, InvalidRequest),
        ({"error": {"code": "insufficient_quota", "message": "empty"}}, QuotaExhausted),
        ({"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}, Overloaded),
        ({"error": "it broke"}, ServerFault),
    ],
)
async def test_error_object_inside_a_stream_is_classified_like_a_status(
    subject: Subject, adapter: Adapter, upstream: Upstream, payload: dict[str, Any], expected: type[ProviderError]
) -> None:
    upstream.reply = Reply(body=subject.delta("Hi") + sse(payload), ending=Ending.HELD)
    received, error = await broken_off(adapter, subject.request())
    assert (type(error), received) == (expected, [TextDelta("Hi")])


async def test_error_object_sent_as_a_success_is_an_error(
    subject: Subject, adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(
        body=b'{"error": {"code": "insufficient_quota", "message": "empty"}}', content_type="application/json"
    )
    assert type(await failure(adapter, subject.request())) is QuotaExhausted


@pytest.mark.parametrize(
    "wanted",
    [
        ({"Retry-After": "2"}, [], 2.0),
        ({"Retry-After": "2", "retry-after-ms": "1500"}, [], 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, [], 0.0),
        ({"Retry-After": "soon"}, [], None),
        ({}, [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "32.5s"}], 32.5),
        ({}, [], None),
    ],
)
async def test_wait_that_the_vendor_asks_for_is_kept(
    subject: Subject,
    adapter: Adapter,
    upstream: Upstream,
    wanted: tuple[dict[str, str], list[Any], float | None],
) -> None:
    headers, details, expected = wanted
    upstream.reply = Reply(
        status=429,
        headers=headers,
        body=sse({"error": {"message": "slow down", "details": details}})[6:],
        content_type="application/json",
    )
    error = await failure(adapter, subject.request())
    assert (type(error), error.retry_after) == (RateLimited, expected)


@pytest.mark.parametrize("shown", [KEY, f"{KEY[:11]}*****{KEY[-4:]}", f"Bearer {KEY}"])
async def test_our_key_never_stands_in_an_error(
    subject: Subject, adapter: Adapter, upstream: Upstream, shown: str
) -> None:
    upstream.reply = Reply(
        status=401,
        body=sse({"error": {"message": f"Incorrect API key provided: {shown}.", "code": "invalid_api_key"}})[6:],
        content_type="application/json",
    )
    error = await failure(adapter, subject.request())
    told = f"{error} {error.message} {error.args} {''.join(traceback.format_exception(error))}"
    assert type(error) is CredentialsRejected
    assert [secret for secret in (KEY, KEY[:11], KEY[-4:]) if secret in told] == []


async def test_unsupported_tuning_does_not_stop_a_call(subject: Subject, adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded(subject.plain))
    request = subject.request(seed=1, presence_penalty=0.5, frequency_penalty=0.5, extra={"reasoning_effort": "low"})
    assert await drained(adapter, request) == subject.plain_events
