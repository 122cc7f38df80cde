"""Claude over the anthropic library.

The library does authentication, versions and the request; the answer's bytes are read by us, because the library gives
up a whole answer for one unreadable event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, cast

import anthropic
import anthropic.resources.messages  # otherwise imported at the first call, on the event loop

from providers.adapters import boundary, reading
from providers.adapters.base import ProviderConfig
from providers.adapters.dialects import anthropic as dialect
from providers.adapters.sdk.http import GuardedClient
from providers.adapters.sse import JsonEvents
from providers.values import ChatRequest, Event


class AnthropicAdapter:
    """Options: `max_tokens` (for calls that set none), `max_answer_bytes`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._client = anthropic.AsyncAnthropic(
            api_key=config.api_key or "none",  # without any, the library would look for one in the environment
            base_url=config.base_url or "https://api.anthropic.com",
            max_retries=0,
            timeout=config.timeouts.total,  # told to the vendor; what holds are the client's own limits
            default_headers=config.headers,
            http_client=GuardedClient(config),
        )

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        options = self.config.options
        create = cast("Any", self._client.messages.with_streaming_response.create)
        with boundary.only_our_errors(self.config):
            body = dialect.body(request, options=options)
            headers: dict[str, str | anthropic.Omit] = {**dialect.headers(body)}
            if headers:
                # The library signs in as the newest API version does; the older one is documented with this header
                headers |= {"x-api-key": self._client.api_key or "", "Authorization": anthropic.Omit()}
            known = {name: body.pop(name) for name in ("model", "max_tokens", "messages", "stream")}
            async with create(**known, extra_body=body, extra_headers=headers) as response:
                answer = reading.events(
                    JsonEvents(partial(anext, response.iter_bytes(), None)),
                    dialect.EventReader(),
                    max_answer_bytes=options.get("max_answer_bytes", reading.MAX_ANSWER_BYTES),
                )
                async with aclosing(answer):
                    async for event in answer:
                        yield event

    async def probe(self) -> None:
        with boundary.only_our_errors(self.config):
            await self._client.get("/v1/models?limit=1", cast_to=object)

    async def aclose(self) -> None:
        await self._client.close()
