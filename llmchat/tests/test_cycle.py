"""One request and its response on a connection: what goes out byte for byte, as uvicorn's own cycle has it, and what
must never go out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bench.way_in import Transport
from llmchat.serve.cycle import Cycle

START = "http.response.start"
BODY = "http.response.body"
JSON = (b"Content-Type", b"application/json")


def cycle(kind: type[RequestResponseCycle] = Cycle, *, method: str = "GET", **values: Any) -> tuple[Any, Transport]:
    transport = Transport()
    common = {
        "scope": {"method": method},
        "transport": transport,
        "flow": FlowControl(transport),
        "logger": None,
        "access_logger": None,
        "access_log": False,
        "default_headers": [(b"date", b"today")],
        "message_event": asyncio.Event(),
        "expect_100_continue": False,
        "keep_alive": True,
        "on_response": lambda: None,
    }
    if kind is Cycle:
        common["method"] = method
    return kind(**{**common, **values}), transport


async def sent(kind: type[RequestResponseCycle], *messages: dict[str, Any], **values: Any) -> tuple[bytes, bool]:
    made, transport = cycle(kind, **values)
    for message in messages:
        await made.send(message)
    return b"".join(transport.pieces), made.keep_alive


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(
    "messages",
    [
        ({"type": START, "status": 200, "headers": [JSON, (b"content-length", b"2")]}, {"type": BODY, "body": b"{}"}),
        ({"type": START, "status": 200, "headers": [JSON]}, {"type": BODY, "body": b"{}"}),
        (
            {"type": START, "status": 200, "headers": [(b"Transfer-Encoding", b"chunked")]},
            {"type": BODY, "body": b"one", "more_body": True},
            {"type": BODY, "body": b"", "more_body": True},
            {"type": BODY, "body": b"two", "more_body": True},
            {"type": BODY},
        ),
        ({"type": START, "status": 204}, {"type": BODY}),
        ({"type": START, "status": 400, "headers": [(b"connection", b"x, Close")]}, {"type": BODY, "body": b"no"}),
        ({"type": START, "status": 299, "headers": []}, {"type": BODY, "body": b"no"}),
    ],
)
async def test_what_goes_out_is_what_uvicorns_own_would_send(
    messages: tuple[dict[str, Any], ...], keep_alive: bool, method: str
) -> None:
    values = {"method": method, "keep_alive": keep_alive}
    assert await sent(Cycle, *messages, **values) == await sent(RequestResponseCycle, *messages, **values)


@pytest.mark.parametrize("header", [(b"x-name", b"one\r\nset-cookie: two"), (b"x name", b"one"), (b"x-name", b"\0")])
async def test_header_that_would_break_out_of_its_line_is_refused(header: tuple[bytes, bytes]) -> None:
    made, transport = cycle()
    for _ in range(2):
        made.response_started = False
        with pytest.raises(RuntimeError, match="break out"):
            await made.send({"type": START, "status": 200, "headers": [header]})
    assert transport.pieces == []


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": BODY, "body": b"early"}],
        [{"type": START, "status": 200}, {"type": START, "status": 200}],
        [{"type": START, "status": 200, "headers": [(b"content-length", b"2")]}, {"type": BODY, "body": b"long"}],
        [{"type": START, "status": 200, "headers": [(b"content-length", b"9")]}, {"type": BODY, "body": b"short"}],
        [{"type": START, "status": 200}, {"type": BODY}, {"type": BODY, "body": b"late"}],
    ],
)
async def test_what_is_no_response_is_refused(messages: list[dict[str, Any]]) -> None:
    made, _ = cycle()
    for message in messages[:-1]:
        await made.send(message)
    with pytest.raises(RuntimeError):
        await made.send(messages[-1])


async def test_body_that_is_there_is_given_once_and_one_that_is_not_is_received() -> None:
    made, _ = cycle()
    assert made.whole_body() is None
    made.body += b"all"
    made.message_event.set()
    assert await made.receive() == {"type": "http.request", "body": b"all", "more_body": True}
    made.body += b" of it"
    made.more_body = False
    assert made.whole_body() == b" of it"
    made.disconnected = True
    made.message_event.set()
    assert await made.receive() == {"type": "http.disconnect"}
    assert made.whole_body() is None


async def test_client_that_waits_to_be_asked_for_its_body_is_asked() -> None:
    made, transport = cycle(expect_100_continue=True)
    made.more_body = False
    made.message_event.set()
    assert made.whole_body() is None
    await made.receive()
    assert transport.pieces == [b"HTTP/1.1 100 Continue\r\n\r\n"]
