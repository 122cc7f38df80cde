"""A stored answer, given once more, whole or as a stream: from the row alone; nothing is called, nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from chat.models import Interaction
from providers.values import Event, Finished, FinishReason, Json, ReasoningDelta, TextDelta, ToolCallDelta

#: The header of every response that was not made for its own request.
REPLAYED: Final = "Idempotent-Replayed"


def pieces(
    *, reasoning: str, text: str, tool_calls: Iterable[tuple[int, Mapping[str, Json]]], logprobs: Json = None
) -> Iterator[Event]:
    """What was said, in as few events as it can have. `tool_calls`: in OpenAI's shape, with their indexes."""
    if reasoning:
        yield ReasoningDelta(reasoning)
    if text or logprobs is not None:
        yield TextDelta(text, logprobs=logprobs)
    for index, call in tool_calls:
        function = call["function"]
        yield ToolCallDelta(
            index=index,
            id=call["id"] or None,
            name=function["name"] or None,
            arguments=function["arguments"],
            extra={name: value for name, value in call.items() if name not in {"id", "type", "function"}},
        )


def events_of(row: Interaction) -> Iterator[Event]:
    """The stream that ends in this row."""
    yield from pieces(reasoning=row.reasoning, text=row.response, tool_calls=enumerate(row.tool_calls))
    yield Finished(reason=FinishReason(row.finish_reason))


class Replay:
    """A reader of a stored success: what `engine.Reader` is for a call under way."""

    def __init__(self, row: Interaction) -> None:
        self.interaction = row
        self.headers: Mapping[str, str] = {REPLAYED: "true"}
        # What only the provider's own response has is not on record.
        self.logprobs: list[Json] = []
        self.extra: dict[str, Any] = {}

    async def whole(self) -> Interaction:
        return self.interaction

    async def next_events(self) -> Sequence[Event]:
        return list(events_of(self.interaction))

    def nudge(self) -> None:
        """Nothing of it has to be waited for."""

    def abandon(self) -> None:
        """There is nothing to stop."""
