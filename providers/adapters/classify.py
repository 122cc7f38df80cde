"""A vendor's refusal, in whatever shape it came, as one error of our tree.

The vendor's own word decides first, then the kind of error that it names, then the HTTP status. Phrases in messages are
the last resort, for refusals that some vendors send without any word of their own. Knows nothing of transport.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from providers.errors import (
    ContentRefused,
    ContextLengthExceeded,
    CredentialsRejected,
    InvalidRequest,
    MalformedAnswer,
    ModelNotFound,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    ServerFault,
    TimedOut,
)
from providers.values import Json

#: Words with one meaning, whatever the status beside them.
_WORDS: Final[dict[str, type[ProviderError]]] = {
    # OpenAI and the vendors that speak its dialect
    "insufficient_quota": QuotaExhausted,
    "billing_hard_limit_reached": QuotaExhausted,
    "billing_not_active": QuotaExhausted,
    "credit_limit_exceeded": QuotaExhausted,
    "rate_limit_exceeded": RateLimited,
    "context_length_exceeded": ContextLengthExceeded,
    "context_window_exceeded": ContextLengthExceeded,
    "content_policy_violation": ContentRefused,
    "content_filter": ContentRefused,
    "moderation_blocked": ContentRefused,
    "invalid_prompt": ContentRefused,
    "model_not_found": ModelNotFound,
    "model_decommissioned": ModelNotFound,
    "model_not_active": ModelNotFound,
    "invalid_api_key": CredentialsRejected,
    "account_deactivated": CredentialsRejected,
    "engine_overloaded": Overloaded,
    "server_overloaded": Overloaded,
    # Anthropic
    "authentication_error": CredentialsRejected,
    "permission_error": CredentialsRejected,
    "billing_error": QuotaExhausted,
    "rate_limit_error": RateLimited,
    "overloaded_error": Overloaded,
    "timeout_error": TimedOut,
    # Google
    "API_KEY_INVALID": CredentialsRejected,
    "API_KEY_SERVICE_BLOCKED": CredentialsRejected,
    "API_KEY_HTTP_REFERRER_BLOCKED": CredentialsRejected,
    "API_KEY_IP_ADDRESS_BLOCKED": CredentialsRejected,
    "SERVICE_DISABLED": CredentialsRejected,
    "BILLING_DISABLED": QuotaExhausted,
    "UNAUTHENTICATED": CredentialsRejected,
    "PERMISSION_DENIED": CredentialsRejected,
    "RESOURCE_EXHAUSTED": RateLimited,
    "UNAVAILABLE": Overloaded,
    "DEADLINE_EXCEEDED": TimedOut,
}
#: Words that say no more than a status does, for errors inside a stream, where there is no status.
_KINDS: Final[dict[str, type[ProviderError]]] = {
    "invalid_request_error": InvalidRequest,
    "invalid_request": InvalidRequest,
    "request_too_large": InvalidRequest,
    "not_found_error": ModelNotFound,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": ModelNotFound,
}
_STATUSES: Final[dict[int, type[ProviderError]]] = {
    401: CredentialsRejected,
    402: QuotaExhausted,
    403: CredentialsRejected,
    404: ModelNotFound,
    408: TimedOut,
    409: ServerFault,  # a conflict inside the vendor: the same call may well succeed
    413: ContextLengthExceeded,
    425: ServerFault,
    429: RateLimited,
    503: Overloaded,
    504: TimedOut,
    529: Overloaded,
}
#: What vendors write under a plain 400 (or 403, 404, 422) without a word of their own. Lower case.
_PHRASES: Final[tuple[tuple[str, type[ProviderError]], ...]] = (
    ("maximum context length", ContextLengthExceeded),  # DeepSeek, OpenRouter, Together, vLLM
    ("prompt is too long", ContextLengthExceeded),  # Anthropic
    ("exceed context limit", ContextLengthExceeded),  # Anthropic
    ("exceeds the maximum number of tokens", ContextLengthExceeded),  # Google
    ("credit balance is too low", QuotaExhausted),  # Anthropic
    ("content filtering policy", ContentRefused),  # Anthropic
    ("content management policy", ContentRefused),  # Azure
    ("is not a valid model id", ModelNotFound),  # OpenRouter
)
_MAX_MESSAGE = 500


def refusal(status: int, *, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error for a response with status `status` that is no success. `headers` are looked up in lower case."""
    payload = _json(body)
    error = from_object(payload, status=status)
    error.upstream_request_id = headers.get("x-request-id") or headers.get("request-id")
    waiting = retry_after(headers)
    if waiting is not None:
        error.retry_after = waiting
    return error


def hidden_refusal(body: bytes) -> ProviderError | None:
    """The error in a JSON body that came as a success; None when it holds none (`"error": null` is none)."""
    payload = _json(body)
    return from_object(payload) if isinstance(payload, dict) and payload.get("error") else None


