"""OpenAI's chat completions and their many speakers: the request's body, and what the chunks of an answer mean.

Differences between vendors are `ProviderConfig.options`:

    max_tokens_field   "max_tokens" (default), or "max_completion_tokens" for OpenAI's newer models
    stream_usage       False when the vendor refuses `stream_options`
    reports_cost       True to ask for the vendor's own price of the call (OpenRouter)
    reasoning_field    where reasoning stands in a delta; default: whichever of the known two is there
    developer_role     what the role `developer` is called; "system" for vendors that do not know it

Protocol: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from providers.adapters import classify
from providers.adapters.dialects import untrusted
from providers.errors import Overloaded, ServerFault
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

_REASONS: Final = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,  # Together
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
#: Fields of a chunk that OpenAI-compatible answers repeat; OpenRouter's `provider` is the one that it chose.
_KEPT_FIELDS: Final = ("system_fingerprint", "service_tier", "provider")

#: Fields of a tool call that the vendor wants back with it; Google's endpoint signs calls there.
_KEPT_CALL_FIELDS: Final = ("extra_content",)


def body(request: ChatRequest, *, options: Mapping[str, Any], stream: bool = True) -> dict[str, Json]:
    """The JSON of a call. What we know goes over what `request.extra` says under the same name."""
    sent: dict[str, Json] = {
        **request.extra,
        "model": request.model,
        "messages": [
            _message(message, developer=options.get("developer_role", "developer")) for message in request.messages
        ],
        "stream": stream,
    }
    known = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        options.get("max_tokens_field", "max_tokens"): request.max_tokens,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "stop": list(request.stop) or None,
        "tools": list(request.tools) or None,
        "tool_choice": request.tool_choice,
        "response_format": request.response_format,
    }
    sent |= {name: value for name, value in known.items() if value is not None}
    if stream and options.get("stream_usage", True):
        sent["stream_options"] = {**untrusted.mapping(request.extra.get("stream_options")), "include_usage": True}
    else:
        sent.pop("stream_options", None)
    if options.get("reports_cost"):
        sent["usage"] = {"include": True}
    return sent


def _message(message: Message, *, developer: str) -> dict[str, Json]:
    sent: dict[str, Json] = {"role": developer if message.role == "developer" else message.role}
    content = message.content
    sent["content"] = content if content is None or isinstance(content, str) else list(content)
    if message.name is not None:
        sent["name"] = message.name
    if message.tool_calls:
        sent["tool_calls"] = list(message.tool_calls)
    if message.tool_call_id is not None:
        sent["tool_call_id"] = message.tool_call_id
    return sent


class ChunkReader:
    """The chunks of one answer, of which only the first choice is read. A whole answer is one chunk that says all."""

    def __init__(self, *, options: Mapping[str, Any]) -> None:
        self.ending = False
        self._usage: dict[str, Json] | None = None
        self._reason: str | None = None
        self._model: str | None = None
        self._id: str | None = None
        self._kept: dict[str, Json] = {}
        self._calls = _CallOrder()
        self._around: dict[str, Json] | None = None
        named = options.get("reasoning_field")
        self._reasoning_fields = (named,) if named else ("reasoning_content", "reasoning")

    @property
    def complete(self) -> bool:
        return self.ending and self._usage is not None

    def read(self, chunk: dict[str, Json]) -> Iterable[Event]:
        """The events of one chunk; raises what an error object in it means. What is around the choices is looked at
        when it is not what it was around the last ones."""
        choices = chunk.pop("choices", None)
        if chunk != self._around:
            self._read_around(chunk)
            self._around = chunk
        if type(choices) is list and len(choices) == 1 and (text := _mere_text(choices[0])) is not None:
            return (text,)
        return self._choices(choices)

    def _read_around(self, chunk: dict[str, Json]) -> None:
        if chunk.get("error"):
            raise classify.from_object(chunk)
        self._model = untrusted.text(chunk.get("model")) or self._model
        self._id = untrusted.text(chunk.get("id")) or self._id
        for name in _KEPT_FIELDS:
            if (value := chunk.get(name)) is not None:
                self._kept[name] = value
        # Groq reports under its own name
        usage = chunk.get("usage") or untrusted.mapping(chunk.get("x_groq")).get("usage")
        if isinstance(usage, dict):
            self._usage = usage

    def _choices(self, choices: Json) -> Iterator[Event]:
        for choice in untrusted.mappings(choices):
            if not choice.get("index"):
                yield from self._choice(choice)

    def finished(self, *, malformed_chunks: int) -> Finished:
        return Finished(
            reason=_REASONS.get(self._reason or "", FinishReason.UNKNOWN),
            raw_reason=self._reason,
            usage=_usage(self._usage) if self._usage else None,
            model=self._model,
            response_id=self._id,
            cost_usd=_cost(self._usage) if self._usage else None,
            malformed_chunks=malformed_chunks,
            extra=self._kept,
        )

    def _choice(self, choice: Mapping[str, Json]) -> Iterator[Event]:
        if choice.get("error"):  # OpenRouter
            raise classify.from_object(choice)
        delta = untrusted.mapping(choice.get("delta") or choice.get("message"))
        logprobs = choice.get("logprobs")
        content = untrusted.text(delta.get("content"))
        yield from self._delta(delta, content, logprobs)
        reason = choice.get("finish_reason")
        if not reason:
            return
        if reason == "error":
            raise ServerFault("it broke the answer off with an error.", upstream_code=reason)
        if reason == "insufficient_system_resource":  # DeepSeek
            raise Overloaded("it broke the answer off for want of capacity.", upstream_code=reason)
        if isinstance(reason, str):
            self._reason = reason
            self.ending = True

    def _delta(self, delta: Mapping[str, Json], content: str, logprobs: Json) -> Iterator[Event]:
        for name in self._reasoning_fields:
            if text := untrusted.text(delta.get(name)):
                yield ReasoningDelta(text)
                break
        # A refusal in OpenAI's structured output comes in a field of its own, and is all that the model says
        text = content or untrusted.text(delta.get("refusal"))
        if text or logprobs is not None:
            yield TextDelta(text, logprobs)
        for call in untrusted.mappings(delta.get("tool_calls")):
            yield self._calls.delta(call)


def _mere_text(choice: Json) -> TextDelta | None:
    """What nearly every chunk's choice is, and nothing else; None for another one."""
    if type(choice) is not dict or choice.get("index") or choice.get("error") or choice.get("finish_reason"):
        return None
    delta = choice.get("delta")
    if type(delta) is not dict or len(delta) != 1:
        return None
    content = delta.get("content")
    return TextDelta(content, choice.get("logprobs")) if content and type(content) is str else None


