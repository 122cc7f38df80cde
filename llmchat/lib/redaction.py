"""Takes secrets out of what is about to be written to a log: by the name they go by, by their form, and by value."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

#: Fields whose value is a secret whatever it looks like; compared in lower case with "-" for "_".
SECRET_NAMES = frozenset(
    {
        "access-token",
        "api-key",
        "apikey",
        "authorization",
        "client-secret",
        "cookie",
        "credentials",
        "password",
        "proxy-authorization",
        "refresh-token",
        "secret",
        "secret-key",
        "set-cookie",
        "x-api-key",
        "x-goog-api-key",
    }
)

#: Forms of secrets in free text. What is in the group `lead` is kept, so that a line still says what it was about.
_FORMS = (
    r"(?P<lead>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}",
    r"(?P<lead>://[^/\s:@]*:)[^/\s@]+(?=@)",
    (
        r"(?P<lead>\b(?:api[_-]?key|password|passwd|secret(?:_key)?|authorization)[\"']?\s*[:=]\s*[\"']?)"
        r"(?!bearer\b|basic\b)[^\s\"',;&)}\]]{4,}"
    ),
    r"(?P<lead>[?&]key=)[^\s&\"']+",
    r"\bllmc_[\w-]{12,}",
    r"\b(?:sk|pk|rk)-[\w-]{8,}",
    r"\bAIza[\w-]{20,}",
    r"\b(?:gsk|tgp|ghp|xoxb)_[\w-]{16,}",
    r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
)
#: Every form above needs one of these, in lower case. Most text has none and is spared the forms, which would cost more
#: than all else about a line.
_TRACES = (
    *("bearer", "basic", "://", "key", "passw", "secret", "authorization"),
    *("llmc_", "sk-", "pk-", "rk-", "aiza", "gsk_", "tgp_", "ghp_", "xoxb_", "eyj"),
)
_WITHOUT_TEXT = frozenset({bool, int, float, type(None)})
#: A shorter value could be a word of ordinary text.
_SHORTEST_KNOWN = 6


class Redactor:
    """Replaces secrets in values of any shape. `known`: secrets to be found by value, such as providers' keys."""

    def __init__(self, known: Collection[str] = ()) -> None:
        self._values = sorted({value for value in known if len(value) >= _SHORTEST_KNOWN}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, self._values))) if self._values else None
        self._forms = [re.compile(form, re.IGNORECASE) for form in _FORMS]
        # Names are few and come from code: what is theirs to say is said once.
        self._name = lru_cache(maxsize=1024)(self._judge_name)
        self._are_harmless = lru_cache(maxsize=1024)(self._judge_names)

    def text(self, text: str) -> str:
        # To look for one word after the other is several times quicker than an expression of them all.
        for known in self._values:
            if known in text and self._known is not None:
                text = self._known.sub(REDACTED, text)
                break
        if _has_traces(text):
            for form in self._forms:
                text = form.sub(_keep_lead, text)
        return text

    def leaves(self, facts: Mapping[str, Any]) -> bool:
        """Whether `value` would give back the same, found with one look at all of it; False when that does not tell."""
        if not self._are_harmless(tuple(facts)):
            return False
        texts = []
        for value in facts.values():
            kind = type(value)
            if kind is str:
                texts.append(value)
            elif kind not in _WITHOUT_TEXT:
                return False
        text = "\n".join(texts)
        for known in self._values:
            if known in text:
                return False
        return not _has_traces(text)

    def value(self, value: Any) -> Any:
        """The value without secrets: mappings and sequences are copied, what is neither they nor a number is text."""
        match value:
            case str():
                return self.text(value)
            case None | bool() | int() | float():
                return value
            case Mapping():
                redacted = {}
                for name, inner in value.items():
                    shown, is_secret = self._name(str(name))
                    redacted[shown] = REDACTED if is_secret and inner else self.value(inner)
                return redacted
            case list() | tuple() | set() | frozenset():
                return [self.value(inner) for inner in value]
            case _:
                return self.text(str(value))

    def _judge_names(self, names: tuple[str, ...]) -> bool:
        return all(self._name(name) == (name, False) for name in names)

    def _judge_name(self, name: str) -> tuple[str, bool]:
        return self.text(name), is_secret_name(name)


def is_secret_name(name: str) -> bool:
    """Whether what goes by this name is a secret whatever it looks like."""
    return name.lower().replace("_", "-") in SECRET_NAMES


def _has_traces(text: str) -> bool:
    lowered = text.lower()
    for trace in _TRACES:  # noqa: SIM110 - a generator would cost as much again
        if trace in lowered:
            return True
    return False


def _keep_lead(match: re.Match[str]) -> str:
    return f"{match.groupdict().get('lead') or ''}{REDACTED}"
