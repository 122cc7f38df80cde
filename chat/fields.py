"""Columns whose texts are encrypted at rest when there is a key; models and queries see plain values.

A value that no key opens comes as a placeholder and never as an error; stored again, it is what it was. Look-ups
compare with what the column holds: they find nothing in encrypted values.
"""

from __future__ import annotations

import json
from typing import Any, Final

from django.db import models
from django.db.models import Case, Expression, F, Func, Value, When
from django.db.models.functions import Left, Length
from django.db.models.lookups import Exact

from chat.encryption import Undecryptable, open_text, ring, seal_text
from llmchat.lib.encryption import MARK

PLACEHOLDER: Final = "[encrypted with a key that is not in TEXT_ENCRYPTION_KEYS]"


class UnreadableText(str):
    """Stands for a text that cannot be read. `stored`: what its column holds."""

    __slots__ = ("stored",)
    stored: str

    def __new__(cls, stored: str) -> UnreadableText:
        placeholder = super().__new__(cls, PLACEHOLDER)
        placeholder.stored = stored
        return placeholder


class UnreadableList(list[Any]):
    """Stands for a list that cannot be read, as one message that says so."""

    def __init__(self, stored: str) -> None:
        super().__init__([{"role": "unreadable", "content": PLACEHOLDER}])
        self.stored = stored


class UnreadableDict(dict[str, Any]):
    """Stands for an object that cannot be read."""

    def __init__(self, stored: str) -> None:
        super().__init__({"unreadable": PLACEHOLDER})
        self.stored = stored


def is_readable(value: Any) -> bool:
    return not isinstance(value, UnreadableText | UnreadableList | UnreadableDict)


class EncryptedTextField(models.TextField):  # type: ignore[type-arg]  # not generic at run time
    """A text."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, UnreadableText):
            return value.stored
        prepared = super().get_db_prep_save(value, connection)
        return seal_text(prepared, keys=ring()) if isinstance(prepared, str) else prepared

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> str | None:
        if value is None:
            return None
        try:
            return open_text(value, keys=ring())
        except Undecryptable:
            return UnreadableText(value)


class EncryptedJSONField(models.JSONField):
    """A list or an object (its `default` says which), encrypted as a whole into one JSON string."""

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        keys = ring()
        if isinstance(value, UnreadableList | UnreadableDict):
            value = value.stored
        elif keys and value and isinstance(value, list | dict):
            value = keys.encrypt(json.dumps(value).encode())
        return super().get_db_prep_save(value, connection)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        loaded = super().from_db_value(value, expression, connection)
        if not isinstance(loaded, str) or not loaded.startswith(MARK):
            return loaded
        try:
            return json.loads(ring().decrypt(loaded))
        except Undecryptable:
            return UnreadableDict(loaded) if self.default is dict else UnreadableList(loaded)


def start_of(column: str, length: int) -> Expression:
    """The first `length` characters of an `EncryptedTextField`; of an encrypted text, which cannot be cut, all."""
    whole = When(_is_encrypted(column), then=F(column))
    return Case(whole, default=Left(column, length), output_field=EncryptedTextField())


def length_of(column: str) -> Expression:
    """The characters of an `EncryptedTextField`; NULL for an encrypted text."""
    unknown = When(_is_encrypted(column), then=Value(None))
    return Case(unknown, default=Length(column), output_field=models.IntegerField())


class JSONMember(Func):
    """Whether the object in an `EncryptedJSONField` has this key, with this value (None: any). An encrypted one has no
    member that could be seen."""

    output_field = models.BooleanField()

    def __init__(self, column: str, key: str, value: str | None) -> None:
        super().__init__(F(column))
        self.key = key
        self.value = value

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        column, parameters = compiler.compile(self.source_expressions[0])
        # Not by a path: no path names a key that has a quotation mark in it.
        test, wanted = ("", []) if self.value is None else (" AND member.value = %s", [self.value])
        sql = f"EXISTS (SELECT 1 FROM json_each({column}) AS member WHERE member.key = %s{test})"  # noqa: S608 - our column
        return sql, [*parameters, self.key, *wanted]

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> tuple[str, Any]:
        column, parameters = compiler.compile(self.source_expressions[0])
        if self.value is None:
            return f"{column} ? %s", [*parameters, self.key]
        return f"{column} @> %s::jsonb", [*parameters, json.dumps({self.key: self.value})]


def _is_encrypted(column: str) -> Exact:
    # The beginning alone: for LIKE, PostgreSQL would fetch all of a long text.
    return Exact(Left(column, len(MARK)), Value(MARK))
