"""Gemini over the google-genai library, its developer API with a key.

The library reads the answer itself and breaks on the first unreadable event, so that our client hands it only readable
ones, and it retries failed connections by itself unless it is given a client: both are why it gets ours.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial

import httpx2
from google import genai
from google.genai import types

from providers.adapters import boundary, classify, reading
from providers.adapters.base import ProviderConfig
from providers.adapters.dialects import gemini as dialect
from providers.adapters.sdk.http import TLS, GuardedClient
from providers.adapters.sse import JsonEvents
from providers.errors import InvalidRequest, MalformedAnswer
from providers.values import ChatRequest, Event, Json


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

    async def read(self) -> list[dict[str, Json]] | None:
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
        return [
            chunk.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"sdk_http_response", "parsed"})
        ]

    async def drain(self, *, seconds: float) -> None:
        if self._call.events is not None:
            await self._call.events.drain(seconds=seconds)


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
                contents, settings = _in_googles_types(dialect.body(request))
                answer = await self._client.aio.models.generate_content_stream(
                    model=request.model, contents=contents, config=settings
                )
                events = reading.events(
                    _Chunks(answer, call),
                    dialect.ChunkReader(),
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


def _in_googles_types(body: dict[str, Json]) -> tuple[types.ContentListUnion, types.GenerateContentConfig]:
    """The dialect's JSON as the library wants it; by way of JSON, because only there does it take bytes as base64."""
    told = {name: body[name] for name in ("systemInstruction", "tools", "toolConfig") if name in body}
    settings = {
        **told,
        **body.get("generationConfig", {}),
        # The library would call functions and ask for continuations by itself: calls that nobody recorded
        "automaticFunctionCalling": {"disable": True},
        "automaticContinuation": False,
    }
    try:
        return (
            [types.Content.model_validate_json(json.dumps(content)) for content in body["contents"]],
            types.GenerateContentConfig.model_validate_json(json.dumps(settings)),
        )
    except ValueError as error:  # pydantic's: a value of the wrong kind in a tool or a schema
        raise InvalidRequest(f"the request cannot be put in Gemini's terms: {error}") from error
