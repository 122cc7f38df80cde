"""Gemini's contents and settings out of OpenAI-shaped messages, in google-genai's types. Knows no transport.

Tuning that Gemini does not know (`extra`) is left out; content that it does not know is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from google.genai import types

from providers.errors import InvalidRequest
from providers.values import ChatRequest, Json, Message

_DATA_URL = re.compile(r"data:(?P<kind>[\w/+.-]+);base64,(?P<data>.*)", re.DOTALL)
_MODES: Final = {
    "auto": types.FunctionCallingConfigMode.AUTO,
    "none": types.FunctionCallingConfigMode.NONE,
    "required": types.FunctionCallingConfigMode.ANY,
}


def config(request: ChatRequest) -> types.GenerateContentConfig:
    """Everything of a call but its model and messages. Raises InvalidRequest for what cannot be said to Gemini."""
    json_wanted, schema = _response_format(request.response_format)
    system = "\n\n".join(
        message.text for message in request.messages if message.role in {"system", "developer"} and message.text
    )
    tools = [_declaration(tool) for tool in request.tools]
    return types.GenerateContentConfig(
        system_instruction=system or None,
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
    """The conversation; neighbours of one role become one content, as Gemini wants parallel results together."""
    names = {call.get("id"): (call.get("function") or {}).get("name") for m in messages for call in m.tool_calls}
    turns: list[types.Content] = []
    for message in messages:
        if message.role in {"system", "developer"}:
            continue
        role = "model" if message.role == "assistant" else "user"
        parts = list(_parts(message, names=names))
        if not parts:
            continue
        if turns and turns[-1].role == role:
            turns[-1].parts = [*(turns[-1].parts or ()), *parts]
        else:
            turns.append(types.Content(role=role, parts=parts))
    return turns


def _parts(message: Message, *, names: Mapping[Json, Json]) -> Iterator[types.Part]:
    if message.role == "tool":
        if message.tool_call_id not in names:
            raise InvalidRequest(
                f"No tool call before has the id {message.tool_call_id!r} that a tool message answers."
            )
        yield types.Part(
            function_response=types.FunctionResponse(
                id=message.tool_call_id, name=names[message.tool_call_id], response=_result(message.text)
            )
        )
        return
    content = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else message.content or ()
    for part in content:
        match part.get("type"):
            case "text":
                if part.get("text"):
                    yield types.Part(text=part["text"])
            case "image_url":
                yield types.Part(inline_data=_image(part))
            case other:
                raise InvalidRequest(f"Gemini's models do not take message parts of type {other!r}.")
    for call in message.tool_calls:
        function = call.get("function") or {}
        yield types.Part(
            function_call=types.FunctionCall(
                id=call.get("id"), name=function.get("name"), args=_arguments(function.get("arguments"))
            ),
            thought_signature=_signature(call),
        )


def signed(signature: bytes | None) -> dict[str, Json]:
    """What a tool call carries for `signature`, as Google's own endpoint in OpenAI's shape gives it."""
    if not signature:
        return {}
    return {"extra_content": {"google": {"thought_signature": base64.b64encode(signature).decode()}}}


def _signature(call: Mapping[str, Json]) -> bytes | None:
    """The signature that `signed` gave, or one of Google's placeholders, which are base64 in the other alphabet."""
    match call.get("extra_content"):
        case {"google": {"thought_signature": str(signature)}} if signature:
            try:
                return base64.b64decode(signature.replace("-", "+").replace("_", "/"), validate=True)
            except ValueError as error:  # not in ASCII, or binascii's
                raise InvalidRequest("A tool call's thought_signature is not valid base64.") from error
        case {"google": {"thought_signature": unreadable}} if unreadable:
            raise InvalidRequest("A tool call's thought_signature must be a text in base64.")
    return None


def _image(part: Mapping[str, Json]) -> types.Blob:
    url = (part.get("image_url") or {}).get("url")
    match = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    if match is None:
        raise InvalidRequest("Gemini takes images only inside the request, as base64 data: URLs.")
    try:
        return types.Blob(mime_type=match["kind"], data=base64.b64decode(match["data"], validate=True))
    except binascii.Error as error:
        raise InvalidRequest("An image's data: URL is not valid base64.") from error


def _result(text: str) -> dict[str, Json]:
    """A tool's result as the object that Gemini demands."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"result": text}


def _arguments(text: Json) -> dict[str, Json]:
    try:
        arguments = json.loads(text) if text else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest("A tool call's arguments are not valid JSON.") from error
    if not isinstance(arguments, dict):
        raise InvalidRequest("A tool call's arguments must be a JSON object.")
    return arguments


def _declaration(tool: Mapping[str, Json]) -> types.FunctionDeclaration:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        raise InvalidRequest(f"Gemini's models do not take tools of type {tool.get('type')!r}.")
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
