"""A client of the tests understands what it is told, in either dialect."""

from __future__ import annotations

import pytest

from llmchat.tests.calls import Answer, Call, Dialect

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NATIVE = [b'event: delta\ndata: {"text":"a"}\n\n', b": keep-alive\n\n", b'event: delta\ndata: {"text":"b"}\n\n']
DONE = b'event: done\ndata: {"id":"1"}\n\n'
CHUNKS = [
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"b"}}]}\n\n',
    b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
]
LAST = b"data: [DONE]\n\n"


def heard(dialect: Dialect, data: bytes, *, leave_after: int | None = None) -> Call:
    answer = Answer(dialect, leave_after)
    answer.feed(data)
    call = Call(0, "Hello", True, 0.0)
    answer.tell(call)
    return call


def streamed(*frames: bytes, is_whole: bool = True) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)
    return STREAM + chunks + (b"0\r\n\r\n" if is_whole else b"")


def whole(status: bytes, body: bytes, *, headers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (status, headers, len(body)) + body


@pytest.mark.parametrize(
    ("dialect", "data"),
    [
        ("native", streamed(*NATIVE, DONE)),
        ("completions", streamed(*CHUNKS, LAST)),
        ("native", whole(b"200 OK", b'{"id":"1","response":"ab"}')),
        ("completions", whole(b"200 OK", b'{"id":"chatcmpl-1","choices":[{"message":{"content":"ab"}}]}')),
    ],
)
def test_whole_answer_is_done(dialect: Dialect, data: bytes) -> None:
    call = heard(dialect, data)
    assert (call.status, call.ending, call.id, call.text) == (200, "done", "1", "ab")


@pytest.mark.parametrize(("dialect", "frames"), [("native", NATIVE), ("completions", CHUNKS)])
def test_stream_without_its_last_event_is_cut_even_if_it_ends_well(dialect: Dialect, frames: list[bytes]) -> None:
    for is_whole in (False, True):
        call = heard(dialect, streamed(*frames, is_whole=is_whole))
        assert (call.status, call.ending, call.text) == (200, "cut", "ab")


@pytest.mark.parametrize(
    ("dialect", "frames", "error"),
    [
        ("native", NATIVE, b'event: error\ndata: {"error":{"code":"stalled"}}\n\n'),
        ("completions", CHUNKS[:3], b'data: {"error":{"code":"stalled"}}\n\n'),
    ],
)
def test_error_in_a_stream_is_told(dialect: Dialect, frames: list[bytes], error: bytes) -> None:
    call = heard(dialect, streamed(*frames, error))
    assert (call.ending, call.code, call.text) == ("error", "stalled", "ab")


@pytest.mark.parametrize(("dialect", "frames"), [("native", NATIVE), ("completions", CHUNKS)])
def test_client_that_has_had_enough_leaves(dialect: Dialect, frames: list[bytes]) -> None:
    assert heard(dialect, streamed(*frames), leave_after=2).ending == "abandoned"
    assert heard(dialect, streamed(*frames), leave_after=3).ending == "cut"


def test_refusal_tells_its_code_and_when_to_ask_again() -> None:
    data = whole(b"503 Busy", b'{"error":{"code":"record_unavailable"}}', headers=b"Retry-After: 5\r\n")
    call = heard("native", data)
    assert (call.status, call.ending, call.code, call.retry_after) == (503, "error", "record_unavailable", "5")


def test_whole_answer_that_breaks_off_is_cut() -> None:
    call = heard("native", whole(b"200 OK", b'{"id":"1","response":"ab"}')[:-5])
    assert (call.status, call.ending, call.id) == (200, "cut", None)


def test_a_later_try_takes_the_place_of_an_earlier_one() -> None:
    answer, call = Answer("native"), Call(0, "Hello", True, 0.0, status=200, text="a", code="old", is_keyed=True)
    answer.tell(call)
    assert (call.status, call.ending, call.text, call.code, call.is_worth_another_try) == (None, "cut", "", None, True)
