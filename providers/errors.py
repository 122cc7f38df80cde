"""Everything that can go wrong with a provider, as one tree. Adapters raise nothing else.

    ProviderError
    ├── NotConfigured            we have no key, no such provider, no such adapter
    ├── CallerError              the request is at fault: the same request fails again
    │   ├── InvalidRequest
    │   ├── ContextLengthExceeded
    │   ├── ContentRefused       the vendor's content policy
    │   └── ModelNotFound
    ├── CredentialsRejected      *our* key is refused: our 502, never the caller's 401
    ├── QuotaExhausted           *our* account is empty
    ├── RateLimited              the vendor asks us to slow down
    ├── Unavailable              the vendor is at fault, or the way to it
    │   ├── ConnectionFailed     refused, reset, DNS, TLS
    │   ├── ServerFault          500 and kin
    │   ├── Overloaded           503, 529
    │   └── TimedOut
    │       ├── FirstByteTimeout     nothing came at all
    │       ├── FirstTokenTimeout    it answered, but no token came
    │       ├── Stalled              silence in mid-answer
    │       └── DeadlineExceeded     the whole call took too long
    └── MalformedAnswer          an answer that cannot be read
        ├── TruncatedAnswer      the stream ended without a finish reason
        └── AnswerTooLarge

Each class answers three questions as class attributes: `http_status` (what our caller sees when nothing else
helped), `retryable` (is the same call to the same provider worth another try?) and `failover` (may another
provider do it?). `code` is the stable contract towards callers. Messages never contain credentials.
"""

from __future__ import annotations

from typing import ClassVar


class ProviderError(Exception):
    """Base of the tree.

    `message`: for people, without secrets. `provider`: its slug. `retry_after`: seconds that the vendor asks us to
    wait. `upstream_status`, `upstream_code`: the vendor's HTTP status and error code. `upstream_request_id`: the
    vendor's id of the call, for its support.
    """

    http_status: ClassVar[int] = 502
    retryable: ClassVar[bool] = False
    failover: ClassVar[bool] = True
    code: ClassVar[str] = "provider_error"
    type: ClassVar[str] = "provider_error"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        retry_after: float | None = None,
        upstream_status: int | None = None,
        upstream_code: str | None = None,
        upstream_request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.retry_after = retry_after
        self.upstream_status = upstream_status
        self.upstream_code = upstream_code
        self.upstream_request_id = upstream_request_id


class NotConfigured(ProviderError):
    http_status = 503
    code = "provider_not_configured"


class CallerError(ProviderError):
    http_status = 400
    failover = False
    code = "invalid_request"
    type = "invalid_request_error"


class InvalidRequest(CallerError):
    pass


class ContextLengthExceeded(CallerError):
    code = "context_length_exceeded"


class ContentRefused(CallerError):
    code = "content_policy_violation"


class ModelNotFound(CallerError):
    """The vendor does not know the model: our catalogue is wrong or the vendor retired it, so another may do it."""

    http_status = 404
    failover = True
    code = "model_not_found"
    type = "not_found_error"


class CredentialsRejected(ProviderError):
    code = "provider_credentials_rejected"


class QuotaExhausted(ProviderError):
    code = "provider_quota_exhausted"


class RateLimited(ProviderError):
    http_status = 503
    retryable = True
    code = "provider_rate_limited"


class Unavailable(ProviderError):
    retryable = True
    code = "provider_unavailable"


class ConnectionFailed(Unavailable):
    code = "provider_connection_failed"


class ServerFault(Unavailable):
    code = "provider_server_error"


class Overloaded(Unavailable):
    http_status = 503
    code = "provider_overloaded"


class TimedOut(Unavailable):
    http_status = 504
    retryable = False  # the silent route has had its chance: waiting again costs the caller the same time again
    code = "provider_timeout"


class FirstByteTimeout(TimedOut):
    pass


class FirstTokenTimeout(TimedOut):
    pass


class Stalled(TimedOut):
    code = "provider_stalled"


class DeadlineExceeded(TimedOut):
    failover = False  # the time is the caller's, and it is used up
    code = "deadline_exceeded"


class MalformedAnswer(ProviderError):
    retryable = True
    code = "provider_malformed_answer"


class TruncatedAnswer(MalformedAnswer):
    code = "provider_truncated_answer"


class AnswerTooLarge(MalformedAnswer):
    retryable = False
    code = "provider_answer_too_large"
