"""What goes into a provider and what comes out of it: requests, messages, usage and events.

Values know nothing of vendors, HTTP, Django or the record. They are frozen, so that one request can be
handed to several candidates in turn, and comparable, so that tests compare whole values.

Token meaning is ours, whatever the vendor counts: input tokens *include* the cached ones, output tokens
*include* the reasoning ones. Adapters convert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

from llmchat.lib.frozen import dataclass

#: A value that `json.loads` may give. Vendors' parameters and content parts travel in this shape.
Json = Any

Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation, in OpenAI's shape because every vendor can be reached from it.

    `content` is text, or a list of content parts (`{"type": "text", "text": ...}`,
    `{"type": "image_url", "image_url": {"url": ...}}`), or None for an assistant message that only calls tools.
    """

    role: Role
    content: str | Sequence[Mapping[str, Json]] | None = None
    name: str | None = None
    tool_calls: Sequence[Mapping[str, Json]] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The message's text parts joined; empty for a message without text."""
        content = self.content
        if isinstance(content, str):
            return content
        return "".join(str(part.get("text", "")) for part in content or () if part.get("type") == "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One call to one model. None and empty mean "not said": the adapter leaves the parameter out.

    `model` is the provider's own id for the model. `extra` holds parameters that we do not know; adapters of
    OpenAI-compatible vendors send them on as they are, others ignore them (tuning may be ignored, content never).
    `whole` says that nobody is shown the answer's pieces, so that the adapter may get it however it is cheapest;
    `quick` that it is expected long before a silent provider would be given up.
    """

    model: str
    messages: Sequence[Message]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: Sequence[Mapping[str, Json]] = ()
    tool_choice: str | Mapping[str, Json] | None = None
    response_format: Mapping[str, Json] | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    whole: bool = False
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call. `input_tokens` includes `cached_input_tokens` and `cache_write_tokens`;
    `output_tokens` includes `reasoning_tokens`."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class FinishReason(StrEnum):
    """Why a model stopped, in OpenAI's words. What we cannot place stays UNKNOWN, never STOP."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer. `logprobs` is OpenAI's `choices[0].logprobs` for this piece, when asked for."""

    text: str
    logprobs: Json = None


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the model's reasoning, which is not part of the answer."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of the tool call at `index`; the first piece carries id and name, all pieces' `arguments` join
    to one JSON text. `index` counts from 0 in the order in which the calls began. `extra` holds further fields of the
    call in OpenAI's shape, such as Gemini's `extra_content`, which the vendor wants back with the call."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last event, exactly once. `raw_reason` is the vendor's own word; `usage` is None when the vendor did not
    report it; `model` is the one that the vendor says has answered; `cost_usd` the price that the vendor itself
    reports for this call (OpenRouter). `extra` keeps fields for OpenAI-compatible answers (`system_fingerprint`)."""

    reason: FinishReason
    raw_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    response_id: str | None = None
    cost_usd: Decimal | None = None
    malformed_chunks: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


Piece = TextDelta | ReasoningDelta | ToolCallDelta
Event = Piece | Finished
