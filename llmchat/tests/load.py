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
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import httptools
import orjson

from llmchat.tests.calls import Answer, Call, Dialect

#: Seconds after which a client gives up waiting; the call counts as cut then.
PATIENCE = 120.0
#: A client that finds nobody asks again after this many seconds.
_PAUSE = 0.05

DIALECTS: tuple[Dialect, ...] = ("native", "completions")
#: All that may be asked for, in one load: both dialects, whole and streamed, with an idempotency key and without one.
MIXED: dict[str, Any] = {"dialects": DIALECTS, "keyed": 0.25}


class Load:
    """Clients at work from entering the context until `stop`, or until `count` calls are made.

    Args:
        model: what is asked for; the share `streamed` of the calls as streams, of which the share `abandoned` is left
            after one to ten pieces.
        dialects: what the clients speak, by turns; native streams are asked for on both paths.
        keyed: the share of the calls with an idempotency key; these are sent again until they are answered.
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
        dialects: Sequence[Dialect] = ("native",),
        keyed: float = 0.0,
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
        self._dialects, self._keyed = dialects, keyed
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
            call = self._new_call(number)
            leaves = call.streamed and self._random.random() < self._abandoned
            leave_after = self._random.randint(1, 10) if leaves else None
            link = await self._ask(call, link, leave_after)
            while call.is_worth_another_try and call.ended - call.began < PATIENCE:
                await asyncio.sleep(_PAUSE)
                call.tries += 1
                link = await self._ask(call, link, leave_after)
            self.calls.append(call)
            if call.status is None:
                await asyncio.sleep(_PAUSE)
        if link is not None:
            link[1].close()

    def _new_call(self, number: int) -> Call:
        streamed = self._random.random() < self._streamed
        is_keyed = self._random.random() < self._keyed
        match self._dialects[number % len(self._dialects)]:
            case "completions":
                path = "/v1/chat/completions"
            case "native":
                path = "/v1/chat/stream" if streamed and self._random.random() < 0.5 else "/v1/chat"
        prompt = f"{self._name} {number:06d}{self._padding}"
        return Call(number, prompt, streamed, time.monotonic(), path=path, is_keyed=is_keyed)

    async def _ask(self, call: Call, link: _Link | None, leave_after: int | None) -> _Link | None:
        """Sends the call once and notes what came of it; the connection, if it can be used again."""
        answer = Answer(call.dialect, leave_after)
        kept, connection = link, None
        try:
            async with asyncio.timeout(PATIENCE):
                link = connection = await self._connected(link)
                await _converse(link, self._request(call), answer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, httptools.HttpParserError):
            answer.keeps_alive = False
        call.ended = time.monotonic()
        answer.tell(call)
        if connection is not None and call.ending == "cut":
            call.cut_on.append("kept" if connection is kept else "new")
        if link is not None and not answer.keeps_alive:
            link[1].transport.abort()
            return None
        return link

    async def _connected(self, link: _Link | None) -> _Link:
        """The connection that is there, or a new one when there is none or the server has closed it."""
        if link is not None:
            if not link[0].at_eof():
                return link
            link[1].close()
        return await asyncio.open_connection(self._host, self._port)

    def _request(self, call: Call) -> bytes:
        fields: dict[str, Any] = {"model": self._model}
        if call.path != "/v1/chat/stream":
            fields["stream"] = call.streamed
        if call.dialect == "completions":
            fields |= {"user": self._name, "messages": [{"role": "user", "content": call.prompt}]}
        else:
            fields |= {"userId": self._name, "prompt": call.prompt}
        body = orjson.dumps(fields)
        once = f"Idempotency-Key: {self._name} {call.number}\r\n" if call.is_keyed else ""
        head = (
            f"POST {call.path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{once}\r\n"
        )
        return head.encode() + body


_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _converse(link: _Link, request: bytes, answer: Answer) -> None:
    reader, writer = link
    writer.write(request)
    while not answer.is_whole and not answer.is_left:
        data = await reader.read(65536)
        if not data:
            raise ConnectionResetError("the connection was closed in mid-answer")
        answer.feed(data)
