"""What of an exchange stays on record: no credentials ever, and for a caller who wants no texts kept, no words at all.

From rows to rows; knows neither the database nor what the caller is told, which is always everything.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.conf import settings
from django.utils import timezone

from accounts.principals import Principal
from chat.models import Attempt, Interaction
from llmchat.lib.redaction import REDACTED, Redactor, is_secret_name

#: What is kept in place of an error's message, which may quote the texts. By the error's code.
_OWN_WORDS: Final = {
    "content_policy_violation": "The provider's content policy refused the request.",
    "context_length_exceeded": "The request was longer than the model's context.",
    "deadline_exceeded": "The whole answer took too long.",
    "invalid_request": "The provider refused the request.",
    "model_not_found": "The provider does not know the model.",
    "provider_answer_too_large": "The provider's answer was too large.",
    "provider_connection_failed": "The provider could not be reached.",
    "provider_credentials_rejected": "The provider refused our credentials.",
    "provider_error": "The provider failed.",
    "provider_malformed_answer": "The provider's answer could not be read.",
    "provider_not_configured": "The provider is not configured.",
    "provider_overloaded": "The provider was overloaded.",
    "provider_quota_exhausted": "Our account with the provider was used up.",
    "provider_rate_limited": "The provider asked us to slow down.",
    "provider_server_error": "The provider failed on its side.",
    "provider_stalled": "The provider fell silent in mid-answer.",
    "provider_timeout": "The provider did not answer in time.",
    "provider_truncated_answer": "The provider's answer broke off.",
    "provider_unavailable": "The provider was not available.",
}

#: What an erased interaction no longer holds, and an attempt of it: a provider's error may quote the prompt.
ERASED: Final[Mapping[str, Any]] = {
    "prompt": "",
    "system_prompt": "",
    "messages": [],
    "parameters": {},
    "response": "",
    "reasoning": "",
    "tool_calls": [],
    "metadata": {},
    "error_message": "",
}
ERASED_ATTEMPT: Final[Mapping[str, Any]] = {"error_message": ""}


def as_kept(
    interaction: Interaction, attempts: Sequence[Attempt], *, principal: Principal
) -> tuple[Interaction, list[Attempt]]:
    """The rows as `principal` lets them be stored: copies without what is not kept, the rows themselves if all is.

    Credentials that a caller sends as parameters or metadata are no texts of theirs; those in a prompt are.
    """
    parameters = _without_credentials(interaction.parameters)
    metadata = _without_credentials(interaction.metadata)
    keeps_texts = principal.keeps_prompts and principal.keeps_responses
    if keeps_texts and parameters is interaction.parameters and metadata is interaction.metadata:
        return interaction, list(attempts)
    kept = copy.copy(interaction)
    kept.parameters, kept.metadata = parameters, metadata
    if keeps_texts:
        return kept, list(attempts)
    if not principal.keeps_prompts:
        kept.prompt, kept.system_prompt, kept.messages = "", "", []
        # Numbers and switches say how an answer was wanted; everything else may be text: tools, schemas, stop words.
        kept.parameters = {name: value for name, value in kept.parameters.items() if isinstance(value, int | float)}
    if not principal.keeps_responses:
        kept.response, kept.reasoning, kept.tool_calls = "", "", []
    kept.error_message = _in_own_words(kept)
    return kept, [_without_quotes(attempt) for attempt in attempts]


def erased(interaction: Interaction, attempts: Sequence[Attempt]) -> tuple[Interaction, list[Attempt]]:
    """Copies of the rows with numbers alone, out of their conversation, as its deletion leaves its other rows."""
    interaction, attempts = copy.copy(interaction), [copy.copy(attempt) for attempt in attempts]
    for row, blank in ((interaction, ERASED), *((attempt, ERASED_ATTEMPT) for attempt in attempts)):
        for name, value in blank.items():
            setattr(row, name, value)
    interaction.conversation = None
    interaction.erased_at = timezone.now()
    return interaction, attempts


def without_secrets(text: str) -> str:
    """What a provider says, without our keys and whatever looks like one."""
    return _redactor().text(text) if text else ""


def without_our_secrets(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a provider adds to its answer, except what repeats a secret of ours."""
    secrets = [secret for secret in settings.SECRETS if secret]
    return {name: value for name, value in fields.items() if not any(secret in str(value) for secret in secrets)}


@functools.cache
def _redactor() -> Redactor:
    return Redactor(settings.SECRETS)


def _without_credentials(value: Any) -> Any:
    """The value with strings under names such as `api_key` taken out; itself when there are none."""
    return _cleaned(value) if _has_credentials(value) else value


def _has_credentials(value: Any) -> bool:
    # Twice for each exchange, nearly always in vain: nothing is built.
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, str):
                if is_secret_name(name):
                    return True
            elif isinstance(inner, dict | list) and _has_credentials(inner):
                return True
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, dict | list) and _has_credentials(inner):
                return True
    return False


def _cleaned(value: Any) -> Any:
    match value:
        case dict():
            return {
                name: REDACTED if isinstance(inner, str) and is_secret_name(name) else _cleaned(inner)
                for name, inner in value.items()
            }
        case list():
            return [_cleaned(inner) for inner in value]
    return value


def _without_quotes(attempt: Attempt) -> Attempt:
    kept = copy.copy(attempt)
    kept.error_message = _in_own_words(kept)
    return kept


def _in_own_words(row: Interaction | Attempt) -> str:
    if not row.error_message:
        return ""
    return _OWN_WORDS.get(row.error_code, f"It ended with the error {row.error_code}.")
