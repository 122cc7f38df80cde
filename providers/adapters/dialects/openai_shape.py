"""OpenAI-shaped messages and tools taken apart, for vendors that want the same said in another shape.

Refuses what is not of OpenAI's shape, so that no dialect stumbles over it; of vendors it knows no more than the name
that a refusal gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from providers.errors import InvalidRequest
from providers.values import Json, Message

_DATA_URL: Final = re.compile(r"data:(?P<media_type>[\w/+.-]+);base64,(?P<data>.*)", re.DOTALL)
#: Where a part of each kind keeps what it is about.
_NEEDED: Final = {"text": "text", "image_url": "image_url.url"}

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image part. `media_type` and `data`, in base64, are None unless `url` is a data: URL, which carries both."""

    url: str
    media_type: str | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call in an assistant's message. `extra_content` is what a vendor wanted back with it."""

    id: str | None
    name: str
    arguments: dict[str, Json]
    extra_content: Json = None


def system_prompt(messages: Sequence[Message], *, vendor: str) -> str | None:
    """The text of all system messages, for vendors that keep it apart from the conversation.

    Raises InvalidRequest for one that is not of text alone.
    """
    texts = []
    for message in messages:
        if message.role in {"system", "developer"}:
            said = list(content(message, vendor=vendor))
            if not all(isinstance(part, str) for part in said):
                raise InvalidRequest(f"{vendor}'s models take only text as a system message.")
            texts.append(message.text)
    return "\n\n".join(filter(None, texts)) or None


def turns(
    messages: Sequence[Message], parts: Callable[[Message], Iterable[Part]]
) -> list[tuple[Literal["user", "assistant"], list[Part]]]:
    """The conversation in turns of the two sides, each with the `parts` of its messages.

    Neighbours of one side become one turn, because vendors accept the results of parallel tool calls only together.
    Messages without parts are left out: vendors refuse an empty text, and it says nothing.
    """
    found: list[tuple[Literal["user", "assistant"], list[Part]]] = []
    for message in messages:
        if message.role in {"system", "developer"}:
            continue
        side: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        said = list(parts(message))
        if not said:
            continue
        if found and found[-1][0] == side:
            found[-1][1].extend(said)
        else:
            found.append((side, said))
    return found


def content(message: Message, *, vendor: str) -> Iterator[str | Image]:
    """The message's texts and images in order, without empty texts. Raises InvalidRequest for parts of other kinds."""
    if isinstance(message.content, str):
        if message.content:
            yield message.content
        return
    for part in message.content or ():
        match part:
            case {"type": "text", "text": str(text)}:
                if text:
                    yield text
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                carried = _DATA_URL.fullmatch(url)
                yield Image(url=url, **carried.groupdict()) if carried else Image(url=url)
            case {"type": "text" | "image_url" as kind}:
                raise InvalidRequest(f"A message part of type {kind} needs {_NEEDED[kind]}, a text.")
            case other:
                raise InvalidRequest(f"{vendor}'s models do not take message parts of type {other.get('type')!r}.")


def tool_calls(message: Message) -> Iterator[ToolCall]:
    """The message's tool calls. Raises InvalidRequest for one without a name, or whose arguments are no JSON object."""
    for call in message.tool_calls:
        match call:
            case {"function": {"name": str(name)} as function} if isinstance(call.get("id"), str | None):
                yield ToolCall(
                    id=call.get("id"),
                    name=name,
                    arguments=_arguments(function.get("arguments")),
                    extra_content=call.get("extra_content"),
                )
            case _:
                raise InvalidRequest("A tool call needs function.name, a text; its id is a text, too.")


def function(tool: Mapping[str, Json], *, vendor: str) -> Mapping[str, Json]:
    """The description of a tool that is a function. Raises InvalidRequest for other tools."""
    described = tool.get("function")
    if tool.get("type") != "function" or not isinstance(described, Mapping):
        raise InvalidRequest(f"{vendor}'s models do not take tools of type {tool.get('type')!r}.")
    return described


def _arguments(text: Json) -> dict[str, Json]:
    try:
        arguments = json.loads(text) if text else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest("A tool call's arguments are not valid JSON.") from error
    if not isinstance(arguments, dict):
        raise InvalidRequest("A tool call's arguments must be a JSON object.")
    return arguments
