"""OpenAI, and every vendor that speaks its dialect, over the openai library.

The library does authentication, addresses and the request; the answer's bytes are read by us, because the library gives
up a whole answer for one unreadable chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any, cast

import openai
import openai.resources.chat.completions  # otherwise imported at the first call, on the event loop

from providers.adapters import boundary, reading
from providers.adapters.base import ProviderConfig
from providers.adapters.dialects import openai as dialect
from providers.adapters.sdk.http import GuardedClient
from providers.adapters.sse import JsonEvents
from providers.values import ChatRequest, Event

#: For vendors that need no key (Ollama): without any, the library would look for OpenAI's in the environment.
_NO_KEY = "none"


class OpenAIAdapter:
    """Options, besides those of the dialect: `probe_path` (default `/models`), `max_answer_bytes`."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._client = openai.AsyncOpenAI(
            api_key=config.api_key or _NO_KEY,
            base_url=config.base_url or "https://api.openai.com/v1",
            max_retries=0,
            timeout=config.timeouts.total,  # told to the vendor; what holds are the client's own limits
            default_headers=config.headers,
            http_client=GuardedClient(config),
        )
        # Read from OPENAI_ORG_ID and OPENAI_PROJECT_ID, they would go to every vendor; `headers` can set them for one
        self._client.organization = self._client.project = None

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        options = self.config.options
        body = dialect.body(request, options=options)
        create = cast("Any", self._client.chat.completions.with_streaming_response.create)
        with boundary.only_our_errors(self.config):
            async with create(
                model=body.pop("model"), messages=body.pop("messages"), stream=body.pop("stream"), extra_body=body
            ) as response:
                answer = reading.events(
                    JsonEvents(partial(anext, response.iter_bytes(), None)),
                    dialect.ChunkReader(options=options),
                    max_answer_bytes=options.get("max_answer_bytes", reading.MAX_ANSWER_BYTES),
                )
                async with aclosing(answer):
                    async for event in answer:
                        yield event

    async def probe(self) -> None:
        with boundary.only_our_errors(self.config):
            await self._client.get(self.config.options.get("probe_path", "/models"), cast_to=object)

    async def aclose(self) -> None:
        await self._client.close()
