"""One call as its client sees it: what was asked, and the response as it comes from the socket, in either dialect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import httptools
import orjson

Dialect = Literal["native", "completions"]
Ending = Literal["done", "error", "cut", "abandoned"]


@dataclass(slots=True)
class Call:
    """One request as its client saw it.

    `status`: None when no head of a response came. `ending`: `done` for a whole answer or a stream with its `done`,
    `error` for an error that was told, `cut` for a connection that broke off, `abandoned` when the client left.
    `id` and `text`: the interaction's and its answer's; of a stream that did not end well, the text that came.
    `code` and `retry_after`: those of the error. `began` and `ended`: moments of the monotonic clock.
    `tries`: how often it was sent, each time with the same idempotency key; the rest is that of the last time.
    `cut_on`: of each try that was sent and got no whole answer, whether the connection was `new` or `kept`.
    """

    number: int
    prompt: str
    streamed: bool
    began: float
    ended: float = 0.0
    status: int | None = None
    ending: Ending = "cut"
    id: str | None = None
    text: str = ""
    code: str | None = None
    retry_after: str | None = None
    path: str = "/v1/chat"
    is_keyed: bool = False
    tries: int = 1
    cut_on: list[Literal["new", "kept"]] = field(default_factory=list)

    @property
    def dialect(self) -> Dialect:
        return "completions" if self.path.endswith("/completions") else "native"

    @property
    def told(self) -> str:
        """What came of it, in one line."""
        asked = f"{self.path}{', streamed' if self.streamed else ''}{', with a request id' if self.is_keyed else ''}"
        took = f"{self.ended - self.began:.1f} s, {self.tries} tries"
        return f"{asked}: {self.ending}, status {self.status}, {self.code or 'no code'} ({took})"

    @property
    def is_worth_another_try(self) -> bool:
        """Who sent an idempotency key is sure to be answered once, however often it is sent."""
        return self.is_keyed and (self.ending == "cut" or self.status == 503 or self.code == "database_unavailable")


class Answer:
    """A response, fed with bytes until it `is_whole` or `is_left`; httptools calls the methods named `on_...`.

    `leave_after`: pieces of a stream after which the client has had enough.
    """

    def __init__(self, dialect: Dialect, leave_after: int | None = None) -> None:
        self.status: int | None = None
        self.is_whole = False
        self.is_left = False
        self.keeps_alive = False
        self._dialect = dialect
        self._leave_after = leave_after
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises httptools.HttpParserError for what is no response."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body += body
        if self._leave_after is not None and self._pieces() >= self._leave_after:
            self.is_left = True

    def on_message_complete(self) -> None:
        self.is_whole = True
        self.keeps_alive = self._parser.should_keep_alive()

    def tell(self, call: Call) -> None:
        """Puts on `call` what came of it, in the place of what came of an earlier try."""
        call.status, call.ending, call.id, call.text = self.status, "cut", None, ""
        call.code = call.retry_after = None
        if self.status is None:
            return
        if self._headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            self._tell_stream(call)
        elif self.is_whole:
            self._tell_whole(call)
        if self.is_left:
            call.ending = "abandoned"

    def _pieces(self) -> int:
        """How many pieces of text have come. In OpenAI's dialect the first chunk has none."""
        if self._dialect == "native":
            return self._body.count(b"event: delta\n")
        return max(0, self._body.count(b'"content":') - 1)

    def _tell_whole(self, call: Call) -> None:
        value = orjson.loads(self._body)
        if self.status != 200:
            call.ending = "error"
            call.code = value["error"]["code"]
            call.retry_after = self._headers.get(b"retry-after", b"").decode() or None
        elif self._dialect == "native":
            call.ending, call.id, call.text = "done", value["id"], value["response"]
        else:
            call.ending, call.id = "done", _interaction(value)
            call.text = value["choices"][0]["message"]["content"]

    def _tell_stream(self, call: Call) -> None:
        # What follows the last blank line is a piece that has not come whole.
        frames = bytes(self._body).split(b"\n\n")[:-1]
        pieces = _native(call, frames) if self._dialect == "native" else _completions(call, frames)
        call.text = "".join(pieces)


def _native(call: Call, frames: list[bytes]) -> list[str]:
    pieces = []
    for frame in frames:
        name, _, data = frame.partition(b"\ndata: ")
        match name:
            case b"event: delta":
                pieces.append(orjson.loads(data)["text"])
            case b"event: done":
                call.ending, call.id = "done", orjson.loads(data)["id"]
            case b"event: error":
                call.ending, call.code = "error", orjson.loads(data)["error"]["code"]
    return pieces


def _completions(call: Call, frames: list[bytes]) -> list[str]:
    pieces = []
    for data in [frame.removeprefix(b"data: ") for frame in frames if frame.startswith(b"data: ")]:
        if data == b"[DONE]":
            call.ending = "done"
            continue
        value = orjson.loads(data)
        if "error" in value:
            call.ending, call.code = "error", value["error"]["code"]
            continue
        call.id = _interaction(value)
        pieces += [choice["delta"].get("content") or "" for choice in value["choices"]]
    return pieces


def _interaction(value: dict[str, Any]) -> str:
    """The interaction's id in OpenAI's dialect."""
    return str(value["id"]).removeprefix("chatcmpl-")
