"""The outermost handler: an id for every request, one line for every request."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest

from llmchat.lib import logs, request_id
from llmchat.lib.asgi import Message, Receive, Scope, Send
from llmchat.lib.request_log import RequestLog


def scope_of(path: str = "/v1/chat", headers: dict[str, str] | None = None) -> Scope:
    given = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {"type": "http", "method": "GET", "path": path, "query_string": b"key=secret", "headers": given}


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    status = 404 if scope["path"] == "/missing" else 200
    headers = [(b"X-Request-Id", b"of the application"), (b"x-seen", dict(scope["headers"])[b"x-request-id"])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": request_id.current().encode()})


async def call(scope: Scope, application: Any = answer, **options: Any) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestLog(application, **options)(scope, receive, send)
    return sent


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    fields = ("levelname", "method", "path", "status")
    return [{name: getattr(record, name) for name in fields} for record in caplog.records]


async def test_given_id_is_on_the_response_and_everywhere_behind() -> None:
    start, body = await call(scope_of(headers={"X-Request-Id": "given-1"}))
    assert start["headers"] == [(b"x-seen", b"given-1"), (b"x-request-id", b"given-1")]
    assert body["body"] == b"given-1"


@pytest.mark.parametrize("given", [{}, {"X-Request-Id": "two\nlines"}, {"X-Request-Id": "x" * 129}])
async def test_missing_or_harmful_id_is_made(given: dict[str, str]) -> None:
    start, body = await call(scope_of(headers=given))
    made = body["body"]
    assert re.fullmatch(rb"[0-9a-f-]{36}", made)
    assert start["headers"] == [(b"x-seen", made), (b"x-request-id", made)]


async def test_request_has_one_line_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llmchat.requests")
    await call(scope_of(headers={"Authorization": "Bearer secret"}))
    assert lines(caplog) == [{"levelname": "INFO", "method": "GET", "path": "/v1/chat", "status": 200}]
    assert vars(caplog.records[0])["duration_ms"] >= 0
    assert "secret" not in str(vars(caplog.records[0]))


async def test_quiet_path_is_loud_when_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llmchat.requests")
    await call(scope_of("/live"), quiet={"/live", "/missing"})
    await call(scope_of("/missing"), quiet={"/live", "/missing"})
    assert [(line["levelname"], line["status"]) for line in lines(caplog)] == [("DEBUG", 200), ("INFO", 404)]


async def test_request_without_an_answer_has_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(*_: Any) -> None:
        raise asyncio.CancelledError

    caplog.set_level(logging.INFO, "llmchat.requests")
    with pytest.raises(asyncio.CancelledError):
        await call(scope_of(), fail)
    assert lines(caplog) == [{"levelname": "INFO", "method": "GET", "path": "/v1/chat", "status": None}]


async def test_line_has_facts_bound_behind_it_and_none_from_before() -> None:
    seen: list[dict[str, Any]] = []

    async def bind(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(logs.bound()))
        await asyncio.create_task(bind_more())
        await answer(scope, receive, send)

    async def bind_more() -> None:
        logs.bind(organization="acme")

    logs.bind(organization="another", interaction_id="old")
    await call(scope_of(), bind)
    assert seen == [{}]
    assert logs.bound() == {"organization": "acme"}


async def test_other_protocols_pass_through() -> None:
    seen: list[Scope] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    await call({"type": "lifespan"}, note)
    assert seen == [{"type": "lifespan"}]
