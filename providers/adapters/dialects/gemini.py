"""Gemini's generateContent: the request's JSON out of OpenAI-shaped messages, and what the chunks of an answer mean.

Tuning that Gemini does not know (`extra`) is left out; content that it does not know is refused. A chunk of a stream
and a whole answer have the same shape.

Protocol: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/thought-signatures
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import uuid4

from providers.adapters import classify
from providers.adapters.dialects import openai_shape, untrusted
from providers.errors import ContentRefused, InvalidRequest
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

_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
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
#: From this version on, a model refuses a call of its own current turn that carries no signature ...
_FIRST_TO_INSIST: Final = 3
_VERSION: Final = re.compile(r"(?:^|/)gemini-(\d+)")
#: ... unless it carries this, which Google has for calls that another model made.
_NO_SIGNATURE: Final = "skip_thought_signature_validator"


def body(request: ChatRequest) -> dict[str, Json]:
    """The JSON of a call, of whatever kind. Raises InvalidRequest for content that cannot be said to Gemini."""
    json_wanted, schema = _response_format(request.response_format)
    system = openai_shape.system_prompt(request.messages, vendor="Gemini")
    settings = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "responseMimeType": "application/json" if json_wanted else None,
        "responseJsonSchema": schema,
    }
    tools = [_declaration(tool) for tool in request.tools]
    parts = {
        "systemInstruction": {"parts": [{"text": system}], "role": "user"} if system else None,
        "generationConfig": {name: value for name, value in settings.items() if value is not None} or None,
        "tools": [{"functionDeclarations": tools}] if tools else None,
        "toolConfig": _tool_config(request.tool_choice) if tools else None,
    }
    return {"contents": _contents(request), **{name: value for name, value in parts.items() if value is not None}}


def _contents(request: ChatRequest) -> list[dict[str, Json]]:
    names: dict[str | None, str] = {}  # of the calls so far, by their ids
    insists = _insists_on_signatures(request.model)
    unanswered = _current_turn(request.messages) if insists else ()
    found = [
        {"role": "model" if side == "assistant" else "user", "parts": parts}
        for side, parts in openai_shape.turns(
            request.messages,
            lambda message: _parts(message, names=names, signed=any(message is each for each in unanswered)),
        )
    ]
    if not found:
        raise InvalidRequest("Gemini wants at least one message that is not empty and not a system message.")
    return found


def _insists_on_signatures(model: str) -> bool:
    version = _VERSION.search(model)
    return version is not None and int(version[1]) >= _FIRST_TO_INSIST


def _current_turn(messages: Sequence[Message]) -> Sequence[Message]:
    """What came after the user last spoke: only there does Gemini look for signatures."""
    last = max((place for place, message in enumerate(messages) if message.role == "user"), default=-1)
    return messages[last + 1 :]


def _parts(message: Message, *, names: dict[str | None, str], signed: bool) -> Iterator[dict[str, Json]]:
    """The message's parts; takes note in `names` of its calls, because Gemini wants a result to name its function.

    `signed`: of calls that carry no signature, the first gets Google's placeholder.
    """
    said = list(openai_shape.content(message, vendor="Gemini"))
    if message.role == "tool":
        if message.tool_call_id not in names:
            raise InvalidRequest(
                f"No tool call before has the id {message.tool_call_id!r} that a tool message answers."
            )
        if not all(isinstance(part, str) for part in said):
            raise InvalidRequest("Gemini takes only text as the result of a tool.")
        yield {
            "functionResponse": {
                **_named(message.tool_call_id, names[message.tool_call_id]),
                "response": _result(message.text),
            }
        }
        return
    for part in said:
        yield {"text": part} if isinstance(part, str) else {"inlineData": _image(part)}
    calls = list(openai_shape.tool_calls(message))
    signatures = [_signature(call.extra_content) for call in calls]
    if signed and calls and not any(signatures):
        signatures[0] = _NO_SIGNATURE
    for call, signature in zip(calls, signatures, strict=True):
        names[call.id] = call.name
        called = {"functionCall": {**_named(call.id, call.name), "args": call.arguments}}
        yield {**called, "thoughtSignature": signature} if signature else called


def _named(call_id: str | None, name: str) -> dict[str, Json]:
    return {"name": name} if call_id is None else {"id": call_id, "name": name}


def _signature(extra_content: Json) -> str | None:
    """The signature that `_signed` gave, or one of Google's placeholders, in the alphabet of the latter."""
    match extra_content:
        case {"google": {"thought_signature": str(signature)}} if signature:
            try:
                base64.b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
            except ValueError as error:  # not in ASCII, or binascii's
                raise InvalidRequest("A tool call's thought_signature is not valid base64.") from error
            return signature.replace("+", "-").replace("/", "_")
        case {"google": {"thought_signature": unreadable}} if unreadable:
            raise InvalidRequest("A tool call's thought_signature must be a text in base64.")
    return None


def _image(image: openai_shape.Image) -> dict[str, Json]:
    if image.data is None:
        raise InvalidRequest("Gemini takes images only inside the request, as base64 data: URLs.")
    try:
        base64.b64decode(image.data, validate=True)
    except ValueError as error:  # not in ASCII, or binascii's
        raise InvalidRequest("An image's data: URL is not valid base64.") from error
    return {"mimeType": image.media_type, "data": image.data}


