"""What only our own conversation with the vendors has: shared connections, answers in one piece, proxies, limits."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from django.conf import settings

from providers.adapters.base import Adapter, Timeouts, bursts
from providers.adapters.sse import Decoder
from providers.adapters.wire import pool
from providers.errors import (
    AnswerTooLarge,
    ConnectionFailed,
    FirstTokenTimeout,
    MalformedAnswer,
    NotConfigured,
    ProviderError,
    QuotaExhausted,
    TruncatedAnswer,
)
from providers.tests.certificates import write_certificate
from providers.tests.subjects import DEEPSEEK, IMPATIENT, KEY, OPENAI, OPENROUTER, Subject, over, sse
from providers.tests.upstream import Ending, Reply, Upstream, recorded, running
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

WIRE = over("wire", OPENAI)
WHOLE_TOKENS = 128


@pytest.fixture
async def adapter(upstream: Upstream) -> AsyncIterator[Adapter]:
    made = WIRE.make(upstream, whole_tokens=WHOLE_TOKENS)
    yield made
    await made.aclose()


def json_reply(value: Any, **changes: Any) -> Reply:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Reply(body=body, content_type="application/json", **changes)


def short(subject: Subject = WIRE, **changes: Any) -> ChatRequest:
    """A request for an answer that is short and that nobody wants in pieces."""
    return subject.request(**{"whole": True, "max_tokens": 100, **changes})


async def drained(adapter: Adapter, request: ChatRequest | None = None) -> list[Event]:
    return [event async for event in adapter.stream(request or WIRE.request())]


async def failure(adapter: Adapter, request: ChatRequest | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await drained(adapter, request)
    return caught.value


# Connections


async def test_providers_of_a_loop_share_their_connections(upstream: Upstream) -> None:
    first, second = WIRE.make(upstream), over("wire", DEEPSEEK).make(upstream)
    upstream.reply = Reply(body=recorded("openai_plain"))
    for adapter in (first, second, first):
        await drained(adapter)
    assert (len(upstream.requests), upstream.connections) == (3, 1)
    await first.aclose()
    await drained(second)
    assert upstream.connections == 1
    await second.aclose()


async def test_connections_are_closed_with_the_last_provider_that_uses_them(upstream: Upstream) -> None:
    first, second = WIRE.make(upstream), WIRE.make(upstream)
    session = pool._shared[asyncio.get_running_loop(), 0].session
    closed: list[bool] = []
    for _ in range(2):
        await first.aclose()  # the second time, it gives nothing back
        closed.append(session.closed)
    await second.aclose()
    assert [*closed, session.closed] == [False, False, True]
    assert not [key for key in pool._shared if key[0] is asyncio.get_running_loop()]


def test_every_loop_has_connections_of_its_own_and_loops_that_are_gone_are_forgotten() -> None:
    async def here() -> None:
        async with running() as upstream:
            upstream.reply = Reply(body=recorded("openai_plain"))
            adapter = WIRE.make(upstream)
            assert isinstance((await drained(adapter))[-1], Finished)  # and is never closed

    for _ in range(3):
        asyncio.run(here())
    assert len(pool._shared) == 1
    pool._forget_closed_loops()
    assert not pool._shared


FORK = """
import asyncio, os, sys
from providers.tests.subjects import OPENAI, over
from providers.values import Finished

class Vendor:
    url = sys.argv[1]

subject = over("wire", OPENAI)
kept = []

async def call():
    adapter = subject.make(Vendor)
    kept.append(adapter)  # as a worker would that is forked while its parent still has connections
    events = [event async for event in adapter.stream(subject.request())]
    assert isinstance(events[-1], Finished), events

loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(call())
if not (child := os.fork()):
    asyncio.set_event_loop(None)
    asyncio.run(call())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
