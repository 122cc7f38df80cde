"""The rows of demo data as they are told and stored: their columns, chunks of them, and their ids.

Values are raw: ids as integers, moments as milliseconds, costs as 1e-12 dollars, JSON as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

CONVERSATION: Final = ("id", "organization_id", "user_id", "title", "created_at", "updated_at")
INTERACTION: Final = (
    *("id", "organization_id", "api_key_id", "conversation_id", "user_id", "plan", "endpoint", "streamed"),
    *("trace_id", "request_id", "created_at", "finished_at", "erased_at", "status"),
    *("error_type", "error_code", "error_message", "model_requested", "model", "provider", "route_reason"),
    *("prompt", "system_prompt", "messages", "history_messages", "parameters", "response", "reasoning", "tool_calls"),
    *("finish_reason", "metadata", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"),
    *("usage_estimated", "cost", "latency_ms", "provider_latency_ms", "time_to_first_token_ms"),
    *("retries", "fallback", "cached"),
)
ATTEMPT: Final = (
    *("id", "interaction_id", "number", "provider", "model", "started_at", "status", "error_code", "error_message"),
    *("upstream_status", "upstream_request_id", "finish_reason", "raw_finish_reason", "malformed_chunks"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("usage_estimated", "price_id", "cost", "cost_reported", "latency_ms", "time_to_first_token_ms"),
)

Row = tuple[Any, ...]


@dataclass(slots=True)
class Chunk:
    """Rows in the order of the columns above. What belongs together is in the same chunk."""

    conversations: list[Row] = field(default_factory=list)
    interactions: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)


class Told(Protocol):
    """A chunk, however it is told."""

    @property
    def conversations(self) -> list[Row]: ...
    @property
    def interactions(self) -> list[Row]: ...
    @property
    def attempts(self) -> list[Row]: ...


def identifier(random: Random, ms: int, counter: int) -> int:
    """A UUIDv7 as its integer: the moment, a counter that rises through the whole story, and 32 random bits."""
    high, low = counter >> 30, counter & 0x3FFFFFFF
    return ms << 80 | 7 << 76 | high << 64 | 2 << 62 | low << 32 | random.getrandbits(32)


def trace_of(number: int) -> str:
    """A UUID's integer as text."""
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