def _result(text: str) -> dict[str, Json]:
    """A tool's result as the object that Gemini demands."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"result": text}


def _declaration(tool: Mapping[str, Json]) -> dict[str, Json]:
    function = openai_shape.function(tool, vendor="Gemini")
    described = {
        "name": function.get("name"),
        "description": function.get("description"),
        "parametersJsonSchema": function.get("parameters") or None,
    }
    for name in ("name", "description"):
        if not isinstance(described[name], str | None):
            raise InvalidRequest(f"A tool's function.{name} must be a text.")
    return {name: value for name, value in described.items() if value is not None}


def _tool_config(choice: str | Mapping[str, Json] | None) -> dict[str, Json] | None:
    match choice:
        case None:
            return None
        case str(mode) if mode in _MODES:
            return {"functionCallingConfig": {"mode": _MODES[mode]}}
        case {"type": "function", "function": {"name": str(name)}}:
            return {"functionCallingConfig": {"mode": _MODES["required"], "allowedFunctionNames": [name]}}
        case other:
            raise InvalidRequest(f"tool_choice {other!r} is not known.")


def _response_format(response_format: Mapping[str, Json] | None) -> tuple[bool, Json]:
    """Whether JSON is wanted, and by which schema."""
    match response_format:
        case None | {"type": "text"}:
            return False, None
        case {"type": "json_object"}:
            return True, None
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return True, schema
        case other:
            raise InvalidRequest(f"response_format {other!r} is not known.")


class ChunkReader:
    """The chunks of one answer, of which only the first candidate is read. Tool calls come whole, usage with every
    chunk."""

    def __init__(self) -> None:
        self.ending = False
        self._reason: str | None = None
        self._usage: dict[str, Json] = {}
        self._model: str | None = None
        self._id: str | None = None
        self._calls = 0

    @property
    def complete(self) -> bool:
        return self.ending and bool(self._usage)

    def read(self, chunk: dict[str, Json]) -> Iterator[Event]:
        """Yield the events of one chunk; raises what an error object in it means, and ContentRefused."""
        if chunk.get("error"):
            raise classify.from_object(chunk)
        self._usage = untrusted.mapping(chunk.get("usageMetadata")) or self._usage
        self._model = untrusted.text(chunk.get("modelVersion")) or self._model
        self._id = untrusted.text(chunk.get("responseId")) or self._id
        candidates = untrusted.mappings(chunk.get("candidates"))
        if not candidates:
            self._refuse_blocked(untrusted.mapping(chunk.get("promptFeedback")))
            return
        candidate = candidates[0]
        for part in untrusted.mappings(untrusted.mapping(candidate.get("content")).get("parts")):
            yield from self._part(part)
        if reason := untrusted.text(candidate.get("finishReason")):
            self._reason = reason
            self.ending = True

    def finished(self, *, malformed_chunks: int) -> Finished:
        reason = _REASONS.get(self._reason or "", FinishReason.UNKNOWN)
        return Finished(
            reason=FinishReason.TOOL_CALLS if self._calls and reason is FinishReason.STOP else reason,
            raw_reason=self._reason,
            usage=_usage(self._usage) if self._usage else None,
            model=self._model,
            response_id=self._id,
            malformed_chunks=malformed_chunks,
        )

    def _refuse_blocked(self, feedback: Mapping[str, Json]) -> None:
        if word := untrusted.text(feedback.get("blockReason")):
            told = untrusted.text(feedback.get("blockReasonMessage")) or f"the prompt was blocked ({word})."
            raise ContentRefused(told, upstream_code=word)

    def _part(self, part: Mapping[str, Json]) -> Iterator[Event]:
        if text := untrusted.text(part.get("text")):
            yield ReasoningDelta(text) if part.get("thought") is True else TextDelta(text)
        call = part.get("functionCall")
        if isinstance(call, dict):
            yield ToolCallDelta(
                index=self._calls,
                id=untrusted.text(call.get("id")) or f"call_{uuid4().hex}",
                name=untrusted.text(call.get("name")) or None,
                arguments=json.dumps(untrusted.mapping(call.get("args"))),
                extra=_signed(untrusted.text(part.get("thoughtSignature"))),
            )
            self._calls += 1


def _signed(signature: str) -> dict[str, Json]:
    """What a tool call carries for `signature`, as Google's own endpoint in OpenAI's shape gives it."""
    if not signature:
        return {}
    standard = signature.replace("-", "+").replace("_", "/")
    return {"extra_content": {"google": {"thought_signature": standard}}}


def _usage(reported: Mapping[str, Json]) -> Usage:
    """Gemini counts thoughts apart from the answer, and what tools put into the prompt apart from the prompt."""
    thoughts = untrusted.count(reported.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=untrusted.count(reported.get("promptTokenCount"))
        + untrusted.count(reported.get("toolUsePromptTokenCount")),
        output_tokens=untrusted.count(reported.get("candidatesTokenCount")) + thoughts,
        cached_input_tokens=untrusted.count(reported.get("cachedContentTokenCount")),
        reasoning_tokens=thoughts,
    )
