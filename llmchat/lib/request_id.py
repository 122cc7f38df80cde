"""The id of the request in hand: taken from `X-Request-Id` when it is harmless, else made; put on every response.

Works the same for synchronous and asynchronous handlers and costs no thread hop.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from llmchat.lib.uuid7 import uuid7

HEADER = "X-Request-Id"
#: What we accept from outside goes into logs and headers, so it is short and plain.
_HARMLESS = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_current: ContextVar[str] = ContextVar("request_id", default="")

AnyHandler = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def current() -> str:
    """The id of the request that this code runs for; empty outside of requests."""
    return _current.get()


def begin(given: str | None) -> str:
    """Makes `given` the current id, or a fresh one if `given` is missing or not harmless."""
    identifier = given if given and _HARMLESS.fullmatch(given) else str(uuid7())
    _current.set(identifier)
    return identifier


def request_id_middleware(get_response: AnyHandler) -> AnyHandler:
    """Django middleware for both kinds of handlers."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            identifier = begin(request.headers.get(HEADER))
            response: HttpResponseBase = await get_response(request)
            response[HEADER] = identifier
            return response

        return markcoroutinefunction(asynchronous)

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        identifier = begin(request.headers.get(HEADER))
        response = get_response(request)
        response[HEADER] = identifier  # type: ignore[index]
        return response  # type: ignore[return-value]

    return synchronous


request_id_middleware.async_capable = True  # type: ignore[attr-defined]
request_id_middleware.sync_capable = True  # type: ignore[attr-defined]
