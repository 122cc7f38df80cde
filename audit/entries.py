"""Writes entries of the audit trail. Call these in the transaction of what they tell of: both stay, or neither."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import connection, models
from django.utils import timezone

from audit import actors
from audit.models import Action, Entry
from llmchat.lib.redaction import Redactor

MASK: Final = "•••"
_SECRET: Final = re.compile(r"(^|_)(password|passwd|secret|token|digest|hash|credentials?|private_key|encrypted_key)$")
_ADDRESS: Final = re.compile(r"(^|_)(url|webhook)$")
#: Longer values are cut: an entry says what changed, it is no copy of the row.
_LONGEST: Final = 2000

_verb: ContextVar[Action | None] = ContextVar("audit_verb", default=None)
_why: ContextVar[Mapping[str, Any]] = ContextVar("audit_details", default={})  # noqa: B039 - never changed


class NoTransaction(Exception):
    """An entry was to be written outside of a transaction: it could be lost while the change went through."""


@contextmanager
def as_action(action: Action, **details: Any) -> Iterator[None]:
    """What changes within is entered as this action, with these details, not as a mere change."""
    verb, why = _verb.set(action), _why.set(details)
    try:
        yield
    finally:
        _verb.reset(verb)
        _why.reset(why)


def record(
    action: Action,
    *,
    object_type: str,
    object_id: object = "",
    object_name: str = "",
    organization_id: UUID | None = None,
    changes: Mapping[str, tuple[Any, Any]] | None = None,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """One entry about one thing. `changes`: values before and after by field. Values may be of any kind.

    Raises NoTransaction outside of a transaction.
    """
    entry = _entry(
        _verb.get() or action,
        object_type=object_type,
        object_id=object_id,
        object_name=object_name,
        organization_id=organization_id,
        changes=changes,
        details={**_why.get(), **(details or {})},
    )
    store([entry])
    return entry


def about(row: models.Model, action: Action, **details: Any) -> Entry:
    """One entry about a row, of which no field has changed."""
    return record(
        action,
        object_type=row._meta.label_lower,
        object_id=row.pk,
        object_name=str(row),
        organization_id=organization_of(row),
        details=details,
    )


def of_fields(row: models.Model, action: Action, changes: Mapping[str, tuple[Any, Any]]) -> Entry:
    """An entry about a row's fields, not stored yet."""
    return _entry(
        _verb.get() or action,
        object_type=row._meta.label_lower,
        object_id=row.pk,
        object_name=str(row),
        organization_id=organization_of(row),
        changes=changes,
        details=_why.get(),
    )


def store(found: list[Entry]) -> None:
    """Raises NoTransaction outside of a transaction."""
    if not found:
        return
    if not connection.in_atomic_block:
        raise NoTransaction("Write the entry in the transaction of the change.")
    Entry.objects.bulk_create(found, batch_size=500)


def organization_of(row: models.Model) -> UUID | None:
    """The organization that a row belongs to, or is."""
    if row._meta.label_lower == "accounts.organization":
        identifier: UUID = row.pk
        return identifier
    return getattr(row, "organization_id", None)


def masked(name: str, value: Any) -> Any:
    """The value of a field of this name as an entry may show it."""
    if value in (None, ""):
        return value
    if _SECRET.search(name):
        return MASK
    if _ADDRESS.search(name) and isinstance(value, str):
        parts = urlsplit(value)
        # Whoever knows the rest of a webhook's address may call it.
        return f"{parts.scheme}://{parts.hostname or ''}/{MASK}" if parts.scheme else MASK
    return plain(value)


def plain(value: Any) -> Any:
    """As JSON can hold it, without secrets that show by their form."""
    match value:
        case None | bool() | int() | float():
            return value
        case dt.datetime():
            return value.isoformat()
        case dict():
            return {str(name): masked(str(name), item) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            text = _clean(str(value))
            return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@cache
def _redactor() -> Redactor:
    return Redactor(settings.SECRETS)


def _clean(text: str) -> str:
    # PostgreSQL stores no NUL character.
    return _redactor().text(text).replace("\x00", "\ufffd")


def _entry(
    action: Action,
    *,
    object_type: str,
    object_id: object,
    object_name: str,
    organization_id: UUID | None,
    changes: Mapping[str, tuple[Any, Any]] | None,
    details: Mapping[str, Any],
) -> Entry:
    actor = actors.current()
    return Entry(
        created_at=timezone.now(),
        organization_id=organization_id,
        person_id=actor.person_id,
        actor_kind=actor.kind,
        actor=actor.name[:200],
        address=actor.address,
        request_id=actor.request_id,
        action=action,
        object_type=object_type,
        object_id=str(object_id),
        object_name=_clean(object_name)[:200],
        changes={name: [masked(name, value) for value in pair] for name, pair in (changes or {}).items()},
        details=plain(details),
    )