loop.run_until_complete(call())
"""


async def test_forked_process_opens_connections_of_its_own(upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        "-c",
        FORK,
        upstream.url,
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "llmchat.settings"},
        stderr=subprocess.PIPE,
    )
    _, told = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert (len(upstream.requests), upstream.connections) == (3, 2)


async def test_small_writes_are_not_held_back(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"))
    await drained(adapter)
    connector: Any = pool._shared[asyncio.get_running_loop(), 0].session.connector
    ((idle, _),) = [entry for entries in connector._conns.values() for entry in entries]
    assert idle.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_calls_beyond_the_limit_of_connections_wait_for_one(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, connections=2)
    upstream.reply = Reply(body=recorded("openai_plain"), pieces=50)
    answers = await asyncio.gather(*(drained(adapter) for _ in range(6)))
    await adapter.aclose()
    assert [len(answer) for answer in answers] == [len(WIRE.plain_events)] * 6
    assert upstream.connections == 2


async def test_call_that_gets_no_connection_in_time_has_failed_to_connect(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, connections=1, timeouts=replace(IMPATIENT, first_byte=5.0, first_token=5.0))
    upstream.reply = Reply(body=WIRE.delta("Hi"), ending=Ending.HELD)
    async with aclosing(cast("Any", adapter.stream(WIRE.request()))) as occupying:
        await anext(occupying)
        assert type(await failure(adapter)) is ConnectionFailed
    await adapter.aclose()


async def test_connection_that_the_vendor_has_closed_is_not_used_again(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"))
    await drained(adapter)
    await upstream.stop()  # what was open is broken off; new connections are taken
    await asyncio.sleep(0.05)
    assert await drained(adapter) == WIRE.plain_events
    assert upstream.connections == 2


async def test_cookies_are_not_kept(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"), headers={"Set-Cookie": "track=1; Path=/"})
    for _ in range(2):
        await drained(adapter)
    assert [request.headers.get("cookie") for request in upstream.requests] == [None, None]


async def test_body_of_megabytes_arrives(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"))
    await drained(adapter, WIRE.request(messages=[Message(role="user", content="ä" * 2_000_000)]))
    assert len(upstream.requests[0].json["messages"][0]["content"]) == 2_000_000


async def tasks_for(adapter: Adapter, request: ChatRequest) -> list[str]:
    """What aiohttp makes tasks for while it sends this request."""
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def note(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(note)
    try:
        await drained(adapter, request)
    finally:
        loop.set_task_factory(None)
    return [name for name in made if name.startswith("ClientRequest")]


async def test_small_body_goes_out_with_its_headers_and_a_large_one_by_a_task(
    adapter: Adapter, upstream: Upstream
) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"))
    large = WIRE.request(messages=[Message(role="user", content="x" * 100_000)])
    assert await tasks_for(adapter, WIRE.request()) == []
    assert await tasks_for(adapter, large) == ["ClientRequest.write_bytes"]
    sent = [request.json["messages"][0]["content"] for request in upstream.requests]
    assert [len(content) for content in sent] == [len(WIRE.request().messages[0].text), 100_000]


async def test_parser_is_not_asked_again_for_each_piece_of_an_answer_that_was_never_paused(
    adapter: Adapter, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    feed = pool._Protocol.data_received

    def count_and_feed(self: Any, data: bytes) -> None:
        fed.append(len(data))
        feed(self, data)

    monkeypatch.setattr(pool._Protocol, "data_received", count_and_feed, raising=False)
    upstream.reply = Reply(body=recorded("openai_plain"), pieces=20)
    await drained(adapter)
    assert fed
    assert 0 not in fed


async def test_answer_that_comes_quicker_than_it_is_read_is_paused_and_arrives_whole(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream)
    chunk = {"choices": [{"index": 0, "delta": {"content": "x" * 50_000}}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    upstream.reply = Reply(body=sse(chunk) * 100 + sse(last))
    size = 0
    async with aclosing(adapter.stream(WIRE.request())) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                size += len(event.text)
                await asyncio.sleep(0.001)
    await adapter.aclose()
    assert size == 5_000_000


async def test_what_came_together_is_one_step_and_the_end_another(adapter: Adapter, upstream: Upstream) -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in ("a", "b", "c")]
    last = {"choices": [{"index": 0, "delta": {"content": "d"}, "finish_reason": "stop"}]}
    upstream.reply = Reply(body=b"".join(map(sse, [*chunks, last])))
    steps = [list(burst) async for burst in bursts(adapter, WIRE.request())]
    assert steps == [
        [TextDelta("a"), TextDelta("b"), TextDelta("c"), TextDelta("d")],
        [Finished(reason=FinishReason.STOP, raw_reason="stop")],
    ]


async def test_what_came_before_an_error_in_the_same_step_is_told(adapter: Adapter, upstream: Upstream) -> None:
    piece = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
    upstream.reply = Reply(body=sse(piece) + sse({"error": {"code": "insufficient_quota"}}))
    events = adapter.stream(WIRE.request())
    assert await anext(events) == TextDelta("a")
    with pytest.raises(QuotaExhausted):
        await anext(events)


@pytest.mark.parametrize(
    ("sent", "data"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\ndata: c\n\n", [b"a\nb", b"c"]),
        (b"data: a\n\nevent: e\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n\n: comment\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\n\ndata:  b \n\n", [b"a", b" b "]),
        (b"data: a\n\n\n\n", [b"a"]),
    ],
)
def test_events_that_come_together_are_read_alike_however_they_are_cut(sent: bytes, data: list[bytes]) -> None:
    assert list(Decoder().feed(sent)) == data
    byte_by_byte = Decoder()
    assert [found for at in range(len(sent)) for found in byte_by_byte.feed(sent[at : at + 1])] == data


async def test_numbers_and_characters_beyond_the_usual_reach_the_vendor(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"))
    extra = {"metadata": {"number": 2**70, "half": "\ud83d"}}
    await drained(adapter, WIRE.request(extra=extra))
    assert upstream.requests[0].json["metadata"] == extra["metadata"]


async def test_header_of_many_kilobytes_is_no_trouble(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_plain"), headers={"Content-Security-Policy": "x" * 30_000})
    assert await drained(adapter) == WIRE.plain_events


async def test_silence_is_counted_from_the_last_byte(upstream: Upstream) -> None:
    patience = Timeouts(first_byte=5.0, first_token=1.0, between_chunks=1.0)
    adapter = WIRE.make(upstream, timeouts=patience)
    pieces = [b": still here\n\n"] * 8 + [recorded("openai_plain")]
    upstream.reply = Reply(pieces=pieces, pause=0.2)
    assert await drained(adapter) == WIRE.plain_events
    await adapter.aclose()


async def test_reader_that_takes_its_time_is_no_silence(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, timeouts=Timeouts(first_byte=5.0, first_token=0.6, between_chunks=0.6))
    upstream.reply = Reply(pieces=[WIRE.delta("Hi"), WIRE.ending("stop")], pause=0.05)
    events = []
    async for event in adapter.stream(WIRE.request()):
        await asyncio.sleep(0.9)
        events.append(event)
    await adapter.aclose()
    assert isinstance(events[-1], Finished)


# Certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "vendor.pem", host="127.0.0.1")


@pytest.fixture
async def secured(certificate: Path) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with running(context) as found:
        found.reply = Reply(body=recorded("openai_plain"))
        yield found


async def test_vendor_whose_certificate_nobody_vouches_for_is_not_spoken_to(secured: Upstream) -> None:
    adapter = WIRE.make(secured)
    error = await failure(adapter)
    await adapter.aclose()
    assert type(error) is ConnectionFailed
    assert "certificate" in error.message
    assert secured.requests == []


ASK = """
import asyncio, sys
from providers.tests.subjects import OPENAI, over