class _CallOrder:
    """Places tool call pieces: our index counts calls as they begin, whatever a vendor's indexes and ids do.

    Vendors leave the index out, give every call index 0 with another id, or repeat id and name on every piece.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int | None, int] = {}
        self._count = 0

    def delta(self, call: Mapping[str, Json]) -> ToolCallDelta:
        function = untrusted.mapping(call.get("function"))
        arguments = untrusted.text(function.get("arguments"))
        extra = {name: call[name] for name in _KEPT_CALL_FIELDS if call.get(name) is not None}
        call_id, index = untrusted.text(call.get("id")) or None, untrusted.index(call.get("index"))
        name = untrusted.text(function.get("name")) or None
        place = self._by_id.get(call_id) if call_id else self._by_index.get(index)
        if place is None and self._count and not (call_id or name):
            place = self._count - 1  # nothing that could begin a call: it belongs to the last one
        if place is not None:
            return ToolCallDelta(index=place, arguments=arguments, extra=extra)
        place = self._count
        self._count += 1
        self._by_index[index] = place
        if call_id:
            self._by_id[call_id] = place
        return ToolCallDelta(index=place, id=call_id, name=name, arguments=arguments, extra=extra)


def _usage(reported: Mapping[str, Json]) -> Usage:
    prompt = untrusted.mapping(reported.get("prompt_tokens_details"))
    completion = untrusted.mapping(reported.get("completion_tokens_details"))
    return Usage(
        input_tokens=untrusted.count(reported.get("prompt_tokens")),
        output_tokens=untrusted.count(reported.get("completion_tokens")),
        cached_input_tokens=untrusted.count(
            prompt.get("cached_tokens") or reported.get("prompt_cache_hit_tokens")
        ),  # DeepSeek
        cache_write_tokens=untrusted.count(prompt.get("cache_write_tokens")),
        reasoning_tokens=untrusted.count(completion.get("reasoning_tokens")),
    )


def _cost(reported: Mapping[str, Json]) -> Decimal | None:
    cost = reported.get("cost")
    if cost is None or isinstance(cost, bool):
        return None
    try:
        value = Decimal(str(cost))
    except InvalidOperation:
        return None
    return value if value.is_finite() and value >= 0 else None
