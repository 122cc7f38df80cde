"""Load for tests: clients that ask one call after the other, and remember of each what they were told.

They run in a thread of their own, so that the test can meanwhile do harm. They know llmchat by its contract only.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal, Self
from urllib.parse import urlsplit

import httptools
import orjson

#: Seconds after which a client gives up waiting; the call counts as cut then.
PATIENCE = 120.0
#: A client that finds nobody asks again after this many seconds.
_PAUSE = 0.05

Ending = Literal["done", "error", "cut", "abandoned"]


@dataclass(slots=True)
class Call:
    """One request as its client saw it.

    `status`: None when no head of a response came. `ending`: `done` for a whole answer or a stream with its `done`,
    `error` for an error that was told, `cut` for a connection that broke off, `abandoned` when the client left.
    `id` and `text`: the interaction's and its answer's; of a stream that did not end well, the text that came.
    `code` and `retry_after`: those of the error. `began` and `ended`: moments of the monotonic clock.
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


class Load:
    """Clients at work from entering the context until `stop`, or until `count` calls are made.

    Args:
        model: what is asked for; the share `streamed` of the calls as streams, of which the share `abandoned` is left
            after one to ten pieces.
        connections: clients at the same time, each with a connection that it keeps and, when it breaks, makes anew.
        name: the prompts are `<name> 000000`, `<name> 000001`, ..., each once; `padding` characters follow.
        seed: of what is left to chance.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str,
        model: str,
        connections: int = 8,
        streamed: float = 0.5,
        abandoned: float = 0.0,
        count: int | None = None,
        name: str = "call",
        padding: int = 0,
        seed: int = 1,
    ) -> None:
        address = urlsplit(base_url)
        self.calls: list[Call] = []
        self._host, self._port = address.hostname or "", address.port or 80
        self._key, self._model, self._connections = key, model, connections
        self._streamed, self._abandoned = streamed, abandoned
        self._numbers = iter(range(count)) if count is not None else itertools.count()
        self._name, self._padding = name, " " + "x" * (padding - 1) if padding else ""
        self._random = random.Random(seed)
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=f"load {name}")

    @property
    def answered(self) -> list[Call]:
        """The calls that were answered whole, so far."""
        return [call for call in self.calls if call.ending == "done"]

    @property
    def statuses(self) -> dict[int | None, int]:
        """How many calls had which status, so far."""
        return dict(Counter(call.status for call in self.calls))

    @property
    def working(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """No further calls; returns when those under way have ended."""
        self._stopping = True
        self._thread.join()

    def finish(self) -> None:
        """Returns when `count` calls have ended."""
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._connections)))

    async def _client(self) -> None:
        link: _Link | None = None
        while not self._stopping and (number := next(self._numbers, None)) is not None:
            streamed = self._random.random() < self._streamed
            leave_after = self._random.randint(1, 10) if streamed and self._random.random() < self._abandoned else None
            call = Call(number, f"{self._name} {number:06d}{self._padding}", streamed, time.monotonic())
            answer = _Answer(leave_after)
            try:
                async with asyncio.timeout(PATIENCE):
                    link = await self._connected(link)
                    await _ask(link, self._request(call), answer)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, httptools.HttpParserError):
                answer.keeps_alive = False
            call.ended = time.monotonic()
            answer.tell(call)
            self.calls.append(call)
            if link is not None and not answer.keeps_alive:
                link[1].transport.abort()
                link = None
            if call.status is None:
                await asyncio.sleep(_PAUSE)
        if link is not None:
            link[1].close()

    async def _connected(self, link: _Link | None) -> _Link:
        """The connection that is there, or a new one when there is none or the server has closed it."""
        if link is not None:
            if not link[0].at_eof():
                return link
            link[1].close()
        return await asyncio.open_connection(self._host, self._port)

    def _request(self, call: Call) -> bytes:
        body = orjson.dumps(
            {"userId": self._name, "prompt": call.prompt, "model": self._model, "stream": call.streamed}
        )
        head = (
            f"POST /v1/chat HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Answer:
    """A response as it comes in; httptools calls the methods named `on_...`."""

    def __init__(self, leave_after: int | None) -> None:
        self.leave_after = leave_after
        self.parser = httptools.HttpResponseParser(self)
        self.status: int | None = None
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.is_whole = False
        self.is_left = False
        self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body
        if self.leave_after is not None and self.body.count(b"event: delta\n") >= self.leave_after:
            self.is_left = True

    def on_message_complete(self) -> None:
        self.is_whole = True
        self.keeps_alive = self.parser.should_keep_alive()

    def tell(self, call: Call) -> None:
        """Puts on `call` what came of it."""
        call.status = self.status
        if self.status is None:
            return
        if self.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            self._tell_stream(call)
        elif self.is_whole:
            self._tell_whole(call)
        if self.is_left:
            call.ending = "abandoned"

    def _tell_whole(self, call: Call) -> None:
        value = orjson.loads(self.body)
        if self.status == 200:
            call.ending, call.id, call.text = "done", value["id"], value["response"]
        else:
            call.ending = "error"
            call.code = value["error"]["code"]
            call.retry_after = self.headers.get(b"retry-after", b"").decode() or None

    def _tell_stream(self, call: Call) -> None:
        pieces = []
        # What follows the last blank line is a piece that has not come whole.
        for event in bytes(self.body).split(b"\n\n")[:-1]:
            name, _, data = event.partition(b"\ndata: ")
            match name:
                case b"event: delta":
                    pieces.append(orjson.loads(data)["text"])
                case b"event: done":
                    value = orjson.loads(data)
                    call.ending, call.id = "done", value["id"]
                case b"event: error":
                    call.ending, call.code = "error", orjson.loads(data)["error"]["code"]
        call.text = "".join(pieces)


async def _ask(link: _Link, request: bytes, answer: _Answer) -> None:
    reader, writer = link
    writer.write(request)
    while not answer.is_whole and not answer.is_left:
        data = await reader.read(65536)
        if not data:
            raise ConnectionResetError("the connection was closed in mid-answer")
        answer.parser.feed_data(data)
