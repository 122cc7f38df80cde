"""What simulated models do, in the events and errors of an adapter whose vendor does that.

Faults of the wire (half a chunk, an HTML page, silence) are shown as what a correct adapter makes of them. Limits that
are kept outside of adapters, on the time to the first token and between chunks, are not kept here: the model hangs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from providers.adapters.base import Timeouts
from providers.adapters.dialects import untrusted
from providers.adapters.reading import MAX_ANSWER_BYTES
from providers.errors import (
    AnswerTooLarge,
    FirstByteTimeout,
    InvalidRequest,
    Overloaded,
    ProviderError,
)
from providers.values import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    Json,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

_BYTES_PER_TOKEN: Final = 4
_PASSAGE: Final = (
    "The harbour wakes before the town does. Boats come in with the tide, gulls argue over the first crates, and "
    "someone always sings. By eight the market is loud, by noon it is empty, and only the smell of salt and rope "
    "is left to tell what the morning was worth. "
)
_THOUGHT: Final = "First I look at what is asked, then at what is known, and then I answer. "


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call under simulation. `count`: calls of this model name so far, this one included. `age`: seconds since the
    first of them. `parameters`: all of the fault's, from the name or by default."""

    id: str
    request: ChatRequest
    timeouts: Timeouts
    parameters: Mapping[str, float]
    count: int
    age: float

    def number(self, name: str) -> int:
        return int(self.parameters[name])


Behaviour = Callable[[Call], AsyncGenerator[Event, None]]
Refusal = Callable[[Call], ProviderError]


# --- Answers -------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Answer:
    """An answer in the making: hands out pieces, counts them, and knows how it has to end."""

    call: Call
    spoken: int = 0
    thought: int = 0
    cut_short: bool = False

    async def say(self, pieces: Iterable[str]) -> AsyncGenerator[Event, None]:
        """The pieces as text, as many as the request allows, each after the call's delay; without one, all at once."""
        limit, delay = self.call.request.max_tokens, self.call.parameters.get("delay", 0.0)
        for piece in pieces:
            if limit is not None and self.spoken >= limit:
                self.cut_short = True
                return
            if delay:
                await asyncio.sleep(delay)
            self.spoken += 1
            yield TextDelta(piece)

    def finished(self, **changes: Any) -> Finished:
        reason = FinishReason.LENGTH if self.cut_short else FinishReason.STOP
        settled: dict[str, Any] = {
            "reason": reason,
            "raw_reason": reason.value,
            "usage": Usage(
                input_tokens=_tokens_of(self.call.request),
                output_tokens=self.spoken + self.thought,
                reasoning_tokens=self.thought,
            ),
            "model": self.call.request.model,
            "response_id": self.call.id,
            **changes,
        }
        return Finished(**settled)


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\S+\s*", text)


def _passage(call: Call) -> Iterable[str]:
    return itertools.islice(itertools.cycle(_words(_PASSAGE)), call.number("tokens"))


