"""A stored answer, given once more, whole or as a stream: from the row alone; nothing is called, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from chat.models import Interaction
from providers.values import Event, Finished, FinishReason, Json, ReasoningDelta, TextDelta, ToolCallDelta

#: The header of every response that was not made for its own request.
REPLAYED: Final = "Idempotent-Replayed"


def events_of(row: Interaction) -> Iterator[Event]:
    """The stream that ends in this row, in as few events as it can have."""
    if row.reasoning:
        yield ReasoningDelta(row.reasoning)
    if row.response:
        yield TextDelta(row.response)
    for index, call in enumerate(row.tool_calls):
        function = call["function"]
        yield ToolCallDelta(
            index=index,
            id=call["id"],
            name=function["name"],
            arguments=function["arguments"],
            extra={name: value for name, value in call.items() if name not in {"id", "type", "function"}},
        )
    yield Finished(reason=FinishReason(row.finish_reason))


class Replay:
    """A reader of a stored success: what `engine.Reader` is for a call under way."""

    def __init__(self, row: Interaction) -> None:
        self.interaction = row
        self.headers: Mapping[str, str] = {REPLAYED: "true"}
        # What only the provider's own response has is not on record.
        self.logprobs: list[Json] = []
        self.extra: dict[str, Any] = {}
        self._events = events_of(row)

    async def whole(self) -> Interaction:
        return self.interaction

    async def next_event(self) -> Event:
        return next(self._events)

    def abandon(self) -> None:
        """There is nothing to stop."""
