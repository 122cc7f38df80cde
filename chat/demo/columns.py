"""Which columns of which tables demo data fill, and what they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import connection, models

from chat.demo import shapes
from chat.encryption import ring, seal_text
from chat.fields import EncryptedJSONField
from chat.models import Attempt, Conversation, Interaction

TABLES: Final[Sequence[tuple[type[models.Model], tuple[str, ...]]]] = (
    (Conversation, shapes.CONVERSATION),
    (Interaction, shapes.INTERACTION),
    (Attempt, shapes.ATTEMPT),
)
#: What is its own in each row, in the order in which it is copied: before all other columns.
OWN: Final[Mapping[type[models.Model], tuple[str, ...]]] = {
    Conversation: ("id", "created_at", "updated_at"),
    Interaction: ("id", "created_at", "trace_id", "conversation_id", "finished_at", "request_id"),
    Attempt: ("id", "interaction_id", "started_at"),
}
#: Copied last: its end may be its own, too.
LAST: Final[Mapping[type[models.Model], str]] = {Interaction: "prompt"}


def in_copy_order(model: type[models.Model]) -> tuple[str, ...]:
    """The columns in the order of a COPY."""
    names = dict(TABLES)[model]
    own, last = OWN[model], LAST.get(model)
    rest = [name for name in names if name not in own and name != last]
    return (*own, *rest, *([last] if last else []))


def copy_statement(model: type[models.Model], *, table: str | None = None, freeze: bool = False) -> str:
    columns = ", ".join(connection.ops.quote_name(name) for name in in_copy_order(model))
    into = connection.ops.quote_name(table or model._meta.db_table)
    return f"COPY {into} ({columns}) FROM STDIN (FORMAT BINARY{', FREEZE' if freeze else ''})"


def column_of(model: type[models.Model], name: str) -> Any:
    references = {field.attname for field in model._meta.concrete_fields if field.attname != field.name}
    return model._meta.get_field(name.removesuffix("_id") if name in references else name)


def sealing(field: Any) -> Callable[[str], str] | None:
    """How a text or a JSON text is encrypted; None when it is not."""
    keys = ring()
    if not keys:
        return None
    if isinstance(field, EncryptedJSONField):
        return lambda text: text if text in {"[]", "{}"} else json.dumps(keys.encrypt(text.encode()))
    return lambda text: seal_text(text, keys=keys)
