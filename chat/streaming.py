"""Streams to callers: server-sent events (WHATWG HTML, section 9.2) in the native and in OpenAI's dialect.

The response begins with the first event, so that a failure before it has its proper status; only when the first event
takes longer than the keep-alive time does the response begin with a comment. A stream that ends without `done`,
`[DONE]` or an error was cut.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import orjson
from django.conf import settings
from django.http import StreamingHttpResponse

from chat import payloads
from chat.engine import Reader
from chat.replay import Replay
from llmchat.lib.envelope import APIError
from providers.values import Event, Finished, TextDelta

_KEEP_ALIVE = b": keep-alive\n\n"

#: One caller's view of an exchange, under way or on record.
Reading = Reader | Replay
#: How a dialect shows an event: the bytes to send for it.
Show = Callable[[Event], bytes]


async def native(reading: Reading) -> EventStream:
    """`event: delta` for each piece of text, then `event: done` with the whole answer, or `event: error`."""

    def show(event: Event) -> bytes:
        match event:
            case TextDelta(text=text):
                return _event("delta", {"text": text})
            case Finished():
                return _event("done", payloads.native_answer(reading.interaction))
        return b""

    def fail(problem: APIError) -> bytes:
        return _event("error", problem.body())

    return await _respond(reading, show, fail)


async def completions(reading: Reading, *, include_usage: bool) -> EventStream:
    """OpenAI's chunks, then `[DONE]`; a failure is an `error` object in their place."""
    row = reading.interaction
    begun = False

    def show(event: Event) -> bytes:
        nonlocal begun
        lead = b"" if begun else _data(payloads.first_chunk(row))
        begun = True
        shown = lead + _data(payloads.chunk(row, event))
        if isinstance(event, Finished):
            if include_usage:
                shown += _data(payloads.usage_chunk(row))
            shown += b"data: [DONE]\n\n"
        return shown

    def fail(problem: APIError) -> bytes:
        return _data(problem.body())

    return await _respond(reading, show, fail)


class EventStream(StreamingHttpResponse):
    """A stream of one exchange's events. However it ends, unread too, the exchange is left at once."""

    def __init__(self, reading: Reading, frames: AsyncIterator[bytes]) -> None:
        super().__init__(
            frames,
            content_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **reading.headers},
        )
        self._reading = reading
        # A response that is dropped before its first frame is never iterated.
        weakref.finalize(self, _abandon_from_anywhere, asyncio.get_running_loop(), reading)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for frame in super().__aiter__():
                yield frame
        finally:
            self._reading.abandon()


def _abandon_from_anywhere(loop: asyncio.AbstractEventLoop, reading: Reading) -> None:
    with suppress(RuntimeError):  # the loop is closed: nothing runs any more
        loop.call_soon_threadsafe(reading.abandon)


async def _respond(reading: Reading, show: Show, fail: Callable[[APIError], bytes]) -> EventStream:
    try:
        first = await _next(reading)
    except BaseException:
        reading.abandon()
        raise
    return EventStream(reading, _frames(reading, first, show, fail))


async def _frames(
    reading: Reading, event: Event | None, show: Show, fail: Callable[[APIError], bytes]
) -> AsyncIterator[bytes]:
    while True:
        if event is None:
            yield _KEEP_ALIVE
        elif frame := show(event):
            yield frame
        if isinstance(event, Finished):
            return
        try:
            event = await _next(reading)
        except APIError as problem:
            yield fail(problem)
            return


async def _next(reading: Reading) -> Event | None:
    """The next event; None when it is time for a sign of life."""
    try:
        async with asyncio.timeout(settings.KEEP_ALIVE_SECONDS):
            return await reading.next_event()
    except TimeoutError:
        return None


def _event(name: str, value: Any) -> bytes:
    return b"event: " + name.encode() + b"\n" + _data(value)


def _data(value: Any) -> bytes:
    # JSON in UTF-8 holds no raw line breaks, so one data line is enough.
    return b"data: " + orjson.dumps(value) + b"\n\n"
