"""Gemini's contents and settings out of OpenAI-shaped messages, in google-genai's types. Knows no transport.

Tuning that Gemini does not know (`extra`) is left out; content that it does not know is refused.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from google.genai import types

from providers.adapters.dialects import openai_shape
from providers.errors import InvalidRequest
from providers.values import ChatRequest, Json, Message

_MODES: Final = {
    "auto": types.FunctionCallingConfigMode.AUTO,
    "none": types.FunctionCallingConfigMode.NONE,
    "required": types.FunctionCallingConfigMode.ANY,
}


def config(request: ChatRequest) -> types.GenerateContentConfig:
    """Everything of a call but its model and messages. Raises InvalidRequest for what cannot be said to Gemini."""
    json_wanted, schema = _response_format(request.response_format)
    tools = [_declaration(tool) for tool in request.tools]
    return types.GenerateContentConfig(
        system_instruction=openai_shape.system_prompt(request.messages),
        temperature=request.temperature,
        top_p=request.top_p,
        max_output_tokens=request.max_tokens,
        stop_sequences=list(request.stop) or None,
        seed=request.seed,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        tools=[types.Tool(function_declarations=tools)] if tools else None,
        tool_config=_tool_config(request.tool_choice) if tools else None,
        response_mime_type="application/json" if json_wanted else None,
        response_json_schema=schema,
        # The library would call functions and ask for continuations by itself: calls that nobody recorded
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        automatic_continuation=False,
    )


def contents(messages: Sequence[Message]) -> list[types.Content]:
    """The conversation. Raises InvalidRequest for what cannot be said to Gemini."""
    names: dict[str | None, str] = {}  # of the calls so far, by their ids
    return [
        types.Content(role="model" if side == "assistant" else "user", parts=parts)
        for side, parts in openai_shape.turns(messages, lambda message: _parts(message, names=names))
    ]


def _parts(message: Message, *, names: dict[str | None, str]) -> Iterator[types.Part]:
    """The message's parts; takes note in `names` of its calls, because Gemini wants a result to name its function."""
    said = list(openai_shape.content(message, vendor="Gemini"))
    if message.role == "tool":
        if message.tool_call_id not in names:
            raise InvalidRequest(
                f"No tool call before has the id {message.tool_call_id!r} that a tool message answers."
            )
        if not all(isinstance(part, str) for part in said):
            raise InvalidRequest("Gemini takes only text as the result of a tool.")
        yield types.Part(
            function_response=types.FunctionResponse(
                id=message.tool_call_id, name=names[message.tool_call_id], response=_result(message.text)
            )
        )
        return
    for part in said:
        yield types.Part(text=part) if isinstance(part, str) else types.Part(inline_data=_image(part))
    for call in openai_shape.tool_calls(message):
        names[call.id] = call.name
        yield types.Part(
            function_call=types.FunctionCall(id=call.id, name=call.name, args=call.arguments),
            thought_signature=_signature(call.extra_content),
        )


def signed(signature: bytes | None) -> dict[str, Json]:
    """What a tool call carries for `signature`, as Google's own endpoint in OpenAI's shape gives it."""
    if not signature:
        return {}
    return {"extra_content": {"google": {"thought_signature": base64.b64encode(signature).decode()}}}


def _signature(extra_content: Json) -> bytes | None:
    """The signature that `signed` gave, or one of Google's placeholders, which are base64 in the other alphabet."""
    match extra_content:
        case {"google": {"thought_signature": str(signature)}} if signature:
            try:
                return base64.b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
            except ValueError as error:  # not in ASCII, or binascii's
                raise InvalidRequest("A tool call's thought_signature is not valid base64.") from error
        case {"google": {"thought_signature": unreadable}} if unreadable:
            raise InvalidRequest("A tool call's thought_signature must be a text in base64.")
    return None


def _image(image: openai_shape.Image) -> types.Blob:
    if image.data is None:
        raise InvalidRequest("Gemini takes images only inside the request, as base64 data: URLs.")
    try:
        return types.Blob(mime_type=image.media_type, data=base64.b64decode(image.data, validate=True))
    except ValueError as error:  # not in ASCII, or binascii's
        raise InvalidRequest("An image's data: URL is not valid base64.") from error


def _result(text: str) -> dict[str, Json]:
    """A tool's result as the object that Gemini demands."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"result": text}


def _declaration(tool: Mapping[str, Json]) -> types.FunctionDeclaration:
    function = openai_shape.function(tool, vendor="Gemini")
    return types.FunctionDeclaration(
        name=function.get("name"),
        description=function.get("description"),
        parameters_json_schema=function.get("parameters") or None,
    )


def _tool_config(choice: str | Mapping[str, Json] | None) -> types.ToolConfig | None:
    match choice:
        case None:
            return None
        case str(mode) if mode in _MODES:
            wanted = types.FunctionCallingConfig(mode=_MODES[mode])
        case {"type": "function", "function": {"name": str(name)}}:
            wanted = types.FunctionCallingConfig(mode=_MODES["required"], allowed_function_names=[name])
        case other:
            raise InvalidRequest(f"tool_choice {other!r} is not known.")
    return types.ToolConfig(function_calling_config=wanted)


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
