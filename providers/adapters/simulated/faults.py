"""The table of simulated models. The ids in the descriptions are those of the reliability requirements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from providers.adapters.simulated import behaviours as does
from providers.adapters.simulated.behaviours import Behaviour, Call, Refusal
from providers.errors import (
    ConnectionFailed,
    ContentRefused,
    ContextLengthExceeded,
    CredentialsRejected,
    MalformedAnswer,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFault,
    TruncatedAnswer,
)
from providers.values import FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One simulated model. `parameters`: those it takes, with their defaults; `tokens` are words of the answer, `delay`
    seconds before each, `after` words before the fault, `retry_after` and `seconds` seconds."""

    name: str
    description: str
    play: Behaviour
    parameters: Mapping[str, float] = field(default_factory=dict)


def _error(kind: type[ProviderError], message: str, *, status: int | None = None, code: str | None = None) -> Refusal:
    def make(call: Call) -> ProviderError:
        waiting = call.parameters.get("retry_after")
        return kind(message, retry_after=waiting or None, upstream_status=status, upstream_code=code)

    return make


_TEXT: Final = {"tokens": 24.0, "delay": 0.0}
_HALF: Final = {**_TEXT, "after": 8.0}

_rate_limited = _error(RateLimited, "Rate limit reached. Please slow down.", status=429, code="rate_limit_exceeded")
_server_fault = _error(ServerFault, "The server had an error.", status=500, code="server_error")
_overloaded = _error(Overloaded, "The server is overloaded.", status=503, code="overloaded")
_reset = _error(ConnectionFailed, "The connection was reset.")
_truncated = _error(TruncatedAnswer, "The answer ended without a finish reason.")
_unreadable = _error(MalformedAnswer, "The answer is empty or cannot be read.", status=200)
_html = _error(ServerFault, "HTTP 502 without an explanation", status=502)
_too_long = _error(
    ContextLengthExceeded,
    "This model's maximum context length is 8192 tokens.",
    status=400,
    code="context_length_exceeded",
)
_refused = _error(
    ContentRefused, "The prompt was refused by the content policy.", status=400, code="content_policy_violation"
)
_wrong_key = _error(CredentialsRejected, "Incorrect API key provided.", status=401, code="invalid_api_key")
_no_money = _error(QuotaExhausted, "You exceeded your current quota.", status=429, code="insufficient_quota")


def _table(*rows: tuple[str, str, Behaviour, Mapping[str, float]]) -> dict[str, Fault]:
    return {
        name: Fault(name=name, description=description, play=play, parameters=parameters)
        for name, description, play, parameters in rows
    }


#: Every simulated model by its name.
FAULTS: Final[Mapping[str, Fault]] = _table(
    ("ok", "answers with a fixed text", does.ok, _TEXT),
    ("echo", "repeats the last user message", does.echo, {"delay": 0.0}),
    ("slow", "answers a word at a time", does.ok, {**_TEXT, "delay": 0.25}),
    ("reasoning", "thinks before it answers", does.reasoning, _TEXT),
    ("tool-call", "calls the first tool; answers when it has the result", does.tool_call, _TEXT),
    ("no-usage", "answers without reporting usage", does.answering(usage=None), _TEXT),
    ("reports-cost", "answers and reports what it cost", does.answering(cost_usd=Decimal("0.000123")), _TEXT),
    (
        "content-filter",
        "ends its answer for its content filter",
        does.answering(reason=FinishReason.CONTENT_FILTER, raw_reason="content_filter"),
        _TEXT,
    ),
    (
        "unknown-reason",
        "ends its answer with a word that nobody knows",
        does.answering(reason=FinishReason.UNKNOWN, raw_reason="tired"),
        _TEXT,
    ),
    (
        "429-once",
        "U1: the first call is told to come back later",
        does.refusing(_rate_limited, times=1),
        {**_TEXT, "retry_after": 2.0},
    ),
    ("429-forever", "U2: always over the rate limit", does.refusing(_rate_limited), {"retry_after": 0.0}),
    ("500-once", "U3: the first call meets a server error", does.refusing(_server_fault, times=1), _TEXT),
    ("500-forever", "U3: a server error, always", does.refusing(_server_fault), {}),
    (
        "503-once",
        "U4: overloaded, but once",
        does.refusing(_overloaded, times=1),
        {**_TEXT, "retry_after": 0.0},
    ),
    ("503-forever", "U4: always overloaded", does.refusing(_overloaded), {"retry_after": 0.0}),
    ("reset", "U5: connection reset before any byte", does.refusing(_reset), {}),
    ("reset-once", "U5: the first call's connection is reset", does.refusing(_reset, times=1), _TEXT),
    ("silence", "U6: accepts the call and never answers", does.silence, {}),
    ("slow-first-token", "U7: headers at once, the first token late", does.slow_first_token, {**_TEXT, "wait": 20.0}),
    ("cut", "U8: the stream ends in mid-answer", does.breaking(_truncated), _HALF),
    ("reset-midway", "U8: connection reset in mid-answer", does.breaking(_reset), _HALF),
    ("stall", "U9: falls silent in mid-answer", does.stall, _HALF),
    ("garbage", "U10: one chunk cannot be read", does.answering(malformed_chunks=1), _TEXT),
    ("no-done", "U11: no [DONE] at the end", does.ok, _TEXT),
    ("context-length", "U12: every prompt is too long", does.refusing(_too_long), {}),
    ("content-policy", "U13: every prompt breaks the content policy", does.refusing(_refused), {}),
    ("refuses-prefill", "U14: refuses to continue an assistant's message", does.refuses_prefill, _TEXT),
    ("down-60s", "U15: down for a minute from the first call on", does.down, {**_TEXT, "seconds": 60.0}),
    ("html-error", "U16: an HTML error page", does.refusing(_html), {}),
    ("empty-200", "U16: success with an empty body", does.refusing(_unreadable), {}),
    ("wrong-content-type", "U16: success with a body of another kind", does.refusing(_unreadable), {}),
    ("huge", "U16: an answer larger than we take", does.huge, {}),
    ("invalid-utf8", "U16: bytes that are no UTF-8 in one chunk", does.invalid_utf8, _TEXT),
    ("error-null", 'U16: "error": null beside the answer', does.ok, _TEXT),
    ("error-in-stream", "U16: an error object inside the stream", does.breaking(_server_fault), _HALF),
    ("key-refused", "U17: our key is refused", does.refusing(_wrong_key), {}),
    ("quota-exhausted", "U17: our account is empty", does.refusing(_no_money), {}),
)
