"""Brings the record's texts to the newest key: what is plain or under an older key is encrypted anew, or, when
encryption is switched off, decrypted. May be ended at any moment and begun again: what is done is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.apps import apps
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Cast

from chat.encryption import open_text, ring
from chat.fields import EncryptedJSONField, EncryptedTextField
from chat.models import Attempt
from llmchat.lib.encryption import MARK, KeyRing, Undecryptable

#: Rows in one transaction: on SQLite, everybody else's writes wait for it.
BATCH: Final = 100

_STORED: Final = "stored_"

#: The columns by whose index the rows of a model are walked through, the first a UUIDv7.
Position = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one batch came to. `changed`: rows, or with a dry run those that would be; `unreadable`: rows with a value
    that no key opens, which stays as it is; `last`: the position up to which all are done, its `last_id` first."""

    changed: int
    unreadable: int
    last: tuple[Any, ...]

    @property
    def last_id(self) -> UUID:
        identifier: UUID = self.last[0]
        return identifier


def models_with_texts() -> list[type[models.Model]]:
    """The models that have encrypted columns."""
    return [model for model in apps.get_models() if _fields(model)]


def rekey(model: type[models.Model], *, opening: KeyRing, dry_run: bool = False) -> Generator[Step, None, None]:
    """Works through the rows in order of time. `opening`: the keys to read with; written is with the settings' ring."""
    last: tuple[Any, ...] = ()
    while step := _batch(model, opening=opening, after=last, dry_run=dry_run):
        yield step
        last = step.last


@transaction.atomic
def _batch(model: type[models.Model], *, opening: KeyRing, after: tuple[Any, ...], dry_run: bool) -> Step | None:
    fields = _fields(model)
    stored = {f"{_STORED}{field.name}": Cast(field.name, models.TextField()) for field in fields}
    position = _position(model)
    rows = models.QuerySet(model).annotate(**stored).filter(_pending(fields)).order_by(*position)
    if after:
        rows = rows.filter(_beyond(position, after))
    if not dry_run:
        # Lest a text that is erased between reading and writing comes back.
        rows = rows.select_for_update()
    changed, unreadable, last = 0, 0, after
    for row in rows.values(*position, *stored)[:BATCH]:
        last = tuple(row[column] for column in position)
        values, failed = _opened(row, fields, opening=opening)
        unreadable += failed
        if values:
            changed += 1
            if not dry_run:
                models.QuerySet(model).filter(**dict(zip(position, last, strict=True))).update(**values)
    return Step(changed=changed, unreadable=unreadable, last=last) if last != after else None


def _position(model: type[models.Model]) -> Position:
    # Attempts have no index by their own ids.
    return ("interaction_id", "number") if model is Attempt else ("pk",)


def _beyond(position: Position, last: tuple[Any, ...]) -> Q:
    first, *rest = position
    if not rest:
        return Q(**{f"{first}__gt": last[0]})
    # The first condition is what the index is entered by.
    return Q(**{f"{first}__gte": last[0]}) & (Q(**{f"{first}__gt": last[0]}) | Q(**{f"{rest[0]}__gt": last[1]}))


def _fields(model: type[models.Model]) -> list[EncryptedTextField | EncryptedJSONField]:
    return [
        field for field in model._meta.concrete_fields if isinstance(field, EncryptedTextField | EncryptedJSONField)
    ]


def _pending(fields: list[EncryptedTextField | EncryptedJSONField]) -> Q:
    """Rows with a column that is not as the settings' ring would store it."""
    newest = ring().newest_mark
    pending = Q()
    for field in fields:
        name = f"{_STORED}{field.name}"
        quote = '"' if isinstance(field, EncryptedJSONField) else ""
        if newest:
            pending |= ~Q(**{f"{name}__in": ("", "[]", "{}")}) & ~Q(**{f"{name}__startswith": quote + newest})
        else:
            pending |= Q(**{f"{name}__startswith": quote + MARK})
    return pending


def _opened(
    row: dict[str, Any], fields: list[EncryptedTextField | EncryptedJSONField], *, opening: KeyRing
) -> tuple[dict[str, Any], bool]:
    """The plain values of the row's columns that are to be stored anew, and whether there is one that no key opens."""
    values: dict[str, Any] = {}
    failed = False
    newest = ring().newest_mark
    for field in fields:
        stored: str = row[f"{_STORED}{field.name}"]
        try:
            if isinstance(field, EncryptedJSONField):
                value = json.loads(stored)
                encrypted = value if isinstance(value, str) else ""
                if encrypted.startswith(MARK):
                    value = json.loads(opening.decrypt(encrypted))
            else:
                encrypted = stored if stored.startswith(MARK) else ""
                value = open_text(stored, keys=opening)
        except Undecryptable:
            failed = True
            continue
        if encrypted if not newest else value and not encrypted.startswith(newest):
            values[field.name] = value
    return values, failed
