"""Interactions for a file: rows in the order of their ids, past the ORM, in texts that `llmchat.lib.tables` takes.

A page is one short statement from an id on, which neither keeps a transaction open nor costs more towards the end. On
PostgreSQL the driver hands over values as the server's texts, with a fraction of the work that Django's values take
(`bench.exports` tells both). Texts at rest are opened; what no key opens comes as the admin's placeholder.
"""

from __future__ import annotations

import decimal
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from django.db import connection, models
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast
from psycopg.types.string import TextLoader

from accounts.models import Organization
from chat.encryption import Undecryptable, open_text, ring
from chat.fields import PLACEHOLDER, EncryptedJSONField, EncryptedTextField, UnreadableDict, UnreadableList
from chat.models import Interaction
from chat.privacy import ERASED
from llmchat.lib.encryption import MARK
from llmchat.lib.tables import Column, Kind

#: Rows of one statement, and of what is in memory at once.
PAGE: Final = 10_000
CHUNK: Final = 500

#: What a redacted export does not have: all that a caller or a model wrote, and names that a caller gave a request.
REDACTED: Final = frozenset({*ERASED, "request_id", "trace_id"})
#: Under which a pseudonym stands.
PSEUDONYM: Final = "user_pseudonym"

_ORGANIZATION: Final = "organization"
_KINDS: Final[dict[type, Kind]] = {
    models.UUIDField: Kind.UUID,
    models.DateTimeField: Kind.MOMENT,
    models.DecimalField: Kind.DECIMAL,
    models.PositiveIntegerField: Kind.INTEGER,
    models.PositiveSmallIntegerField: Kind.INTEGER,
    models.FloatField: Kind.NUMBER,
    models.BooleanField: Kind.BOOLEAN,
    EncryptedJSONField: Kind.JSON,
}

Convert = Callable[[Sequence[Any]], Sequence[Any]]
Chunk = list[tuple[Any, ...]]


def columns(*, redact: bool) -> tuple[Column, ...]:
    """The columns of an export: those of the row by their names in the database, and the organization's name."""
    found = []
    for model_field in _fields(redact=redact):
        name = str(model_field.attname)
        found.append(Column(PSEUDONYM if redact and name == "user_id" else name, _kind(model_field)))
        if name == "organization_id":
            found.append(Column(_ORGANIZATION))
    return tuple(found)


@dataclass(slots=True, kw_only=True)
class Reader:
    """Reads the rows of a queryset, whose order does not count.

    `redact`: without texts, and with pseudonyms for users, which `secret` makes: the same user of the same organization
    has the same one wherever the secret is the same, and nobody finds the user from it. `unreadable` counts values that
    no key opened.
    """

    rows: QuerySet[Interaction]
    redact: bool = False
    secret: bytes = b""
    unreadable: int = field(default=0, init=False)

    @property
    def full(self) -> int:
        return PAGE

    def page(self, after: str | None) -> Iterator[Chunk]:
        """The next rows after an id, in pieces; the first value of each row is its id. No other query can run on the
        connection before the last piece was taken."""
        rows = self.rows.order_by("id")
        if after is not None:
            rows = rows.filter(id__gt=after)
        fields = _fields(redact=self.redact)
        # As text, lest a driver makes values of them that are made texts of again.
        moments = {
            f"{each.attname}_text": Cast(str(each.attname), TextField())
            for each in fields
            if isinstance(each, models.DateTimeField)
        }
        names = [f"{each.attname}_text" if f"{each.attname}_text" in moments else str(each.attname) for each in fields]
        statement, parameters = rows.annotate(**moments).values_list(*names)[: self.full].query.sql_with_params()
        converters = [self._converter(each) for each in fields]
        place = [str(each.attname) for each in fields].index("organization_id")
        user = [str(each.attname) for each in fields].index("user_id")
        organizations = _OrganizationNames()
        for chunk in _chunks(statement, parameters):
            values: list[Sequence[Any]] = [
                found if convert is None else convert(found)
                for convert, found in zip(converters, zip(*chunk, strict=True), strict=True)
            ]
            if self.redact:
                values[user] = [
                    _pseudonym(self.secret, organization, name)
                    for organization, name in zip(values[place], values[user], strict=True)
                ]
            values.insert(place + 1, [organizations[identifier] for identifier in values[place]])
            yield list(zip(*values, strict=True))

    def _converter(self, model_field: models.Field[Any, Any]) -> Convert | None:
        """What makes the texts of a column of what the driver gives; None: it is as it should be."""
        kind: Any = model_field
        while isinstance(kind, models.ForeignKey):
            kind = kind.target_field
        if isinstance(kind, EncryptedTextField):
            return self._opened
        if isinstance(kind, EncryptedJSONField):
            stand_in = UnreadableDict("") if kind.default is dict else UnreadableList("")
            return functools.partial(self._opened_documents, unreadable=json.dumps(stand_in))
        if isinstance(kind, models.DateTimeField):
            return _moments
        if connection.vendor == "postgresql":
            return None
        if isinstance(kind, models.UUIDField):
            return _dashed
        return _decimals if isinstance(kind, models.DecimalField) else None

    def _opened(self, values: Sequence[Any]) -> Sequence[Any]:
        # Whatever is sealed, or looks like it, begins so; most texts do not.
        return [self._open(value) if value and value[:3] == "enc" else value for value in values]

    def _open(self, value: str) -> str:
        try:
            return open_text(value, keys=ring())
        except Undecryptable:
            self.unreadable += 1
            return PLACEHOLDER

    def _opened_documents(self, values: Sequence[Any], *, unreadable: str) -> Sequence[Any]:
        return [self._open_document(value, unreadable) if value and value[0] == '"' else value for value in values]

    def _open_document(self, value: str, unreadable: str) -> str:
        text = json.loads(value)
        if not text.startswith(MARK):
            return value
        try:
            return ring().decrypt(text).decode()
        except Undecryptable:
            self.unreadable += 1
            return unreadable


