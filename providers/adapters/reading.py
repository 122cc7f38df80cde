"""From a vendor's chunks to a finished stream of events: the rules that are the same for every dialect and transport.

Exactly one `Finished`, never one that the vendor did not give a reason for, no answer without bounds.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Protocol, TypeVar

from providers.adapters.patience import within
from providers.errors import (
    AnswerTooLarge,
    FirstTokenTimeout,
    MalformedAnswer,
    ProviderError,
    Stalled,
    TruncatedAnswer,
)
from providers.values import Event, Finished, ReasoningDelta, TextDelta, ToolCallDelta

#: Default of the option `max_answer_bytes`: text, reasoning and tool arguments of one answer together.
MAX_ANSWER_BYTES = 20_000_000
#: How long to wait for the usage that some vendors send after the finish reason, in seconds.
USAGE_GRACE = 2.0
#: How long to read on after the end, so that the connection can be used again, in seconds.
DRAIN = 0.1

Chunk = TypeVar("Chunk")
Chunk_co = TypeVar("Chunk_co", covariant=True)
Chunk_contra = TypeVar("Chunk_contra", contravariant=True)


class Chunks(Protocol[Chunk_co]):
    """A vendor's chunks in order. `malformed` counts the unreadable ones, `seen` the others. `read` gives those that
    came together, at least one, and None at the end."""

    @property
    def malformed(self) -> int: ...

    @property
    def seen(self) -> int: ...

    async def read(self) -> Sequence[Chunk_co] | None: ...

    async def drain(self, *, seconds: float) -> None: ...


class Reader(Protocol[Chunk_contra]):
    """What one dialect makes of its chunks. `ending`: a finish reason has come; `complete`: nothing can follow."""

    @property
    def ending(self) -> bool: ...

    @property
    def complete(self) -> bool: ...

    def read(self, chunk: Chunk_contra) -> Iterable[Event]: ...

    def finished(self, *, malformed_chunks: int) -> Finished: ...


async def events(
    chunks: Chunks[Chunk], reader: Reader[Chunk], *, max_answer_bytes: int = MAX_ANSWER_BYTES, merged: bool = False
) -> AsyncGenerator[Event, None]:
    """As `bursts`, one by one."""
    async with aclosing(bursts(chunks, reader, max_answer_bytes=max_answer_bytes, merged=merged)) as together:
        async for burst in together:
            for event in burst:
                yield event


async def bursts(
    chunks: Chunks[Chunk], reader: Reader[Chunk], *, max_answer_bytes: int = MAX_ANSWER_BYTES, merged: bool = False
) -> AsyncGenerator[Sequence[Event], None]:
    """Yield the events of one answer, those that came together at once, `Finished` last and alone; `merged`: pieces of
    text that came together as one.

    Raises MalformedAnswer for a stream without a single readable chunk, TruncatedAnswer for one without a finish
    reason, AnswerTooLarge, FirstTokenTimeout, Stalled, and what the vendor reports inside the stream.
    """
    size = 0
    broken = False
    started = False
    complete = False
    while not complete:
        try:
            together = await (within(USAGE_GRACE, chunks.read()) if reader.ending else chunks.read())
        except (TimeoutError, ProviderError) as error:
            if reader.ending:  # the answer is whole; only its usage or `[DONE]` is not coming any more
                broken = True
                break
            if isinstance(error, Stalled) and not started:
                raise FirstTokenTimeout("it answered, but no token came.") from error
            raise
        if together is None:
            break
        burst: list[Event] = []
        failure: ProviderError | None = None
        try:
            for chunk in together:
                for event in reader.read(chunk):
                    burst.append(event)
                    size += _size(event)
                    if size > max_answer_bytes:
                        burst.pop()
                        raise _too_large(max_answer_bytes)
                complete = reader.complete
                if complete:
                    break
        except ProviderError as error:
            failure = error
        if burst:
            started = True
            yield _merged(burst) if merged else burst
        if failure is not None:
            raise failure
    if not reader.ending:
        raise _endless(seen=chunks.seen)
    yield (reader.finished(malformed_chunks=chunks.malformed),)
    if not broken:
        await chunks.drain(seconds=DRAIN)


def whole(answer: Chunk, reader: Reader[Chunk], *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> Iterator[Event]:
    """As `events`, for an answer that came in one piece, which a dialect reads like a chunk that says everything."""
    size = 0
    for event in reader.read(answer):
        size += _size(event)
        if size > max_answer_bytes:
            raise _too_large(max_answer_bytes)
        yield event
    if not reader.ending:
        raise _endless(seen=size)
    yield reader.finished(malformed_chunks=0)


def _merged(burst: Sequence[Event]) -> list[Event]:
    """The same with neighbouring pieces of text as one."""
    merged: list[Event] = []
    for is_text, run in groupby(burst, key=_is_mere_text):
        if is_text:
            merged.append(TextDelta("".join(event.text for event in run)))  # type: ignore[union-attr]
        else:
            merged += run
    return merged


def _is_mere_text(event: Event) -> bool:
    return isinstance(event, TextDelta) and event.logprobs is None


def _too_large(max_answer_bytes: int) -> AnswerTooLarge:
    return AnswerTooLarge(f"the answer is larger than {max_answer_bytes} bytes.")


def _endless(*, seen: int) -> MalformedAnswer:
    """For an answer without a finish reason, of which `seen` says whether anything could be read."""
    if not seen:
        return MalformedAnswer("the answer is empty or cannot be read.")
    return TruncatedAnswer("the answer ended without a finish reason.")


def _size(event: Event) -> int:
    if type(event) is TextDelta:  # nearly every one
        return _bytes(event.text)
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text):
            return _bytes(text)
        case ToolCallDelta(arguments=text, extra=extra):
            return _bytes(text) + (len(json.dumps(extra)) if extra else 0)
        case Finished():
            return 0


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
