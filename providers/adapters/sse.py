"""Server-sent events out of a byte stream, however the network cut it.

Works on bytes, so that a character divided between two chunks survives; knows nothing of what the events mean.
Protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import orjson

from providers.adapters.patience import within
from providers.errors import AnswerTooLarge, ProviderError
from providers.values import Json

#: One event holds a few tokens; a vendor that sends megabytes without an end of event is not talking to us.
MAX_EVENT_BYTES = 8 * 1024 * 1024


class Decoder:
    """Bytes in, the events' data out. Event names are left out: every vendor repeats them inside the data."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._line: list[bytes] = []  # pieces of the line that has not ended yet
        self._data: list[bytes] = []  # data lines of the event that has not ended yet
        self._size = 0
        self._carriage_return = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of each event that `chunk` completes. Raises AnswerTooLarge for an endless event."""
        if not chunk:
            return iter(())
        # What vendors nearly always send: whole events, and line ends of one character
        if chunk.endswith(b"\n\n") and not (self._size or self._data or self._carriage_return) and b"\r" not in chunk:
            if chunk.startswith(b"data: ") and len(chunk) <= self._max:
                found = chunk[6:-2].split(b"\n\ndata: ")
                # Two line ends for each event: then none has another line
                if chunk.count(b"\n") == 2 * len(found):
                    return iter(found)
            return self._whole_events(chunk)
        return self._lines(chunk)

    def _whole_events(self, chunk: bytes) -> Iterator[bytes]:
        for event in chunk[:-2].split(b"\n\n"):
            if len(event) > self._max:
                raise self._endless()
            if event.startswith(b"data: ") and b"\n" not in event:
                yield event[6:]
                continue
            for line in event.split(b"\n"):
                yield from self._end_of_line(line)
            yield from self._end_of_line(b"")

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        half = self._carriage_return and chunk.startswith(b"\n")  # of a line end that the last chunk began
        self._carriage_return = chunk.endswith(b"\r")
        if half:
            chunk = chunk[1:]
        for piece in chunk.splitlines(keepends=True):
            text = piece.rstrip(b"\r\n")
            self._size += len(text)
            if self._size > self._max:
                raise self._endless()
            self._line.append(text)
            if len(text) < len(piece):
                line = b"".join(self._line)
                self._line.clear()
                yield from self._end_of_line(line)

    def finish(self) -> Iterator[bytes]:
        """Yield what stands at the end of the stream without the empty line that should have closed it."""
        line = b"".join(self._line)
        self._line.clear()
        yield from self._end_of_line(line)
        yield from self._end_of_line(b"")

    def _end_of_line(self, line: bytes) -> Iterator[bytes]:
        if not line:
            self._size = 0
            if self._data:
                data = b"\n".join(self._data)
                self._data.clear()
                yield data
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))

    def _endless(self) -> AnswerTooLarge:
        return AnswerTooLarge(f"One event of the answer is larger than {self._max} bytes.")


class JsonEvents:
    """The JSON objects of an event stream, in order. `chunk` reads the stream's next bytes, None at its end.

    What is no JSON object is skipped and counted in `malformed`; bytes that are no UTF-8 become replacement characters
    and are counted too, because the rest of their event is worth having. `seen` counts the objects handed out.
    """

    def __init__(self, chunk: Callable[[], Awaitable[bytes | None]], *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.malformed = 0
        self.seen = 0
        self._chunk = chunk
        self._decoder = Decoder(max_event_bytes=max_event_bytes)
        self._ready: deque[bytes] = deque()
        self._ended = False

    async def read(self) -> list[dict[str, Json]] | None:
        """The objects that came together, at least one; None at the end of the answer (`[DONE]`, or of the stream)."""
        while True:
            values = self._parsed()
            if values:
                self.seen += len(values)
                return values
            if self._ended:
                return None
            chunk = await self._chunk()
            if chunk is None:
                self._ended = True
                self._ready.extend(self._decoder.finish())
            else:
                self._ready.extend(self._decoder.feed(chunk))

    async def drain(self, *, seconds: float) -> None:
        """Read what is left, so that the connection can be used again; not for longer than `seconds`."""
        with suppress(TimeoutError, ProviderError):
            await within(seconds, self._read_out())

    async def _read_out(self) -> None:
        while await self._chunk() is not None:
            pass

    def _parsed(self) -> list[dict[str, Json]]:
        """What is ready, up to the end of the answer."""
        values = []
        ready = self._ready
        while ready:
            data = ready.popleft()
            if len(data) < 16 and data.strip() == b"[DONE]":
                self._ended = True
                ready.clear()
                break
            value, clean = parse_object(data)
            if value is None or not clean:
                self.malformed += 1
            if value is not None:
                values.append(value)
        return values


def parse_object(data: bytes) -> tuple[dict[str, Json] | None, bool]:
    """The JSON object in `data` (None when it is none), and whether its bytes were proper UTF-8."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_patiently(data)
    return (value, True) if isinstance(value, dict) else (None, True)


def _parse_patiently(data: bytes) -> tuple[dict[str, Json] | None, bool]:
    """As `parse_object`, for what orjson is too strict about."""
    try:
        text, clean = data.decode(), True
    except UnicodeDecodeError:
        text, clean = data.decode(errors="replace"), False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, clean
    return (value, clean) if isinstance(value, dict) else (None, clean)
