"""Gemini over the google-genai library, its developer API with a key.

The library reads the answer itself and breaks on the first unreadable event, so that our client hands it only readable
ones, and it retries failed connections by itself unless it is given a client: both are why it gets ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import uuid4

import httpx2
from google import genai
from google.genai import types

from providers.adapters import boundary, classify, reading
from providers.adapters.base import ProviderConfig
from providers.adapters.sdk import gemini_content
from providers.adapters.sdk.http import TLS, GuardedClient
from providers.adapters.sse import JsonEvents
from providers.errors import ContentRefused, InvalidRequest, MalformedAnswer
from providers.values import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

_REASONS: Final = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    "FUNCTION_CALL": FinishReason.TOOL_CALLS,  # of emulators; Google says STOP
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "ESCALATION",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        FinishReason.CONTENT_FILTER,
    ),
}


@dataclass(slots=True)
class _Call:
    """What the library does not hand through: the answer's events as they really came, and their connection."""

    events: JsonEvents | None = None
    response: httpx2.Response | None = None


#: The call that the client below works for: the library passes nothing of ours on to it.
_current: ContextVar[_Call] = ContextVar("gemini_call")


class _ReadableClient(GuardedClient):
    async def send(self, request: httpx2.Request, *, stream: bool = False, **kwargs: object) -> httpx2.Response:
        response = await super().send(request, stream=stream, **kwargs)
        if stream:
            _current.get().response = response
        return response

    def clean(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        call = _current.get(None)
        if call is None:
            return chunks  # a list of models
        call.events = JsonEvents(partial(anext, chunks, None))
        return _readable(call.events)


async def _readable(events: JsonEvents) -> AsyncIterator[bytes]:
    """The readable events, without an `"error": null`, on which the library breaks too."""
    while (together := await events.read()) is not None:
        for event in together:
            if error := event.pop("error", None):
                raise classify.from_object({"error": error})
            yield b"data: " + json.dumps(event).encode() + b"\n\n"


class _Chunks:
    """The library's answer in the shape that `reading` wants."""

    def __init__(self, answer: AsyncIterator[types.GenerateContentResponse], call: _Call) -> None:
        self._answer = answer
        self._call = call
        self.seen = 0

    @property
    def malformed(self) -> int:
        return self._call.events.malformed if self._call.events else 0

    async def read(self) -> list[types.GenerateContentResponse] | None:
        token = _current.set(self._call)
        try:
            chunk = await anext(self._answer, None)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # what the library stumbles with
            if self._call.response is None:
                raise InvalidRequest(f"the request cannot be put in Gemini's terms: {error}") from error
            raise MalformedAnswer("a part of the answer is not of the shape that Gemini promises.") from error
        finally:
            _current.reset(token)
        if chunk is None:
            return None
        self.seen += 1
        return [chunk]

    async def drain(self, *, seconds: float) -> None:
        if self._call.events is not None:
            await self._call.events.drain(seconds=seconds)


class _Reader:
    """What the chunks of one answer mean. Gemini sends whole tool calls, and usage with every chunk."""

    def __init__(self) -> None:
        self.ending = False
        self._raw_reason: str | None = None
        self._usage: types.GenerateContentResponseUsageMetadata | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._calls = 0

    @property
    def complete(self) -> bool:
        return self.ending and self._usage is not None

    def read(self, chunk: types.GenerateContentResponse) -> Iterator[Event]:
        self._usage = chunk.usage_metadata or self._usage
        self._model = chunk.model_version or self._model
        self._id = chunk.response_id or self._id
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason and not chunk.candidates:
            word = str(feedback.block_reason.value)
            raise ContentRefused(
                feedback.block_reason_message or f"the prompt was blocked ({word}).", upstream_code=word
            )
        for candidate in (chunk.candidates or ())[:1]:
            for part in (candidate.content.parts if candidate.content else None) or ():
                yield from self._part(part)
            if candidate.finish_reason:
                self._raw_reason = str(candidate.finish_reason.value)
                self.ending = True

    def finished(self, *, malformed_chunks: int) -> Finished:
        reason = _REASONS.get(self._raw_reason or "", FinishReason.UNKNOWN)
        return Finished(
            reason=FinishReason.TOOL_CALLS if self._calls and reason is FinishReason.STOP else reason,
            raw_reason=self._raw_reason,
            usage=_usage(self._usage) if self._usage else None,
            model=self._model,
            response_id=self._id,
            malformed_chunks=malformed_chunks,
        )

    def _part(self, part: types.Part) -> Iterator[Event]:
        if part.text:
            yield ReasoningDelta(part.text) if part.thought else TextDelta(part.text)
        if part.function_call is not None:
            call = part.function_call
            yield ToolCallDelta(
                index=self._calls,
                id=call.id or f"call_{uuid4().hex}",
                name=call.name,
                arguments=json.dumps(call.args or {}),
                extra=gemini_content.signed(part.thought_signature),
            )
            self._calls += 1


class GeminiAdapter:
    """Options: `api_version` (default `v1beta`: `v1` lacks the newest models), `max_answer_bytes`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._http = _ReadableClient(config)
        self._client = genai.Client(
            enterprise=False,  # said outright: otherwise the environment decides which of Google's products is called
            api_key=config.api_key or "none",
            http_options=types.HttpOptions(
                base_url=config.base_url,
                api_version=config.options.get("api_version", "v1beta"),
                headers=config.headers,
                httpx_async_client=self._http,
                # Never used, but without them the library reads the certificate authorities twice more, on the loop
                httpx_client=httpx2.Client(verify=TLS),
                async_client_args={"ssl": TLS},
            ),
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        call = _Call()
        with boundary.only_our_errors(self.config):
            try:
                contents, settings = _in_gemini_terms(request)
                answer = await self._client.aio.models.generate_content_stream(
                    model=request.model, contents=contents, config=settings
                )
                events = reading.events(
                    _Chunks(answer, call),
                    _Reader(),
                    max_answer_bytes=self.config.options.get("max_answer_bytes", reading.MAX_ANSWER_BYTES),
                )
                async with aclosing(events):
                    async for event in events:
                        yield event
            finally:
                if call.response is not None:
                    await call.response.aclose()

    async def probe(self) -> None:
        with boundary.only_our_errors(self.config):
            await self._client.aio.models.list(config={"page_size": 1})

    async def aclose(self) -> None:
        await self._http.aclose()


def _in_gemini_terms(request: ChatRequest) -> tuple[types.ContentListUnion, types.GenerateContentConfig]:
    try:
        return gemini_content.contents(request.messages), gemini_content.config(request)
    except ValueError as error:  # pydantic's: a value of the wrong kind in a tool or a schema
        raise InvalidRequest(f"the request cannot be put in Gemini's terms: {error}") from error


def _usage(reported: types.GenerateContentResponseUsageMetadata) -> Usage:
    """Gemini counts thoughts apart from the answer, and what tools put into the prompt apart from the prompt."""
    thoughts = reported.thoughts_token_count or 0
    return Usage(
        input_tokens=(reported.prompt_token_count or 0) + (reported.tool_use_prompt_token_count or 0),
        output_tokens=(reported.candidates_token_count or 0) + thoughts,
        cached_input_tokens=reported.cached_content_token_count or 0,
        reasoning_tokens=thoughts,
    )
