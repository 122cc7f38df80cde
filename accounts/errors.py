"""Why a caller is refused before any work is done for it.

    APIError
    ├── ConflictingAPIKeys              400  two headers, two keys
    ├── NotAuthenticated                401
    │   ├── MissingAPIKey                    no key at all
    │   ├── MalformedAPIKey                  a header that cannot be a key
    │   ├── InvalidAPIKey                    no such key
    │   ├── ExpiredAPIKey
    │   └── RevokedAPIKey
    ├── OrganizationInactive            403  a good key of an organization that is switched off
    ├── InsufficientScope               403
    ├── ModelNotAllowed                 403
    ├── TooManyFailedAuthentications    429  by address
    ├── RequestsPerHourExceeded         429  by organization
    └── LimitsUnavailable               503  the counter cannot be reached

Only what is wrong with the key itself is a 401: applications throw their keys away on it. A fault of ours is 503.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmchat.lib.envelope import APIError
from llmchat.lib.wording import counted

#: RFC 6750, section 3: the challenge of a 401.
CHALLENGE = 'Bearer realm="llmchat"'
_WRONG_KEY_CHALLENGE = f'{CHALLENGE}, error="invalid_token"'


class ConflictingAPIKeys(APIError):
    def __init__(self) -> None:
        super().__init__(
            "The headers Authorization and X-API-Key hold different keys. Send one of them.",
            status=400,
            code="conflicting_api_keys",
        )


class NotAuthenticated(APIError):
    """The request does not say convincingly for whom it speaks."""

    def __init__(self, message: str, *, code: str, challenge: str = _WRONG_KEY_CHALLENGE) -> None:
        super().__init__(message, status=401, code=code, headers={"WWW-Authenticate": challenge})


class MissingAPIKey(NotAuthenticated):
    def __init__(self) -> None:
        super().__init__(
            "No API key was sent. Send one in the header 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.",
            code="missing_api_key",
            challenge=CHALLENGE,
        )


class MalformedAPIKey(NotAuthenticated):
    """`header`: the name of the header at fault. What it holds is not repeated: it may be a secret."""

    def __init__(self, header: str) -> None:
        form = "Bearer <key>" if header == "Authorization" else "<key>"
        super().__init__(
            f"The header {header} cannot be read. Send '{header}: {form}', with one key and nothing else.",
            code="malformed_api_key",
        )


class InvalidAPIKey(NotAuthenticated):
    def __init__(self) -> None:
        super().__init__(
            "This API key is not known here. Check that it was copied whole; keys begin with 'llmc_'.",
            code="invalid_api_key",
        )


class ExpiredAPIKey(NotAuthenticated):
    def __init__(self) -> None:
        super().__init__("This API key has expired. Ask your administrator for a new one.", code="api_key_expired")


class RevokedAPIKey(NotAuthenticated):
    def __init__(self) -> None:
        super().__init__("This API key was revoked. Ask your administrator for a new one.", code="api_key_revoked")


class OrganizationInactive(APIError):
    def __init__(self) -> None:
        super().__init__(
            "The organization of this API key is switched off. Ask the operator of this service.",
            status=403,
            code="organization_inactive",
        )


class InsufficientScope(APIError):
    def __init__(self, needed: str, *, has: Sequence[str]) -> None:
        super().__init__(
            f"This needs the scope '{needed}'; your key has {_listed(has) or 'none'}. Use a key that has it.",
            status=403,
            code="insufficient_scope",
            headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{needed}"'},
        )


class ModelNotAllowed(APIError):
    def __init__(self, model: str, *, plan: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"The plan {plan} does not include the model '{model}'. It includes {_listed(allowed)}.",
            status=403,
            code="model_not_allowed",
            param="model",
        )


class TooManyFailedAuthentications(APIError):
    """`retry_after`: seconds until the address may try again."""

    def __init__(self, *, retry_after: float) -> None:
        super().__init__(
            "Too many requests from this address had a wrong API key. Check your key, wait, then try again.",
            status=429,
            code="too_many_failed_authentications",
            retry_after=retry_after,
        )


class RequestsPerHourExceeded(APIError):
    """`retry_after`: seconds until the count begins anew."""

    def __init__(self, *, plan: str, limit: int, retry_after: int, headers: Mapping[str, str]) -> None:
        super().__init__(
            f"The plan {plan} allows {counted(limit, 'request')} an hour, and your organization has made as many. "
            f"Try again in {_duration(retry_after)}, or ask for a larger plan.",
            status=429,
            code="requests_per_hour_exceeded",
            retry_after=retry_after,
            headers=headers,
        )


class LimitsUnavailable(APIError):
    def __init__(self) -> None:
        super().__init__(
            "The service cannot count requests at the moment. Nothing is wrong with your request: try it again.",
            status=503,
            code="limits_unavailable",
            retry_after=5,
        )


def _listed(names: Sequence[str], *, most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _duration(seconds: int) -> str:
    if seconds < 90:
        return f"{max(seconds, 1)} s"
    return f"{-(-seconds // 60)} minutes"
