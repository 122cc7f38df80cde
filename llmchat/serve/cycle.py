"""One request and its response on a connection: uvicorn's cycle to the same effect, with a fraction of its work for a
response whose headers have been seen before, and with a body at hand for whoever wants all of it at once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle

from llmchat.lib.asgi import WHOLE_BODY

_WITHOUT_BODY = frozenset({204, 304})


class Cycle(RequestResponseCycle):
    """`method`: of the request."""

    def __init__(self, *, method: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._is_head = method == "HEAD"

    def whole_body(self) -> bytes | None:
        """The request's body, if all of it is there and nobody has received any of it; None otherwise."""
        if self.more_body or self.waiting_for_100_continue or self.disconnected:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    async def receive(self) -> Any:
        if self.message_event.is_set() and not self.waiting_for_100_continue and not self.disconnected:
            self.flow.resume_reading()
            self.message_event.clear()
            if not self.response_complete:
                body, self.body = bytes(self.body), bytearray()
                return {"type": "http.request", "body": body, "more_body": self.more_body}
        return await super().receive()

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        match message["type"]:
            case "http.response.start" if not self.response_started:
                self._start(message["status"], message.get("headers", ()))
            case "http.response.body" if self.response_started and not self.response_complete:
                self._go_on(message.get("body", b""), is_last=not message.get("more_body", False))
            case other:
                raise RuntimeError(f"{other} was sent out of turn.")

    def _start(self, status: int, headers: Any) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        says_close = False
        lines = [STATUS_LINE[status]]
        for given, value in (*self.default_headers, *headers):
            name = given.lower()
            if name == b"content-length" and self.chunked_encoding is None:
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"transfer-encoding" and value.lower() == b"chunked":
                self.expected_content_length = 0
                self.chunked_encoding = True
            elif name == b"connection" and b"close" in [token.strip() for token in value.lower().split(b",")]:
                self.keep_alive = False
                says_close = True
            lines.append(_line(name, value))
        if not self.keep_alive and not says_close:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and not self._is_head and status not in _WITHOUT_BODY:
            self.chunked_encoding = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join(lines))

    def _go_on(self, body: bytes, *, is_last: bool) -> None:
        if self._is_head:
            self.expected_content_length = 0
        elif self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self.transport.write(piece + b"0\r\n\r\n" if is_last else piece)
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The response is longer than its Content-Length.")
            self.transport.write(body)
        if not is_last:
            return
        if self.expected_content_length:
            raise RuntimeError("The response is shorter than its Content-Length.")
        self.response_complete = True
        # It refers to this cycle: a circle, which waits for the collector and is megabytes at a thousand a second.
        if extensions := self.scope.get("extensions"):
            extensions.pop(WHOLE_BODY, None)
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


@lru_cache(maxsize=1024)
def _line(name: bytes, value: bytes) -> bytes:
    """A header as it is sent; most are the same for each response."""
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        raise RuntimeError(f"A header called {name!r} would break out of its line.")
    return b"%b: %b\r\n" % (name, value)
