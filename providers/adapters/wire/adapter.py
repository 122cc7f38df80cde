"""What all vendors spoken to over our own connections have in common: ask, read, let go. Vendors say what differs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import field

from llmchat.lib.frozen import dataclass
from providers.adapters import boundary, reading
from providers.adapters.base import ProviderConfig
from providers.adapters.sse import JsonEvents, parse_object
from providers.adapters.wire.client import Answer, Client
from providers.errors import FirstTokenTimeout, MalformedAnswer, Stalled
from providers.values import ChatRequest, Event, Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One call as it goes out, and the reader of what comes back. A header that is None is not sent."""

    path: str
    body: Json
    reader: reading.Reader[dict[str, Json]]
    headers: Mapping[str, str | None] = field(default_factory=dict)


class WireAdapter(ABC):
    """Option of all: `max_answer_bytes`."""

    #: Where the vendor is, for providers that name no address, and what a probe asks for.
    base_url: str
    probe_path: str

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._max_answer_bytes: int = config.options.get("max_answer_bytes", reading.MAX_ANSWER_BYTES)
        with boundary.only_our_errors(config):
            self._client = Client(config, base_url=self.base_url, headers=self.credentials(config))

    @staticmethod
    @abstractmethod
    def credentials(config: ProviderConfig) -> dict[str, str]:
        """The headers that sign in to the vendor."""

    @abstractmethod
    def question(self, request: ChatRequest, *, stream: bool) -> Question:
        """What to send for `request`, to be answered in pieces if `stream`.

        Raises InvalidRequest for content that cannot be said in the vendor's dialect.
        """

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        async with aclosing(self.bursts(request)) as together:
            async for burst in together:
                for event in burst:
                    yield event

    async def bursts(self, request: ChatRequest) -> AsyncGenerator[Sequence[Event], None]:
        with boundary.only_our_errors(self.config):
            question = self.question(request, stream=not self._wants_one_piece(request))
            answer = await self._client.post(question.path, question.body, headers=question.headers)
            try:
                if answer.is_whole:  # not only when asked for: some servers know no streams
                    body = await _object(answer)
                    *pieces, last = reading.whole(body, question.reader, max_answer_bytes=self._max_answer_bytes)
                    if pieces:
                        yield pieces
                    yield (last,)
                    return
                together = reading.bursts(
                    JsonEvents(answer.chunk),
                    question.reader,
                    max_answer_bytes=self._max_answer_bytes,
                    merged=request.whole,
                )
                async with aclosing(together):
                    async for burst in together:
                        yield burst
            finally:
                answer.close()

    async def probe(self) -> None:
        with boundary.only_our_errors(self.config):
            await self._client.get(self.config.options.get("probe_path", self.probe_path))

    async def aclose(self) -> None:
        await self._client.aclose()

    def _wants_one_piece(self, request: ChatRequest) -> bool:
        """Only of answers that are short or quick: the silence in which a long one is made looks like a fault."""
        limit = self.config.whole_tokens
        return (
            request.whole
            and limit > 0
            and (request.quick or (request.max_tokens is not None and request.max_tokens <= limit))
        )


async def _object(answer: Answer) -> dict[str, Json]:
    try:
        body = await answer.whole()
    except Stalled as error:
        raise FirstTokenTimeout("it answered, but no token came.") from error
    value, _ = parse_object(body)
    if value is None:
        raise MalformedAnswer("the answer is empty or cannot be read.")
    return value
