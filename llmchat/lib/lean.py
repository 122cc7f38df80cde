"""The handler of the data plane: a few paths, each with an asynchronous view, without what Django's own handler does
around every request: no thread, no hop to one, no middleware that needs one, no signals about database connections that
nobody opens.

It takes only what is ordinary about a request's head and gives everything else on, unread, to the handler behind it:
other methods, unknown hosts, cookies of a session, plain HTTP that is to be redirected. So the two cannot disagree
about them. A view behind it may use neither sessions nor the database on the event loop's own thread.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Final, Self

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.clickjacking import XFrameOptionsMiddleware
from django.middleware.security import SecurityMiddleware
from django.urls import resolve

from llmchat.lib import envelope
from llmchat.lib.asgi import ON_DISCONNECT, Application, Receive, Scope, Send, send_problem
from llmchat.lib.body_limit import Bounds, Refused
from llmchat.lib.rendering import JSONResponse

logger = logging.getLogger(__name__)

Headers = list[tuple[bytes, bytes]]

#: How many names of headers and values of Host are remembered: they are the callers' own.
_MOST_REMEMBERED: Final = 1024


class LeanHandler:
    """`paths`: those whose views are served here, if the view's methods and the head allow; `otherwise`: who serves the
    rest. `open_paths`: those of them that answer whatever the Host header says. `bounds`: of bodies.
    """

    def __init__(
        self, otherwise: Application, *, paths: Collection[str], open_paths: Collection[str] = (), bounds: Bounds
    ) -> None:
        self._otherwise = otherwise
        self._bounds = bounds
        self._routes = {path: _Route.to(path, asks_host=path not in open_paths) for path in (*paths, *open_paths)}
        self._hosts: set[str] = set()
        self._names_of_cookies = (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)
        self._always = {secure: _headers_of_every_response(secure=secure) for secure in (False, True)}
        kind = (b"content-type", b"application/json")
        self._of_json = {secure: [kind, *always] for secure, always in self._always.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is not None and scope["method"] in route.methods and scope["query_string"].isascii():
            request = LeanRequest(scope)
            if self._is_ordinary(request, route):
                await self._serve(request, route, scope, receive, send)
                return
        await self._otherwise(scope, receive, send)

    def _is_ordinary(self, request: LeanRequest, route: _Route) -> bool:
        cookies = request.META.get("HTTP_COOKIE")
        if cookies is not None and any(name in cookies for name in self._names_of_cookies):
            return False
        if route.wants_https and not request.is_secure():
            return False
        return not route.asks_host or self._is_ours(request)

    def _is_ours(self, request: LeanRequest) -> bool:
        host = request.META.get("HTTP_HOST")
        if host in self._hosts:
            return True
        try:
            request.get_host()
        except DisallowedHost:
            return False
        if host is not None and not settings.USE_X_FORWARDED_HOST and len(self._hosts) < _MOST_REMEMBERED:
            self._hosts.add(host)
        return True

    async def _serve(self, request: LeanRequest, route: _Route, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._bounds.read(scope, receive)
        except Refused as refused:
            await send_problem(refused.problem, send)
            return
        if body is None:
            # The client left before all of it was here.
            return
        request.take(body)
        connection = _Connection()
        leave_in_peace = connection.listen(scope, receive)
        try:
            response = await _answer(request, route)
            await self._send(response, send, secure=request.is_secure())
        except asyncio.CancelledError:
            if not connection.is_gone:
                raise
        finally:
            leave_in_peace()

    async def _send(self, response: Any, send: Send, *, secure: bool) -> None:
        if isinstance(response, JSONResponse) and response.is_plain:
            content = response.content
            headers = [*self._of_json[secure], (b"content-length", b"%d" % len(content))]
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await send({"type": "http.response.body", "body": content})
            return
        headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.items()]
        names = {name for name, _ in headers}
        headers += [pair for pair in self._always[secure] if pair[0] not in names]
        if response.streaming:
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            async with aclosing(aiter(response)) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
            return
        content = response.content
        if b"content-length" not in names:
            headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": content})


async def _answer(request: LeanRequest, route: _Route) -> HttpResponseBase:
    try:
        response: HttpResponseBase = await route.view(request, **route.kwargs)
        return response
    except Exception as error:
        return envelope.as_http_response(envelope.as_api_error(error))


class _Connection:
    """Ends the request's task when its client leaves."""

    def __init__(self) -> None:
        self.is_gone = False
        self._task = asyncio.current_task()

    def listen(self, scope: Scope, receive: Receive) -> Callable[[], object]:
        """Begins; call what it returns once the response is out. A server that offers to call us when its connection
        is lost spares us a task that waits for it."""
        callbacks: set[Callable[[], None]] | None = (scope.get("extensions") or {}).get(ON_DISCONNECT)
        if callbacks is None:
            return asyncio.get_running_loop().create_task(self._wait(receive)).cancel
        callbacks.add(self._end)
        return partial(callbacks.discard, self._end)

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._end()

    def _end(self) -> None:
        self.is_gone = True
        if self._task is not None:
            self._task.cancel()


