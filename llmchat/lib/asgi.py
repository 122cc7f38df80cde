"""The shapes of ASGI 3 (asgi.readthedocs.io), for handlers of ours that stand before Django's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from llmchat.lib.envelope import APIError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

#: An extension that our own server offers: a set of functions that are called when the client's connection is lost.
ON_DISCONNECT = "llmchat.on_disconnect"
#: Another one: gives the request's body at once, if all of it is there, and None otherwise. What it gave is received.
WHOLE_BODY = "llmchat.whole_body"


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of that name (in lower case); None without one."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


async def send_problem(problem: APIError, send: Send) -> None:
    """Answers with the one error shape and has the connection closed: the rest of the request is not read."""
    body = orjson.dumps(problem.body())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
