"""The lean handler alone: what it takes and what it gives on, clients that leave, bodies out of bounds, failures."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.test import Client

from llmchat.health import HealthViewSet
from llmchat.lib import lean
from llmchat.lib.asgi import ON_DISCONNECT, Message, Receive, Scope, Send
from llmchat.lib.body_limit import Bounds
from llmchat.lib.lean import LeanHandler

LIVE = "/v1/health/live"
READY = "/v1/health/ready"


class Caller:
    """A client's side of one request: what the server would receive and send."""

    def __init__(self, *messages: Message) -> None:
        self.sent: list[Message] = []
        self._messages = list(messages)
        self.leaves = asyncio.Event()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent[1:]))


async def on(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for Django's handler."""
    await send({"type": "given on", "path": scope["path"]})


def handler(*, seconds: float = 5.0, asks_host: bool = False) -> LeanHandler:
    paths = {"paths": (LIVE, READY)} if asks_host else {"paths": (), "open_paths": (LIVE, READY)}
    return LeanHandler(on, **paths, bounds=Bounds(max_bytes=100, seconds=seconds))


def request(path: str = LIVE, method: str = "GET", **headers: str) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }


def piece(body: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


# --- What it takes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan", "path": LIVE},
        request("/v1/models"),
        request(method="POST"),
        request(method="OPTIONS"),
        request(cookie="a=b; sessionid=x"),
        request(cookie="csrftoken=x"),
        {**request(), "query_string": b"\xff"},
    ],
)
async def test_what_is_not_ordinary_is_given_on_unread(scope: Scope) -> None:
    client = Caller()
    await handler()(scope, client.receive, client.send)
    assert client.sent == [{"type": "given on", "path": scope["path"]}]


@pytest.mark.parametrize(("host", "is_ours"), [("localhost", True), ("testserver", True), ("evil.example", False)])
async def test_unknown_hosts_are_given_on_each_time(host: str, is_ours: bool) -> None:
    taking = handler(asks_host=True)
    for _ in range(2):
        client = Caller(piece())
        await taking(request(host=host), client.receive, client.send)
        assert (client.sent[0]["type"] == "http.response.start") is is_ours


async def test_plain_http_that_is_to_be_redirected_is_given_on(settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = [r"^v1/health/live$"]
    taking = handler()
    exempt, insecure = Caller(piece()), Caller(piece())
    await taking(request(LIVE), exempt.receive, exempt.send)
    await taking(request(READY), insecure.receive, insecure.send)
    assert exempt.status == 200
    assert insecure.sent == [{"type": "given on", "path": READY}]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_headers_of_the_middlewares_follow_the_settings(settings: Any, scheme: str) -> None:
    settings.SECURE_HSTS_SECONDS = 100
    settings.SECURE_REFERRER_POLICY = "no-referrer"
    settings.X_FRAME_OPTIONS = "SAMEORIGIN"
    client = Caller(piece())
    await handler()({**request(), "scheme": scheme}, client.receive, client.send)
    django = await asyncio.to_thread(Client().get, LIVE, secure=scheme == "https")
    expected = {name.lower(): value for name, value in django.items() if name != "X-Request-Id"}
    assert client.headers == expected


# --- Clients that leave -----------------------------------------------------------------------------------------------


class Slow:
    """A view's action that waits, and notes how it ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = asyncio.Event()
        self.ended = ""

        async def live(_view: Any, _request: Any) -> Any:
            self.began.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.ended = "cancelled"
                raise

        monkeypatch.setattr(HealthViewSet, "live", live)


async def test_client_that_leaves_before_its_body_is_whole_gets_nothing() -> None:
    client = Caller(piece(b"{", more=True), {"type": "http.disconnect"})
    await handler()(request(content_length="10"), client.receive, client.send)
    assert client.sent == []


@pytest.mark.parametrize("by_extension", [True, False])
async def test_view_of_a_client_that_leaves_is_cancelled(monkeypatch: pytest.MonkeyPatch, by_extension: bool) -> None:
    slow, client = Slow(monkeypatch), Caller(piece())
    callbacks: set[Any] = set()
    scope = {**request(), **({"extensions": {ON_DISCONNECT: callbacks}} if by_extension else {})}
    serving = asyncio.create_task(handler()(scope, client.receive, client.send))
    await slow.began.wait()
    if by_extension:
        (callback,) = callbacks
        callback()
    client.leaves.set()
    await serving
    assert (slow.ended, client.sent, callbacks) == ("cancelled", [], set())


async def test_server_that_gives_up_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, client = Slow(monkeypatch), Caller(piece())
    serving = asyncio.create_task(handler()(request(), client.receive, client.send))
    await slow.began.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert slow.ended == "cancelled"


async def test_nothing_waits_for_a_client_that_has_its_answer() -> None:
    client, before = Caller(piece()), asyncio.all_tasks()
    await handler()(request(), client.receive, client.send)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


# --- Bodies and failures ----------------------------------------------------------------------------------------------


async def test_body_that_comes_too_slowly_is_given_up() -> None:
    client = Caller(piece(b"{", more=True))
    await handler(seconds=0.05)(request(content_length="10"), client.receive, client.send)
    assert (client.status, client.body["error"]["code"]) == (408, "request_timeout")
    assert client.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("headers", "pieces"),
    [
        ({"content_length": "101"}, []),
        ({"content_length": "9" * 5000}, []),
        ({"transfer_encoding": "chunked"}, [piece(b"x" * 60, more=True), piece(b"x" * 60, more=True)]),
    ],
)
async def test_body_that_is_too_large_is_refused(headers: dict[str, str], pieces: list[Message]) -> None:
    client = Caller(*pieces)
    await handler()(request(**headers), client.receive, client.send)
    assert (client.status, client.body["error"]["code"]) == (413, "request_too_large")


async def test_failure_beyond_the_view_is_told_in_the_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret of ours")

    monkeypatch.setattr(HealthViewSet, "_negotiate", lambda *_: None)
    monkeypatch.setattr("llmchat.lib.async_views.JSONRequest", fail)
    client = Caller(piece())
    await handler()(request(), client.receive, client.send)
    assert (client.status, client.body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(client.body)
    assert client.headers["x-frame-options"] == "DENY"


def test_names_that_callers_invent_are_not_remembered_without_end() -> None:
    for number in range(3000):
        lean.LeanRequest(request(**{f"x_invented_{number}": "1"}))
    assert len(lean._names) <= 1024
