"""One exchange laid out for reading: who said what, how long each call took, and the same call as a command line.

From rows to plain values; templates make markup of them and escape everything.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from chat import rerun
from chat.admin import formats
from chat.admin.formats import NO_TEXT, Text
from chat.models import Attempt, Interaction

#: Longer calls are not offered as a command line: shells refuse arguments beyond 128 KiB.
_CURL_LIMIT = 100_000

_ROLES = {
    "system": "System",
    "developer": "Developer",
    "user": "User",
    "assistant": "Assistant",
    "tool": "Tool result",
}
_NATIVE_PARAMETERS = {"temperature": "temperature", "max_tokens": "maxTokens", "top_p": "topP", "stop": "stop"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    id: str
    name: str
    arguments: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message. `origin` tells the answer apart from messages that were sent."""

    role: str
    label: str
    text: Text
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: Text = NO_TEXT
    origin: str = "sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A stretch of time on the common scale of one exchange: where it begins, how long it lasts and after how long the
    first token came, in percent of the scale."""

    label: str
    status: str
    left: str
    width: str
    first_token: str | None
    start: str
    duration: str


def turns(row: Interaction) -> list[Turn]:
    """The messages as sent, without the conversation's history, and the answer."""
    sent = [_sent(message) for message in row.messages if isinstance(message, dict)]
    if not sent:
        sent = [
            Turn(role=role, label=_ROLES[role], text=formats.text(content))
            for role, content in (("system", row.system_prompt), ("user", row.prompt))
            if content
        ]
    answer = Turn(
        role="assistant",
        label="Answer",
        text=formats.text(row.response),
        tool_calls=_tool_calls(row.tool_calls),
        reasoning=formats.text(row.reasoning),
        origin="answer",
    )
    return [*sent, answer] if answer.text or answer.tool_calls or answer.reasoning else sent


def _sent(message: dict[str, Any]) -> Turn:
    role = str(message.get("role", ""))
    name = message.get("name") or message.get("tool_call_id")
    label = _ROLES.get(role, role)
    return Turn(
        role=role if role in _ROLES else "other",
        label=f"{label} · {name}" if name else label,
        text=formats.text(content_text(message.get("content"))),
        tool_calls=_tool_calls(message.get("tool_calls")),
    )


def content_text(content: Any) -> str:
    """A message's content as text. Pictures and files are named, never loaded: their address is the caller's."""
    match content:
        case None:
            return ""
        case str(text):
            return text
        case list(parts):
            return "\n\n".join(_part_text(part) for part in parts)
    return formats.pretty(content)


def _part_text(part: Any) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "refusal", "refusal": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return f"[picture: {_address(url)}]"
        case {"type": "input_audio", "input_audio": {"data": str(data), **rest}}:
            return f"[audio: {rest.get('format', 'unknown format')}, {len(data):,} characters]"
        case {"type": "file", "file": {**file}}:
            return f"[file: {file.get('filename') or file.get('file_id') or 'without a name'}]"
    return formats.pretty(part)


def _address(url: str) -> str:
    if not url.startswith("data:"):
        return formats.excerpt(url, limit=200)
    kind, _, data = url.removeprefix("data:").partition(",")
    return f"{kind[:80]}, {len(data):,} characters"


def _tool_calls(calls: Any) -> tuple[ToolCall, ...]:
    found = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            found.append(
                ToolCall(
                    id=str(call.get("id") or ""),
                    name=str(function.get("name") or ""),
                    arguments=formats.text(formats.pretty(function.get("arguments") or "")),
                )
            )
        else:
            found.append(ToolCall(id="", name="", arguments=formats.text(formats.pretty(call))))
    return tuple(found)


def bars(row: Interaction, attempts: Sequence[Attempt]) -> list[Bar]:
    """The whole exchange and each attempt on one scale. What has no duration on record gets no bar."""
    spans = [
        (
            f"{attempt.number}. {attempt.provider}",
            attempt.status,
            max(0.0, (attempt.started_at - row.created_at).total_seconds() * 1000),
            attempt.latency_ms,
            attempt.time_to_first_token_ms,
        )
        for attempt in attempts
    ]
    spans.insert(0, ("Whole", row.status, 0.0, row.latency_ms, row.time_to_first_token_ms))
    known = [(label, status, start, length, first) for label, status, start, length, first in spans if length]
    scale = max((start + length for _, _, start, length, _ in known), default=0.0)
    return [
        Bar(
            label=label,
            status=status,
            left=_percent(start, scale),
            width=_percent(length, scale),
            first_token=_percent(min(first, length), length) if first is not None else None,
            start=formats.milliseconds(start),
            duration=formats.milliseconds(length),
        )
        for label, status, start, length, first in known
    ]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}%"


def curl(row: Interaction, *, origin: str) -> str | None:
    """The call as a command line, with a placeholder for the key; None when its text is not on record, cannot be
    read or is too long.

    It is a new call: neither the conversation nor the caller's request id goes along, so that repeating it adds
    nothing to somebody's thread and is not answered from an earlier one. `origin`: scheme and host.
    """
    if not rerun.may_be_run(row):
        return None
    body = json.dumps(_body(row), ensure_ascii=False)
    if len(body.encode()) > _CURL_LIMIT:
        return None
    path = Interaction.Endpoint(row.endpoint).label
    return " \\\n  ".join(
        [
            f"curl{' -N' if row.streamed else ''} {shlex.quote(origin + path)}",
            '-H "Authorization: Bearer $LLMCHAT_API_KEY"',
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(body)}",
        ]
    )


def _body(row: Interaction) -> dict[str, Any]:
    parameters = {name: value for name, value in row.parameters.items() if name != "extra"}
    body: dict[str, Any] = {"model": row.model_requested} if row.model_requested else {}
    if row.endpoint == Interaction.Endpoint.COMPLETIONS:
        prompts = (("system", row.system_prompt), ("user", row.prompt))
        plain = [{"role": role, "content": content} for role, content in prompts if content]
        body |= {"messages": row.messages or plain, "user": row.user_id, **parameters}
        body |= row.parameters.get("extra") or {}
    else:
        body["userId"] = row.user_id
        if row.messages:
            body["messages"] = row.messages
        else:
            body["prompt"] = row.prompt
            if row.system_prompt:
                body["systemPrompt"] = row.system_prompt
        body |= {_NATIVE_PARAMETERS.get(name, name): value for name, value in parameters.items()}
    return body | ({"stream": True} if row.streamed else {})


def first_call(*, origin: str) -> str:
    """A command line to begin with."""
    body = json.dumps({"userId": "demo", "prompt": "Say hello in one short sentence."})
    return " \\\n  ".join(
        [
            f"curl {shlex.quote(urlsplit(origin)._replace(path='/v1/chat').geturl())}",
            '-H "Authorization: Bearer $LLMCHAT_API_KEY"',
            "-H 'Content-Type: application/json'",
            f"-d {shlex.quote(body)}",
        ]
    )
