"""Bounds on bodies, announced or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from llmchat.lib.asgi import Message, Receive, Scope, Send
from llmchat.lib.body_limit import BodyLimit, Bounds

LIMIT = 10


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the length of the body, and then waits for the client to leave."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})
    assert (await receive())["type"] == "http.disconnect"


async def call(
    chunks: Sequence[bytes], application: Any = read_all, *, length: int | None = None, seconds: float = 30.0
) -> list[Message]:
    headers = [(b"transfer-encoding", b"chunked")] if length is None else [(b"content-length", str(length).encode())]
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if waiting:
        waiting[-1]["more_body"] = False
    sent: list[Message] = []

    async def receive() -> Message:
        if waiting:
            return waiting.pop(0)
        if not chunks:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    limited = BodyLimit(application, bounds=Bounds(max_bytes=LIMIT, seconds=seconds))
    await limited({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)
    return sent


def outcome(sent: list[Message]) -> tuple[int, Any]:
    start, body = sent
    if start["status"] == 200:
        return 200, int(body["body"])
    assert dict(start["headers"])[b"connection"] == b"close"
    return start["status"], json.loads(body["body"])["error"]["code"]


@pytest.mark.parametrize(
    ("chunks", "length", "expected"),
    [
        ([b"x" * 10], 10, (200, 10)),
        ([b"x" * 5, b"x" * 5], None, (200, 10)),
        ([b"x" * 11], 11, (413, "request_too_large")),
        ([b"x" * 5, b"x" * 6], None, (413, "request_too_large")),
        # A length that lies is counted like none.
        ([b"x" * 11], 3, (413, "request_too_large")),
    ],
)
async def test_body_is_bounded(chunks: list[bytes], length: int | None, expected: tuple[int, Any]) -> None:
    assert outcome(await call(chunks, length=length)) == expected


async def test_announced_excess_never_reaches_the_application() -> None:
    async def fail(*_: Any) -> None:
        pytest.fail("the application was called")

    assert outcome(await call([], fail, length=11)) == (413, "request_too_large")


async def test_body_that_never_comes_is_given_up() -> None:
    assert outcome(await call([], length=5, seconds=0.01)) == (408, "request_timeout")


async def test_request_without_a_body_is_not_waited_for() -> None:
    seen: list[Receive] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(receive)

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        pytest.fail("nothing is to be sent")

    await BodyLimit(note, bounds=Bounds(max_bytes=LIMIT, seconds=1))({"type": "http", "headers": []}, receive, send)
    assert seen == [receive]
