"""Where a vendor's side ends and ours begins, whoever brings the bytes: what may come in, and which errors may leave.

Knows neither transport nor dialect.
"""

from __future__ import annotations

from typing import Final

from providers.adapters import classify
from providers.adapters.base import ProviderConfig
from providers.errors import AnswerTooLarge, MalformedAnswer, NotConfigured, ProviderError

#: An explanation is short; a refusal's error page need not be.
MAX_REFUSAL_BYTES: Final = 64 * 1024
#: An answer or a list of models that comes in one piece.
MAX_WHOLE_BYTES: Final = 20_000_000
#: How long to wait for a refusal's explanation, in seconds.
EXPLANATION: Final = 2.0


class only_our_errors:  # noqa: N801 - a context manager, as the standard library spells its own
    """Around every use of a library: what comes out is an error of our tree that names the provider and no secret."""

    __slots__ = ("_config",)

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or (ours := _ours_behind(error)) is None:
            return
        config = self._config
        ours.provider = config.slug
        ours.message = f"{config.slug}: {classify.scrub(ours.message, secrets=_secrets(config))}"
        ours.args = (ours.message,)
        if ours is not error:
            raise ours from None


def _ours_behind(error: BaseException) -> ProviderError | None:
    """The error of ours that a library may have wrapped in one of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ProviderError):
        cause = cause.__cause__
    return cause


def _secrets(config: ProviderConfig) -> list[str]:
    """The key, and those of the provider's headers whose name says that they are secret."""
    telling = ("auth", "key", "token", "secret", "cookie")
    headers = (value for name, value in config.headers.items() if any(word in name.lower() for word in telling))
    return [value for value in (config.api_key, *headers) if value]


def kind_of(content_type: str) -> str:
    """The media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def not_an_answer(kind: str, *, head: bytes) -> ProviderError:
    """The error for a success of the wrong `kind`: an error object sent as a 200, a captive portal's page."""
    hidden = classify.hidden_refusal(head) if kind == "application/json" else None
    return hidden or MalformedAnswer(f"it answered with {kind or 'no content type'} instead of an event stream.")


def not_sendable(config: ProviderConfig) -> NotConfigured:
    """For an address or a header that HTTP cannot carry. A library's own message would repeat it, secrets and all."""
    name = config.setting or config.slug.upper()
    return NotConfigured(f"{name}_BASE_URL, {name}_API_KEY or its headers cannot be sent over HTTP.")


def too_large() -> AnswerTooLarge:
    return AnswerTooLarge(f"the answer is larger than {MAX_WHOLE_BYTES} bytes.")