class Vendor:
    url = sys.argv[1]

async def call():
    subject = over("wire", OPENAI)
    adapter = subject.make(Vendor)
    print([event async for event in adapter.stream(subject.request())] == subject.plain_events)
    await adapter.aclose()

asyncio.run(call())
"""


async def test_authority_of_the_environment_is_trusted(secured: Upstream, certificate: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ASK,
        secured.url,
        cwd=settings.BASE_DIR,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "llmchat.settings", "SSL_CERT_FILE": str(certificate)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, told = await process.communicate()
    assert (said, told.decode()) == (b"True\n", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "ftp://user:secret-1@host/v1"},
        {"base_url": "nonsense secret-1"},
        {"headers": {"X-A": "secret-1\n"}},
    ],
    ids=["scheme", "address", "header"],
)
async def test_what_http_cannot_carry_names_the_settings_and_no_secret(
    upstream: Upstream, changes: dict[str, Any]
) -> None:
    adapter = WIRE.make(upstream, **changes)
    error = await failure(adapter)
    await adapter.aclose()
    assert type(error) is NotConfigured
    assert "OPENAI_BASE_URL, OPENAI_API_KEY or its headers" in error.message
    assert "secret-1" not in "".join(traceback.format_exception(error))


BROKEN = "http://secret-1@[::1/v1"


async def test_address_that_is_none_names_the_settings_and_no_secret(upstream: Upstream) -> None:
    with pytest.raises(NotConfigured) as caught:
        WIRE.make(upstream, base_url=BROKEN)
    assert "OPENAI_BASE_URL" in caught.value.message
    assert "secret-1" not in "".join(traceback.format_exception(caught.value))
    assert not pool._shared


# Proxies


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Upstream]:
    async with running() as found:
        monkeypatch.setenv("http_proxy", found.url.replace("http://", "http://ann:word@"))
        found.reply = Reply(body=recorded("openai_plain"))
        yield found


async def test_proxy_of_the_environment_is_used(proxy: Upstream, upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, base_url="http://vendor.example/v1")
    await drained(adapter)
    await adapter.aclose()
    (request,) = proxy.requests
    assert (request.path, request.headers["proxy-authorization"], request.headers["authorization"]) == (
        "http://vendor.example/v1/chat/completions",
        "Basic YW5uOndvcmQ=",
        f"Bearer {KEY}",
    )


async def test_address_in_any_alphabet_is_sent_as_http_wants_it(proxy: Upstream, upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, base_url="http://köln.example/weg/ü/")
    await drained(adapter)
    await adapter.aclose()
    assert [request.path for request in proxy.requests] == ["http://xn--kln-sna.example/weg/%C3%BC/chat/completions"]


async def test_host_without_a_proxy_is_asked_itself(
    proxy: Upstream, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    upstream.reply = Reply(body=recorded("openai_plain"))
    adapter = WIRE.make(upstream)
    await drained(adapter)
    await adapter.aclose()
    assert (len(proxy.requests), len(upstream.requests)) == (0, 1)


async def test_proxy_of_another_kind_is_refused_with_the_remedy(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://ann:word@127.0.0.1:1")
    with pytest.raises(NotConfigured) as caught:
        WIRE.make(upstream)
    assert caught.value.message == (
        "openai: the proxy for 127.0.0.1 is of the kind socks5. Set HTTP_PROXY to one that speaks HTTP, or name the "
        "host in NO_PROXY."
    )
    assert not pool._shared


# Answers in one piece


WHOLE = {
    "id": "c",
    "model": "m",
    "system_fingerprint": "fp",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Grüße", "reasoning_content": "Hm.", "refusal": None},
            "logprobs": {"content": [{"token": "Grüße", "logprob": -0.1}]},
            "finish_reason": "stop",
        },
        {"index": 1, "message": {"role": "assistant", "content": "Other"}, "finish_reason": "length"},
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.5},
}
WHOLE_EVENTS: list[Event] = [
    ReasoningDelta("Hm."),
    TextDelta("Grüße", {"content": [{"token": "Grüße", "logprob": -0.1}]}),
    Finished(
        reason=FinishReason.STOP,
        raw_reason="stop",
        usage=Usage(input_tokens=3, output_tokens=2),
        model="m",
        response_id="c",
        cost_usd=Decimal("0.5"),
        extra={"system_fingerprint": "fp"},
    ),
]


async def test_short_answer_that_nobody_wants_in_pieces_comes_in_one(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = json_reply(WHOLE)
    assert await drained(adapter, short()) == WHOLE_EVENTS
    sent = upstream.requests[0].json
    assert (sent["stream"], "stream_options" in sent) == (False, False)


async def test_quick_answer_of_any_length_comes_in_one_piece(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = json_reply(WHOLE)
    assert await drained(adapter, short(max_tokens=None, quick=True)) == WHOLE_EVENTS
    assert upstream.requests[0].json["stream"] is False


async def test_no_answer_comes_in_one_piece_where_the_settings_say_so(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, whole_tokens=0)
    upstream.reply = Reply(body=recorded("openai_tools"))
    assert await drained(adapter, short(quick=True)) == WIRE.tools_events
    assert upstream.requests[0].json["stream"] is True
    await adapter.aclose()


@pytest.mark.parametrize(
    "changes",
    [{"whole": False}, {"whole": False, "quick": True}, {"max_tokens": None}, {"max_tokens": WHOLE_TOKENS + 1}],
    ids=["stream", "quick stream", "any", "long"],
)
async def test_other_answers_come_in_pieces(adapter: Adapter, upstream: Upstream, changes: dict[str, Any]) -> None:
    upstream.reply = Reply(body=recorded("openai_tools"))
    assert await drained(adapter, short(**changes)) == WIRE.tools_events
    assert upstream.requests[0].json["stream"] is True


async def test_tool_calls_of_a_whole_answer_are_told_apart(adapter: Adapter, upstream: Upstream) -> None:
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}, "extra_content": {"x": name}}
        for name in ("a", "b")
    ]
    choice = {"index": 0, "message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    upstream.reply = json_reply({**WHOLE, "choices": [choice]})
    *pieces, _ = await drained(adapter, short())
    assert pieces == [
        ToolCallDelta(index=index, id=name, name=name, arguments="{}", extra={"extra_content": {"x": name}})
        for index, name in enumerate("ab")
    ]


async def test_price_of_a_whole_answer_is_asked_for(upstream: Upstream) -> None:
    subject = over("wire", OPENROUTER)
    adapter = subject.make(upstream, whole_tokens=WHOLE_TOKENS)
    upstream.reply = json_reply(WHOLE)
    await drained(adapter, short(subject))
    await adapter.aclose()
    assert upstream.requests[0].json["usage"] == {"include": True}


async def test_server_that_knows_no_streams_is_understood(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = json_reply(WHOLE)
    assert await drained(adapter) == WHOLE_EVENTS


async def test_server_that_streams_unasked_is_understood(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = Reply(body=recorded("openai_tools"))
    assert await drained(adapter, short()) == WIRE.tools_events


async def test_blank_lines_that_keep_a_connection_alive_are_no_answer(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = json_reply(b"\n\n   \n" + orjson.dumps(WHOLE), pieces=1)
    assert await drained(adapter, short()) == WHOLE_EVENTS


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (json_reply(b""), MalformedAnswer),
        (json_reply(b"[1]"), MalformedAnswer),
        (json_reply(orjson.dumps(WHOLE)[:-20]), MalformedAnswer),
        (json_reply({"choices": []}), MalformedAnswer),
        (json_reply({"choices": [{"message": {"content": "Hi"}, "finish_reason": None}]}), TruncatedAnswer),
        (json_reply(orjson.dumps(WHOLE)[:-20], ending=Ending.CUT), TruncatedAnswer),
        (json_reply(orjson.dumps(WHOLE)[:-20], ending=Ending.RESET), TruncatedAnswer),
        (json_reply({"error": {"code": "insufficient_quota", "message": "empty"}}), QuotaExhausted),
        (json_reply(b" " * 21_000_000, ending=Ending.HELD), AnswerTooLarge),
    ],
    ids=["empty", "list", "no end", "no choice", "no reason", "cut", "reset", "error", "endless"],
)
async def test_whole_answer_that_is_none_is_an_error(
    adapter: Adapter, upstream: Upstream, reply: Reply, expected: type[ProviderError]
) -> None:
    upstream.reply = reply
    error = await failure(adapter, short())
    assert (type(error), error.provider) == (expected, "openai")


async def test_whole_answer_beyond_the_limit_is_refused(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, whole_tokens=WHOLE_TOKENS, options={"max_answer_bytes": 5})
    upstream.reply = json_reply(WHOLE)
    assert type(await failure(adapter, short())) is AnswerTooLarge
    await adapter.aclose()


async def test_silence_after_the_headers_of_a_whole_answer(upstream: Upstream) -> None:
    patience = Timeouts(first_byte=1.0, first_token=1.0, between_chunks=1.0)
    adapter = WIRE.make(upstream, whole_tokens=WHOLE_TOKENS, timeouts=patience)
    upstream.reply = json_reply(b"\n", ending=Ending.HELD)
    assert type(await failure(adapter, short())) is FirstTokenTimeout
    await adapter.aclose()


async def test_connection_serves_the_next_call_after_a_whole_answer(adapter: Adapter, upstream: Upstream) -> None:
    upstream.reply = json_reply(WHOLE)
    for _ in range(3):
        await drained(adapter, short())
    assert (len(upstream.requests), upstream.connections) == (3, 1)


async def test_pieces_that_nobody_is_shown_come_together_as_they_arrived(adapter: Adapter, upstream: Upstream) -> None:
    body = recorded("openai_plain")
    upstream.reply = Reply(body=body)
    *pieces, finished = await drained(adapter, WIRE.request(whole=True))
    assert pieces == [TextDelta("".join(event.text for event in WIRE.plain_events if isinstance(event, TextDelta)))]
    assert finished == WIRE.plain_events[-1]


async def test_merged_pieces_keep_their_place_among_the_others(adapter: Adapter, upstream: Upstream) -> None:
    logprobs = {"content": [{"token": "C", "logprob": -0.5}]}

    def chunk(**choice: Any) -> bytes:
        return sse({"choices": [{"index": 0, "finish_reason": None, **choice}]})

    upstream.reply = Reply(
        body=chunk(delta={"content": "A"})
        + chunk(delta={"content": "B"})
        + chunk(delta={"content": "C"}, logprobs=logprobs)
        + chunk(delta={"content": "D"})
        + chunk(delta={"reasoning_content": "Hm."})
        + chunk(delta={"content": "E"})
        + WIRE.ending("stop")
    )
    *events, _ = await drained(adapter, WIRE.request(whole=True))
    assert events == [TextDelta("AB"), TextDelta("C", logprobs), TextDelta("D"), ReasoningDelta("Hm."), TextDelta("E")]


async def test_merged_pieces_count_towards_the_size_of_an_answer(upstream: Upstream) -> None:
    adapter = WIRE.make(upstream, options={"max_answer_bytes": 1000})
    upstream.reply = Reply(body=WIRE.delta("ä" * 100) * 20 + WIRE.ending("stop"))
    assert type(await failure(adapter, WIRE.request(whole=True))) is AnswerTooLarge
    await adapter.aclose()
