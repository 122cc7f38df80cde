"""HTTP/1.1 as uvicorn speaks it, with bounds on a request's head, refusals in the one error shape, and an end that no
client's request falls into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import orjson
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from llmchat.lib import lifecycle, request_id
from llmchat.lib.asgi import ON_DISCONNECT, WHOLE_BODY
from llmchat.lib.envelope import APIError
from llmchat.serve.cycle import Cycle

#: Bytes of a request's line and headers. The parser itself would go on for ever.
MAX_HEAD_BYTES = 64 * 1024

#: When the process ends, a connection is closed once nothing has come on it for this long. Whoever asks one thing after
#: the other is told by the response that it is the last.
DRAIN_SECONDS = 3


class BoundedHeads(HttpToolsProtocol):
    """Closes connections on which a request's headers do not come in time or have no end, and those on which nothing
    ever comes: without it, idle connections cost an attacker nothing and us a file each."""

    _waiting: asyncio.TimerHandle | None = None
    _is_in_head = False
    _head_bytes = 0
    _is_leaving = False
    _quiet_since = 0.0
    _last: RequestResponseCycle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_disconnect: set[Callable[[], None]] = set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if lifecycle.is_stopping():
            # Accepted in the moment in which the others were told.
            self.shutdown()

    def shutdown(self) -> None:
        """The process ends. A response that is under way without having said that it is the last one leaves the
        connection open: the next request may be on its way already."""
        self._is_leaving = True
        self.timeout_keep_alive = DRAIN_SECONDS
        if not self._is_idle:
            if not self.cycle.response_started:
                self._let_be_last(self.cycle)
        elif not self._is_in_head:
            self._unset_keepalive_if_required()
            rest = self._quiet_since + DRAIN_SECONDS - self.loop.time()
            self.timeout_keep_alive_task = self.loop.call_later(max(0.0, rest), self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if not self._is_in_head:
            # Most heads come whole, and need no clock. Line breaks before one begin nothing, but stop uvicorn's clock.
            if self._is_idle and self.timeout_keep_alive_task is None and self._waiting is None:
                self._wait()
            return
        if self._waiting is None:
            self._wait()
        # All of it belongs to a head that has not ended. One that came in a single piece is as short as that piece.
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(
                APIError(
                    f"The request's headers are larger than {MAX_HEAD_BYTES} bytes. Send less.",
                    status=431,
                    code="headers_too_large",
                )
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True

    def on_headers_complete(self) -> None:
        """As uvicorn's, which knows other cycles, upgrades and limits besides, that nobody asks for here."""
        self._is_in_head = False
        self._wait_no_more()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # uvicorn's type knows no extensions but its own
        version, method = self.parser.get_http_version(), self.parser.get_method().decode("ascii")
        scope["method"], scope["http_version"] = method, version
        scope["path"], scope["raw_path"], scope["query_string"] = _parts(self.url)
        before = self.cycle
        self.cycle = cycle = Cycle(
            method=method,
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        scope["extensions"] = {ON_DISCONNECT: self._on_disconnect, WHOLE_BODY: cycle.whole_body}
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        if self._is_leaving:
            self._let_be_last(cycle)

    def on_response_complete(self) -> None:
        self._quiet_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)
        for callback in tuple(self._on_disconnect):
            callback()

    def send_400_response(self, msg: str) -> None:
        del msg
        self._refuse(APIError("This is not an HTTP/1.1 request. Check what sent it.", status=400, code="bad_request"))

    @property
    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _let_be_last(self, cycle: RequestResponseCycle) -> None:
        """Has the response say that the connection ends with it; of several that are due, the latest alone."""
        if self._last is not None and not self._last.response_started:
            self._last.keep_alive = True
        if cycle.keep_alive:
            cycle.keep_alive = False
            self._last = cycle

    def _refuse(self, problem: APIError) -> None:
        identifier = request_id.begin(None)
        body = orjson.dumps(problem.body())
        head = (
            f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{request_id.HEADER.lower()}: {identifier}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _wait(self) -> None:
        self._head_bytes = 0
        self._quiet_since = self.loop.time()
        self._waiting = self.loop.call_later(settings.HEADER_READ_SECONDS, self.timeout_keep_alive_handler)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._head_bytes = 0


@lru_cache(maxsize=256)
def _parts(url: bytes) -> tuple[str, bytes, bytes]:
    """Path as text and as it came, and query; few differ. Raises HttpParserInvalidURLError."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""