def _tokens_of(request: ChatRequest) -> int:
    size = sum(len(message.text.encode(errors="replace")) for message in request.messages)
    return max(1, -(-size // _BYTES_PER_TOKEN))


def answering(**changes: Any) -> Behaviour:
    """Answers; `changes` are what is unusual in the last event."""

    async def play(call: Call) -> AsyncGenerator[Event, None]:
        answer = _Answer(call=call)
        async for event in answer.say(_passage(call)):
            yield event
        yield answer.finished(**changes)

    return play


ok: Final = answering()


async def echo(call: Call) -> AsyncGenerator[Event, None]:
    asked = next((message.text for message in reversed(call.request.messages) if message.role == "user"), "")
    answer = _Answer(call=call)
    async for event in answer.say(_words(asked)):
        yield event
    yield answer.finished()


async def reasoning(call: Call) -> AsyncGenerator[Event, None]:
    answer = _Answer(call=call)
    for word in _words(_THOUGHT):
        answer.thought += 1
        yield ReasoningDelta(word)
    async for event in answer.say(_passage(call)):
        yield event
    yield answer.finished()


async def tool_call(call: Call) -> AsyncGenerator[Event, None]:
    if call.request.messages[-1].role == "tool":  # it has what it wanted
        async for event in ok(call):
            yield event
        return
    name, arguments = _chosen_tool(call.request)
    yield ToolCallDelta(index=0, id=f"call_{call.id}", name=name)
    pieces = re.findall(r".{1,8}", json.dumps(arguments, ensure_ascii=False))
    for piece in pieces:
        yield ToolCallDelta(index=0, arguments=piece)
    answer = _Answer(call=call, spoken=1 + len(pieces))
    yield answer.finished(reason=FinishReason.TOOL_CALLS, raw_reason="tool_calls")


def _chosen_tool(request: ChatRequest) -> tuple[str, dict[str, Json]]:
    """The tool that the request insists on, else its first; and an argument for each property of its parameters."""
    functions = [untrusted.mapping(tool.get("function")) for tool in request.tools]
    named = {name: function for function in functions if (name := untrusted.text(function.get("name")))}
    if not named:
        return "get_weather", {"city": "Paris"}
    wanted = untrusted.text(untrusted.mapping(untrusted.mapping(request.tool_choice).get("function")).get("name"))
    name = wanted if wanted in named else next(iter(named))
    properties = untrusted.mapping(untrusted.mapping(named[name].get("parameters")).get("properties"))
    return name, {argument: _example(untrusted.mapping(schema)) for argument, schema in properties.items()}


def _example(schema: Mapping[str, Json]) -> Json:
    """A value for `schema`: the first of its enumeration, or one of the first of its types."""
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"type": str(kind)} | {"type": [str(kind), *_]}:
            return _EXAMPLES.get(kind)
        case _:
            return _EXAMPLES["string"]


_EXAMPLES: Final[dict[str, Json]] = {
    "string": "Paris",
    "integer": 3,
    "number": 3.5,
    "boolean": True,
    "array": [],
    "object": {},
}


# --- Faults --------------------------------------------------------------------------------------------------------


def refusing(refusal: Refusal, *, times: int | None = None) -> Behaviour:
    """Refuses the first `times` calls, or all, and answers the others."""

    async def play(call: Call) -> AsyncGenerator[Event, None]:
        if times is None or call.count <= times:
            raise refusal(call)
        async for event in ok(call):
            yield event

    return play


def breaking(refusal: Refusal) -> Behaviour:
    """Says a part of the answer first."""

    async def play(call: Call) -> AsyncGenerator[Event, None]:
        async for event in _Answer(call=call).say(itertools.islice(_passage(call), call.number("after"))):
            yield event
        raise refusal(call)

    return play


async def silence(call: Call) -> AsyncGenerator[Event, None]:
    async for event in _Answer(call=call).say(()):
        yield event
    await asyncio.sleep(call.timeouts.first_byte)
    raise FirstByteTimeout(f"No response within {call.timeouts.first_byte:g} seconds.")


async def slow_first_token(call: Call) -> AsyncGenerator[Event, None]:
    await asyncio.sleep(call.parameters["wait"])
    async for event in ok(call):
        yield event


async def stall(call: Call) -> AsyncGenerator[Event, None]:
    async for event in _Answer(call=call).say(itertools.islice(_passage(call), call.number("after"))):
        yield event
    await asyncio.Event().wait()


async def down(call: Call) -> AsyncGenerator[Event, None]:
    if call.age < call.parameters["seconds"]:
        raise Overloaded("The server is down for maintenance.", upstream_status=503)
    async for event in ok(call):
        yield event


async def refuses_prefill(call: Call) -> AsyncGenerator[Event, None]:
    if call.request.messages[-1].role == "assistant":
        raise InvalidRequest("The last message must not be the assistant's.", upstream_status=400)
    async for event in ok(call):
        yield event


async def huge(call: Call) -> AsyncGenerator[Event, None]:
    piece = _PASSAGE * 256
    for _ in range(MAX_ANSWER_BYTES // len(piece)):
        await asyncio.sleep(0)
        yield TextDelta(piece)
    raise AnswerTooLarge(f"The answer is larger than {MAX_ANSWER_BYTES} bytes.")


async def invalid_utf8(call: Call) -> AsyncGenerator[Event, None]:
    answer = _Answer(call=call)
    async for event in answer.say(itertools.chain(("Caf\N{REPLACEMENT CHARACTER} ",), _passage(call))):
        yield event
    yield answer.finished(malformed_chunks=1)