@dataclass(frozen=True, slots=True)
class _Route:
    view: Any
    kwargs: dict[str, Any]
    methods: frozenset[str]
    asks_host: bool
    wants_https: bool

    @classmethod
    def to(cls, path: str, *, asks_host: bool) -> Self:
        """Where Django's URLs lead from there, to a view set's view."""
        match = resolve(path)
        methods = {method.upper() for method in match.func.actions}  # type: ignore[attr-defined]
        if "GET" in methods:
            methods.add("HEAD")
        exempt = any(re.search(pattern, path.lstrip("/")) for pattern in settings.SECURE_REDIRECT_EXEMPT)
        return cls(
            view=match.func,
            kwargs=match.kwargs,
            methods=frozenset(methods),
            asks_host=asks_host,
            wants_https=settings.SECURE_SSL_REDIRECT and not exempt,
        )


class LeanRequest(ASGIRequest):
    """Django's request, made of the same scope to the same effect in less time. Its body is given later."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._post_parse_error = False
        self._read_started = False
        self.resolver_match = None
        self.path = self.path_info = path = scope["path"]
        self.script_name = ""
        self.method = scope["method"]
        self.META = meta = {
            "REQUEST_METHOD": self.method,
            "QUERY_STRING": scope["query_string"].decode("ascii"),
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
        }
        if client := scope.get("client"):
            meta["REMOTE_ADDR"] = meta["REMOTE_HOST"] = client[0]
            meta["REMOTE_PORT"] = client[1]
        server = scope.get("server") or ("unknown", 0)
        meta["SERVER_NAME"] = server[0]
        meta["SERVER_PORT"] = str(server[1])
        names = _names
        for raw_name, raw_value in scope["headers"]:
            name = names[raw_name] if raw_name in names else _name(raw_name)
            if name is not None:
                value = raw_value.decode("latin-1")
                meta[name] = f"{meta[name]},{value}" if name in meta else value
        self._set_content_type_params(meta)  # type: ignore[attr-defined]

    def take(self, body: bytes) -> None:
        """Gives it its body, from which it can be read."""
        self._stream = BytesIO(body)


_names: dict[bytes, str | None] = {b"content-length": "CONTENT_LENGTH", b"content-type": "CONTENT_TYPE"}


def _name(raw: bytes) -> str | None:
    """A header's name in META; None for one that could be taken for another, as Django has it."""
    name = None if b"_" in raw else f"HTTP_{raw.decode('latin-1').upper().replace('-', '_')}"
    if len(_names) < _MOST_REMEMBERED:
        _names[raw] = name
    return name


def _headers_of_every_response(*, secure: bool) -> Headers:
    """What Django's own middlewares put on every response, by asking them."""
    request, response = _Any(secure=secure), HttpResponse()
    mine = set(response.headers)
    for middleware in (XFrameOptionsMiddleware, SecurityMiddleware):
        middleware(lambda _: response).process_response(request, response)
    return [
        (name.lower().encode("ascii"), value.encode("latin-1"))
        for name, value in response.headers.items()
        if name not in mine
    ]


class _Any(HttpRequest):
    """Some request."""

    def __init__(self, *, secure: bool) -> None:
        super().__init__()
        self._secure = secure

    def _get_scheme(self) -> str:
        return "https" if self._secure else "http"