def _fields(*, redact: bool) -> list[models.Field[Any, Any]]:
    every: Any = Interaction._meta.concrete_fields
    return [each for each in every if not (redact and each.attname in REDACTED)]


def _kind(model_field: Any) -> Kind:
    while isinstance(model_field, models.ForeignKey):
        model_field = model_field.target_field
    return _KINDS.get(type(model_field), Kind.TEXT)


# --- From the database ------------------------------------------------------------------------------------------------
def _chunks(statement: str, parameters: Sequence[Any]) -> Iterator[Sequence[Sequence[Any]]]:
    connection.ensure_connection()
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            while rows := cursor.fetchmany(CHUNK):
                yield rows
        return
    # Django's own cursor would make values of texts, and have the whole page in memory.
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        for name in ("uuid", "numeric"):
            cursor.adapters.register_loader(name, TextLoader)
        rows = []
        for row in cursor.stream(statement, parameters, size=CHUNK):
            rows.append(row)
            if len(rows) == CHUNK:
                yield rows
                rows = []
        if rows:
            yield rows


class _OrganizationNames(dict[str, str]):
    """Names by ids, each asked for when it is met: no query between the pieces of a page."""

    def __init__(self) -> None:
        super().__init__((str(pk), name) for pk, name in Organization.objects.values_list("pk", "name"))

    def __missing__(self, identifier: str) -> str:
        return ""


@functools.lru_cache(maxsize=50_000)
def _pseudonym(secret: bytes, organization: str, user: str) -> str:
    text = f"{organization}/{user}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, key=secret, digest_size=16).hexdigest()


def _moments(values: Sequence[Any]) -> Sequence[Any]:
    """ISO 8601 of "2026-10-22 18:48:06.039+00", as PostgreSQL has it in UTC, or without the end, as SQLite has it."""
    return [None if value is None else f"{value[:10]}T{value[11:].removesuffix('+00')}Z" for value in values]


def _dashed(values: Sequence[Any]) -> Sequence[Any]:
    return [value and f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}" for value in values]


#: As Django reads SQLite's numbers.
_SQLITE: Final = decimal.Context(prec=15)


def _decimals(values: Sequence[Any]) -> Sequence[Any]:
    places = decimal.Decimal(1).scaleb(-12)
    return [
        None if value is None else format(_SQLITE.create_decimal_from_float(value).quantize(places), "f")
        for value in values
    ]