def from_object(payload: Json, *, status: int | None = None) -> ProviderError:
    """The error that a vendor's error object means; `status` is None for one inside a stream that began as a 200."""
    error = _error_object(payload)
    words = list(_words(error))
    if status is None:
        status = _numeric_status(error)
    text = _message(error)
    kind = (
        _quota_of_the_day(error)
        or next((_WORDS[word] for word in words if word in _WORDS), None)
        or _moderation(error)
        or _by_phrase(text, status)
        or (None if status else next((_KINDS[word] for word in words if word in _KINDS), None))
        or _by_status(status)
    )
    shown = text or (f"HTTP {status} without an explanation" if status else "an error without an explanation")
    return kind(
        f"{_LEADS.get(kind, '')}{shown}",
        retry_after=_retry_delay(error),
        upstream_status=status,
        upstream_code=words[0] if words else None,
    )


#: For errors that are about us: without these words, a caller would take the vendor's sentence as meant for them.
_LEADS: Final[dict[type[ProviderError], str]] = {
    CredentialsRejected: "our credentials were refused: ",
    QuotaExhausted: "our account has no quota left: ",
}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the headers ask for: `retry-after-ms`, `retry-after` in seconds or as an HTTP date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        if re.fullmatch(r"\s*\d{1,12}(\.\d+)?\s*", value):
            return float(value) * unit
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None


def scrub(text: str, *, secrets: Iterable[str] = ()) -> str:
    """`text` fit for people and logs: one line, not too long, and without `secrets` or anything that looks like a key.

    Vendors repeat a refused key in their message, whole or with its middle starred out.
    """
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
        if len(secret) >= 8:
            text = re.sub(rf"{re.escape(secret[:6])}[\w*.\-…]*", "[key]", text)
    text = _KEY_LIKE.sub("[key]", text)
    text = " ".join(text.split())
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


_KEY_LIKE = re.compile(r"(?:\bsk-|\bgsk_|\bAIza|\bBearer\s+)[\w*.\-]{6,}|[\w-]*\*{3,}[\w-]*")


def _json(body: bytes) -> Json:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _error_object(payload: Json) -> dict[str, Json]:
    """The innermost object that describes the error; a bare text becomes its message."""
    if isinstance(payload, list) and payload:  # Google, when the answer was to be a JSON array
        payload = payload[0]
    if not isinstance(payload, dict):
        return {}
    inner = payload.get("error") or payload
    if isinstance(inner, str):  # Ollama
        return {"message": inner}
    return inner if isinstance(inner, dict) else {}


def _words(error: Mapping[str, Json]) -> Iterator[str]:
    """The vendor's words for the error, the narrowest first."""
    for detail in _details(error):
        yield from _text(detail.get("reason"))  # google.rpc.ErrorInfo
    yield from _text(error.get("code"))
    metadata = error.get("metadata")
    if isinstance(metadata, dict):
        yield from _text(metadata.get("error_type"))  # OpenRouter
    yield from _text(error.get("type"))
    yield from _text(error.get("status"))  # Google


def _text(value: Json) -> Iterator[str]:
    if isinstance(value, str) and value and not value.isdigit():
        yield value


def _details(error: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    details = error.get("details")
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _message(error: Mapping[str, Json]) -> str:
    text = next((value for key in ("message", "detail") if isinstance(value := error.get(key), str)), "")
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    # OpenRouter says "Provider returned error" and puts what the provider said beside it
    return f"{text}: {raw}" if isinstance(raw, str) and raw else text


def _numeric_status(error: Mapping[str, Json]) -> int | None:
    code = error.get("code")
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else None


def _quota_of_the_day(error: Mapping[str, Json]) -> type[ProviderError] | None:
    """Google calls both RESOURCE_EXHAUSTED; a quota per day is not one that waiting a minute helps."""
    for detail in _details(error):
        violations = detail.get("violations")
        if isinstance(violations, list) and any(
            isinstance(violation, dict) and "PerDay" in str(violation.get("quotaId")) for violation in violations
        ):
            return QuotaExhausted
    return None


def _moderation(error: Mapping[str, Json]) -> type[ProviderError] | None:
    """OpenRouter refuses flagged content with a 403 that looks like a refused key but for its metadata."""
    metadata = error.get("metadata")
    return ContentRefused if isinstance(metadata, dict) and metadata.get("reasons") else None


def _by_phrase(text: str, status: int | None) -> type[ProviderError] | None:
    if status is not None and status not in {400, 403, 404, 413, 422}:
        return None
    lowered = text.lower()
    return next((kind for phrase, kind in _PHRASES if phrase in lowered), None)


def _by_status(status: int | None) -> type[ProviderError]:
    if status is None:
        return ServerFault  # an error in mid-answer without a word: the vendor broke off
    if status < 400:
        return MalformedAnswer
    return _STATUSES.get(status) or (InvalidRequest if status < 500 else ServerFault)


def _retry_delay(error: Mapping[str, Json]) -> float | None:
    """Seconds from Google's RetryInfo (`"retryDelay": "32s"`)."""
    for detail in _details(error):
        match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)s", str(detail.get("retryDelay")))
        if match:
            return float(match[1])
    return None
