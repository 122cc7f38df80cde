"""What every endpoint shares in the OpenAPI schema: the error shape, the errors it may give, its headers."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, inline_serializer
from rest_framework import serializers

from llmchat.lib import request_id, schema_fields

__all__ = ["errors", "public_errors", "schema_fields", "tell_headers"]

#: Status → what the caller learns from it, and an example's `type`, `code` and message.
_MEANINGS: dict[int, tuple[str, str, str, str]] = {
    400: ("The request is wrong.", "invalid_request_error", "invalid_request", "userId: This field is required."),
    401: (
        "No key, or one that is wrong, expired or revoked.",
        "authentication_error",
        "invalid_api_key",
        "This API key is not valid.",
    ),
    403: (
        "The key or the plan does not allow this.",
        "permission_error",
        "model_not_allowed",
        "The plan Free does not include gpt-4o.",
    ),
    404: (
        "There is no such thing.",
        "not_found_error",
        "model_not_found",
        "There is no model gpt-4z. Did you mean gpt-4o?",
    ),
    405: ("The path has no such method.", "invalid_request_error", "method_not_allowed", 'Method "PUT" not allowed.'),
    406: ("Only JSON is to be had.", "invalid_request_error", "not_acceptable", "Could not satisfy the Accept header."),
    408: ("The body came too slowly.", "invalid_request_error", "request_timeout", "The body did not arrive in time."),
    409: (
        "The request id was used.",
        "conflict_error",
        "idempotency_conflict",
        "This request id belongs to another body.",
    ),
    413: ("The body is too large.", "invalid_request_error", "request_too_large", "The body is too large. Send less."),
    415: (
        "The body is not JSON.",
        "invalid_request_error",
        "unsupported_media_type",
        'Unsupported media type "text/plain" in request.',
    ),
    429: (
        "A limit is reached; Retry-After says when to come again.",
        "rate_limit_error",
        "requests_per_hour_exceeded",
        "The plan Free allows 50 requests an hour. Try again in 12 minutes.",
    ),
    500: ("A fault of ours.", "server_error", "internal_error", "Something went wrong on our side."),
    502: ("The provider failed.", "provider_error", "provider_server_error", "The provider openai failed."),
    503: (
        "Something we need cannot be reached; Retry-After says when to come again.",
        "server_error",
        "database_unavailable",
        "The service cannot reach its database at the moment.",
    ),
    504: (
        "The provider did not answer in time.",
        "provider_error",
        "provider_timeout",
        "openai did not answer in 10 s.",
    ),
}

_ERROR = inline_serializer(
    "Error",
    {
        "error": inline_serializer(
            "ErrorDetail",
            {
                "message": serializers.CharField(help_text="For people, with the remedy."),
                "type": serializers.CharField(help_text="In OpenAI's vocabulary."),
                "code": serializers.CharField(help_text="The stable contract."),
                "param": serializers.CharField(allow_null=True, help_text="The field at fault."),
                "request_id": serializers.CharField(allow_null=True),
            },
        )
    },
)


def errors(*statuses: int) -> dict[Any, OpenApiResponse]:
    """Responses for `extend_schema`: these errors, and those that every endpoint with a key may give."""
    return _responses({*statuses, 400, 401, 403, 405, 406, 429, 500, 503})


def public_errors(*statuses: int) -> dict[Any, OpenApiResponse]:
    """The same for endpoints without a key."""
    return _responses({*statuses, 405, 406, 500})


def _responses(statuses: set[int]) -> dict[Any, OpenApiResponse]:
    # Errors are JSON, whatever else an endpoint answers with.
    return {(status, "application/json"): _response(status) for status in sorted(statuses)}


_REQUEST_ID = {
    "description": "The id of this request: yours, if you sent a plain one, else ours.",
    "schema": {"type": "string", "pattern": r"^[A-Za-z0-9._:-]{1,128}$"},
}
_RETRY_AFTER = {
    "description": "Seconds after which trying again may help.",
    "schema": {"type": "integer", "minimum": 1},
}


def tell_headers(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A hook of drf-spectacular, run on the whole schema: the headers that responses carry, whatever the endpoint."""
    for operations in result["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                headers = response.setdefault("headers", {})
                headers[request_id.HEADER] = _REQUEST_ID
                if status in {"429", "503"}:
                    headers["Retry-After"] = _RETRY_AFTER
    return result


def _response(status: int) -> OpenApiResponse:
    meaning, type_, code, message = _MEANINGS[status]
    body = {
        "error": {
            "message": message,
            "type": type_,
            "code": code,
            "param": None,
            "request_id": "0192a5c1-7a3e-7c51-8c11-2f1f6ab2b3c4",
        }
    }
    return OpenApiResponse(
        _ERROR,
        description=meaning,
        examples=[OpenApiExample(code, value=body, response_only=True, status_codes=[str(status)])],
    )
