"""How a provider's failure looks to our caller: the one error shape with the status that the provider's error names."""

from __future__ import annotations

from llmchat.lib.envelope import APIError
from providers.errors import (
    CredentialsRejected,
    NotConfigured,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
)

#: Seconds after which trying again may help, when the provider did not say.
_RETRY_AFTER: tuple[tuple[type[ProviderError], float], ...] = ((RateLimited, 5.0), (Overloaded, 5.0))

#: Faults that the caller cannot mend, told without the provider's own words about our account.
_OURS: dict[type[ProviderError], str] = {
    CredentialsRejected: "refuses our credentials; your key is fine. Name another model until the operator mends it.",
    QuotaExhausted: "says that our account is used up. Name another model until the operator mends it.",
}


class RecordUnavailable(APIError):
    """What happens cannot be put on record now, so that it must not happen."""

    def __init__(self) -> None:
        super().__init__(
            "The service cannot put your request on record at the moment, so it was not answered. Try it again.",
            status=503,
            code="record_unavailable",
            retry_after=5,
        )


class IdempotencyConflict(APIError):
    """The caller's request id belongs to a request that said something else."""

    def __init__(self) -> None:
        super().__init__(
            "This request id belongs to another request of yours. Send the same body with it, or take a new id.",
            status=409,
            code="idempotency_conflict",
            param="requestId",
        )


class AnswerNotKept(APIError):
    """The request was answered, and the answer's text is not on record."""

    def __init__(self) -> None:
        super().__init__(
            "The request with this id was answered, but its text is not kept, so that it cannot be given again. "
            "Take a new id to ask again.",
            status=409,
            code="idempotent_answer_not_kept",
            param="requestId",
        )


class StillRunning(APIError):
    """Another process is at the request for longer than a request may take."""

    def __init__(self) -> None:
        super().__init__(
            "The request with this id is still being answered. Send it again later to get the answer.",
            status=409,
            code="idempotent_request_running",
            param="requestId",
            retry_after=5,
        )


def as_api_error(error: ProviderError) -> APIError:
    """The response to a call that ended with `error`."""
    message = error.message
    if (ours := _OURS.get(type(error))) is not None:
        message = f"The provider {error.provider or 'asked'} {ours}"
    retry_after = error.retry_after
    if retry_after is None and not isinstance(error, NotConfigured):
        retry_after = next((seconds for kind, seconds in _RETRY_AFTER if isinstance(error, kind)), None)
    return APIError(
        message,
        status=error.http_status,
        type=error.type,
        code=error.code,
        retry_after=retry_after if error.http_status in {429, 503} else None,
    )
