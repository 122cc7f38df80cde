"""Words of prompts and responses: what somebody typed as terms, and whether a row has them.

`parcel "on its way" -refund` means the word, the phrase, and not the excluded word. On PostgreSQL words are whole, as
its configuration `simple` takes a text apart: every language alike, no stems, no stop words, because texts of all
languages and code meet in one column. Elsewhere they are parts of the text. An encrypted text has no words to be seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, models
from django.db.models import F, Func, Q

from chat import encryption

#: Words and phrases of one search; what is beyond is passed over.
MOST_TERMS: Final = 20
#: Characters of a prompt, and of a response, in which words are found on PostgreSQL: its limit for one row's words.
SEARCHED: Final = 100_000

_TERM: Final = re.compile(r'(-?)"([^"]*)"?|(-?)(\S+)')
_WORD: Final = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class Term:
    """A word, or words that follow each other."""

    text: str
    is_excluded: bool = False

    @property
    def is_phrase(self) -> bool:
        """Whether the order of words, or what stands between them, counts."""
        return not self.text.isalnum()


def terms(text: str) -> list[Term]:
    """What to look for; nothing when there is no word in `text`, or only excluded ones."""
    found = []
    for minus, phrase, other_minus, word in _TERM.findall(text):
        words = " ".join((phrase or word.strip('"')).split())
        if _WORD.search(words):
            found.append(Term(words, is_excluded=bool(minus or other_minus)))
    found = list(dict.fromkeys(found))[:MOST_TERMS]
    return found if any(not term.is_excluded for term in found) else []


def matching(text: str) -> Q:
    """Whether a row has the terms in its prompt or response, or is of the user, or has the request id, that `text` is
    as a whole. Reads each row's texts."""
    return named(text) if encryption.is_on() else with_words(terms(text)) | named(text)


def named(text: str) -> Q:
    """Whether a row is of this user or has this request id, ours or the caller's."""
    whole = text.strip()
    return Q(user_id=whole) | Q(trace_id=whole) | Q(request_id=whole)


def with_words(wanted: Sequence[Term]) -> Q:
    """Whether a row has these terms in its prompt or response."""
    if connection.vendor == "postgresql":
        return Q(_Words(wanted))
    found = Q()
    for term in wanted:
        has = Q(prompt__icontains=term.text) | Q(response__icontains=term.text)
        found &= ~has if term.is_excluded else has
    return found


class _Words(Func):
    """PostgreSQL's own comparison of a text with words and phrases."""

    output_field = models.BooleanField()

    def __init__(self, wanted: Sequence[Term]) -> None:
        super().__init__(F("prompt"), F("response"))
        self.wanted = tuple(wanted)

    def as_sql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:  # type: ignore[override]
        (prompt, first), (response, second) = (compiler.compile(column) for column in self.source_expressions)
        query = " && ".join(f"{'!!' if term.is_excluded else ''}phraseto_tsquery('simple', %s)" for term in self.wanted)
        texts = f"left({prompt}, {SEARCHED}) || ' ' || left({response}, {SEARCHED})"
        return f"to_tsvector('simple', {texts}) @@ ({query})", [*first, *second, *(term.text for term in self.wanted)]
