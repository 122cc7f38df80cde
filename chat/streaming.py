"""Streams to callers: server-sent events (WHATWG HTML, section 9.2) in the native and in OpenAI's dialect.

The response begins with the first event, so that a failure before it has its proper status; only when the first event
takes longer than the keep-alive time does the response begin with a comment. A stream that ends without `done`,
`[DONE]` or an error was cut.
"""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson
from django.conf import settings
from django.http import StreamingHttpResponse

from chat import payloads
from chat.pending import Reading
from llmchat.lib.envelope import APIError
from providers.values import Event, Finished, TextDelta

_KEEP_ALIVE = b": keep-alive\n\n"
_DELTA = b'event: delta\ndata: {"text":'
_END = b"}\n\n"
#: Stands for a chunk's text in the bytes around it; nobody can guess it.
_TEXT = secrets.token_hex()

#: How a dialect shows an event: the bytes to send for it.
Show = Callable[[Event], bytes]


async def native(reading: Reading) -> EventStream:
    """`event: delta` for each piece of text, then `event: done` with the whole answer, or `event: error`."""

    def show(event: Event) -> bytes:
        if isinstance(event, TextDelta):
            return _DELTA + orjson.dumps(event.text) + _END
        if isinstance(event, Finished):
            return _event("done", payloads.native_answer(reading.interaction))
        return b""

    def fail(problem: APIError) -> bytes:
        return _event("error", problem.body())

    return await _respond(reading, show, fail)


async def completions(reading: Reading, *, include_usage: bool) -> EventStream:
    """OpenAI's chunks, then `[DONE]`; a failure is an `error` object in their place."""
    before = after = b""

    def show(event: Event) -> bytes:
        nonlocal before, after
        row = reading.interaction
        lead = b""
        if not before:
            # All chunks of text are alike but for the text.
            before, after = _data(payloads.chunk(row, TextDelta(_TEXT))).split(orjson.dumps(_TEXT))
            lead = _data(payloads.first_chunk(row))
        if isinstance(event, TextDelta) and event.logprobs is None:
            return lead + before + orjson.dumps(event.text) + after
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


class _Pulse:
    """Nudges a reading that has shown nothing for `KEEP_ALIVE_SECONDS`. One timer, which looks at the clock when it is
    due, serves the whole stream: an event only notes the time."""

    def __init__(self, reading: Reading) -> None:
        self._nudge = reading.nudge
        self._seconds = settings.KEEP_ALIVE_SECONDS
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + self._seconds, self._look)

    def beat(self) -> None:
        """Something is shown now."""
        self._last = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        # Timers may come a little early.
        if now - self._last >= self._seconds * 0.99:
            self._last = now
            self._nudge()
        self._timer = self._loop.call_at(self._last + self._seconds, self._look)


async def _respond(reading: Reading, show: Show, fail: Callable[[APIError], bytes]) -> EventStream:
    pulse = _Pulse(reading)
    try:
        first = await reading.next_events()
    except BaseException:
        reading.abandon()
        raise
    finally:
        pulse.stop()
    return EventStream(reading, _frames(reading, first, show, fail))


async def _frames(
    reading: Reading, events: Sequence[Event], show: Show, fail: Callable[[APIError], bytes]
) -> AsyncIterator[bytes]:
    """What has come together goes out together."""
    pulse = _Pulse(reading)
    try:
        while True:
            if not events:
                yield _KEEP_ALIVE
            elif frames := b"".join(map(show, events)):
                pulse.beat()
                yield frames
            if events and isinstance(events[-1], Finished):
                return
            try:
                events = await reading.next_events()
            except APIError as problem:
                yield fail(problem)
                return
    finally:
        pulse.stop()


def _event(name: str, value: Any) -> bytes:
    return b"event: " + name.encode() + b"\n" + _data(value)


def _data(value: Any) -> bytes:
    # JSON in UTF-8 holds no raw line breaks, so one data line is enough.
    return b"data: " + orjson.dumps(value) + b"\n\n"
