"""Anthropic's messages: the request's body out of OpenAI-shaped messages, and what the events of an answer mean.

Tuning that Anthropic does not know (seed, penalties, `extra`) is left out; content that it does not know is refused.

Sampling (temperature, top_p) is known only to models up to 4.6, and only under API version 2023-06-01: the version of
2026-10-21 and every later model answer 400 to a request that so much as names it. `headers` says what a body needs.

Protocol: https://platform.claude.com/docs/en/build-with-claude/streaming,
https://platform.claude.com/docs/en/api/migration-2026-10-21
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from providers.adapters import classify
from providers.adapters.dialects import openai_shape, untrusted
from providers.errors import InvalidRequest
from providers.values import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    Json,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

#: Anthropic demands a limit, reasoning included; this is the one for callers who set none (option `max_tokens`).
DEFAULT_MAX_TOKENS: Final = 16_384
NEWEST_VERSION: Final = "2026-10-21"
#: The API version that still takes sampling parameters, and the last model that does.
SAMPLING_VERSION: Final = "2023-06-01"
_LAST_WITH_SAMPLING: Final = (4, 6)
#: `claude-sonnet-4-5-20250929`, `claude-3-5-haiku-latest`: the version stands before or after the family's name.
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(?P<major>\d+)(?:-(?P<minor>\d{1,2}))?(?=-|$)")
_REASONS: Final = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


def body(request: ChatRequest, *, options: Mapping[str, Any], stream: bool = True) -> dict[str, Json]:
    """The JSON of a call. Raises InvalidRequest for content that cannot be said in this dialect."""
    choice = _tool_choice(request)
    known = {
        "system": openai_shape.system_prompt(request.messages, vendor="Anthropic"),
        **_sampling(request),
        "stop_sequences": list(request.stop) or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": choice if request.tools else None,
        "output_config": _output_config(request.response_format),
    }
    return {
        "model": request.model,
        "max_tokens": options.get("max_tokens", DEFAULT_MAX_TOKENS)
        if request.max_tokens is None
        else request.max_tokens,
        "messages": [
            {"role": side, "content": blocks} for side, blocks in openai_shape.turns(request.messages, _blocks)
        ],
        "stream": stream,
        **{name: value for name, value in known.items() if value is not None},
    }


def headers(body: Mapping[str, Json]) -> dict[str, str]:
    """Headers that `body` needs beyond the usual ones."""
    return {"anthropic-version": SAMPLING_VERSION} if body.keys() & {"temperature", "top_p"} else {}


def _sampling(request: ChatRequest) -> dict[str, float | None]:
    """At most one of the two, because models refuse both together; OpenAI's scale goes to 2, Anthropic's to 1."""
    version = _VERSION.search(request.model)
    if version is None or (int(version["major"]), int(version["minor"] or 0)) > _LAST_WITH_SAMPLING:
        return {}
    if request.temperature is not None:
        return {"temperature": min(request.temperature, 1.0)}
    return {"top_p": request.top_p}


def _blocks(message: Message) -> Iterator[dict[str, Json]]:
    said = [_block(part) for part in openai_shape.content(message, vendor="Anthropic")]
    if message.role == "tool":
        yield {"type": "tool_result", "tool_use_id": message.tool_call_id, **({"content": said} if said else {})}
        return
    yield from said
    for call in openai_shape.tool_calls(message):
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}


def _block(part: str | openai_shape.Image) -> dict[str, Json]:
    match part:
        case str(text):
            return {"type": "text", "text": text}
        case openai_shape.Image(data=str(data), media_type=media_type):
            return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}
        case openai_shape.Image(url=url) if url.startswith("https://"):
            return {"type": "image", "source": {"type": "url", "url": url}}
        case _:
            raise InvalidRequest("Images are taken as https: addresses or as base64 data: URLs.")


def _tool(tool: Mapping[str, Json]) -> dict[str, Json]:
    function = openai_shape.function(tool, vendor="Anthropic")
    described = {"description": function["description"]} if function.get("description") else {}
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    return {"name": function.get("name"), **described, "input_schema": schema}


def _tool_choice(request: ChatRequest) -> dict[str, Json] | None:
    single = request.extra.get("parallel_tool_calls") is False
    match request.tool_choice:
        case None:
            choice: dict[str, Json] | None = {"type": "auto"} if single else None
        case "auto":
            choice = {"type": "auto"}
        case "required":
            choice = {"type": "any"}
        case "none":
            return {"type": "none"}
        case {"type": "function", "function": {"name": str(name)}}:
            choice = {"type": "tool", "name": name}
        case other:
            raise InvalidRequest(f"tool_choice {other!r} is not known.")
    return {**choice, "disable_parallel_tool_use": True} if choice and single else choice


def _output_config(response_format: Mapping[str, Json] | None) -> dict[str, Json] | None:
    match response_format:
        case None | {"type": "text"}:
            return None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"format": {"type": "json_schema", "schema": schema}}
        case _:
            raise InvalidRequest("Anthropic's models give JSON only by a schema: use response_format json_schema.")


class EventReader:
    """The events of one answer. Tool calls are numbered as they begin, among themselves."""

    def __init__(self) -> None:
        self.ending = False
        self.complete = False
        self._usage: dict[str, Json] = {}
        self._reason: str | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._calls: dict[int | None, int] = {}
        self._without_arguments: set[int] = set()
        self._extra: dict[str, Json] = {}

    def read(self, event: dict[str, Json]) -> Iterator[Event]:
        """Yield what one vendor event gives; raises what an error event means."""
        match event.get("type"):
            case "error":
                raise classify.from_object(event)
            case "message_start":
                self._begin_message(untrusted.mapping(event.get("message")))
            case "message":
                yield from self._whole(event)
            case "content_block_start":
                yield from self._begin(
                    untrusted.index(event.get("index")), untrusted.mapping(event.get("content_block"))
                )
            case "content_block_delta":
                yield from self._piece(untrusted.index(event.get("index")), untrusted.mapping(event.get("delta")))
            case "content_block_stop":
                yield from self._end_block(untrusted.index(event.get("index")))
            case "message_delta":
                self._end(event)
            case _ if event.get("error"):
                raise classify.from_object(event)
            case _:
                pass  # pings, the stop of the message, and kinds of events that did not exist when this was written

    def _begin_message(self, message: Mapping[str, Json]) -> None:
        self._model = untrusted.text(message.get("model")) or None
        self._id = untrusted.text(message.get("id")) or None
        self._take_usage(message.get("usage"))

    def _whole(self, message: Mapping[str, Json]) -> Iterator[Event]:
        """An answer that was not streamed: what its blocks would have given, and then its end."""
        self._begin_message(message)
        for place, block in enumerate(untrusted.mappings(message.get("content"))):
            yield from self._begin(place, block)
            yield from self._end_block(place)
        self._end({"delta": message})

    def finished(self, *, malformed_chunks: int) -> Finished:
        return Finished(
            reason=_REASONS.get(self._reason or "", FinishReason.UNKNOWN),
            raw_reason=self._reason,
            usage=_usage(self._usage) if self._usage else None,
            model=self._model,
            response_id=self._id,
            malformed_chunks=malformed_chunks,
            extra=self._extra,
        )

    def _begin(self, index: int | None, block: Mapping[str, Json]) -> Iterator[Event]:
        match block.get("type"):
            case "text" if text := untrusted.text(block.get("text")):
                yield TextDelta(text)
            case "thinking" if text := untrusted.text(block.get("thinking")):
                yield ReasoningDelta(text)
            case "tool_use":
                place = self._calls[index] = len(self._calls)
                given = block.get("input")
                if not given:
                    self._without_arguments.add(place)
                yield ToolCallDelta(
                    index=place,
                    id=untrusted.text(block.get("id")) or None,
                    name=untrusted.text(block.get("name")) or None,
                    arguments=json.dumps(given) if given else "",
                )

    def _piece(self, index: int | None, delta: Mapping[str, Json]) -> Iterator[Event]:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                yield TextDelta(text)
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                yield ReasoningDelta(text)
            case {"type": "input_json_delta", "partial_json": str(text)} if text and index in self._calls:
                place = self._calls[index]
                self._without_arguments.discard(place)
                yield ToolCallDelta(index=place, arguments=text)

    def _end_block(self, index: int | None) -> Iterator[Event]:
        place = self._calls.get(index)
        if place in self._without_arguments:
            self._without_arguments.discard(place)
            yield ToolCallDelta(index=place, arguments="{}")  # a call without arguments is still JSON

    def _end(self, event: Mapping[str, Json]) -> None:
        self._take_usage(event.get("usage"))
        delta = untrusted.mapping(event.get("delta"))
        self._extra |= {name: delta[name] for name in ("stop_sequence", "stop_details") if delta.get(name) is not None}
        if reason := delta.get("stop_reason"):
            self._reason = str(reason)
            self.ending = self.complete = True  # reason and usage come together; only `message_stop` follows

    def _take_usage(self, usage: Json) -> None:
        """Later figures are cumulative and replace earlier ones, except where they are left out."""
        self._usage |= {name: value for name, value in untrusted.mapping(usage).items() if value is not None}
        if "service_tier" in self._usage:
            self._extra["service_tier"] = self._usage["service_tier"]


def _usage(reported: Mapping[str, Json]) -> Usage:
    """Anthropic counts what it read from and wrote to its cache apart from the input; we count all of it as input."""
    read, written = (
        untrusted.count(reported.get("cache_read_input_tokens")),
        untrusted.count(reported.get("cache_creation_input_tokens")),
    )
    return Usage(
        input_tokens=untrusted.count(reported.get("input_tokens")) + read + written,
        output_tokens=untrusted.count(reported.get("output_tokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=untrusted.count(
            untrusted.mapping(reported.get("output_tokens_details")).get("thinking_tokens")
        ),
    )
