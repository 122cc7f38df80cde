"""Exchanges that the database refused: kept with the reason, shown in the admin, tried again at an operator's wish."""

from __future__ import annotations

import orjson
from django.db import transaction

from chat import rows
from chat.models import QuarantinedExchange
from chat.rows import ExchangeRows


def put(exchange: ExchangeRows, *, reason: str) -> None:
    """Keeps an exchange as JSON, which holds every text that JSON can hold, NUL characters included."""
    facts = orjson.dumps(rows.as_facts(exchange)).decode()
    QuarantinedExchange.objects.bulk_create(
        [QuarantinedExchange(id=exchange.id, reason=reason.replace("\x00", "\\u0000")[:4000], facts=facts)],
        ignore_conflicts=True,
    )


def release(kept: QuarantinedExchange) -> None:
    """Stores the rows after all and ends their quarantine. Raises what the database says when it refuses them again."""
    with transaction.atomic():
        rows.store([rows.from_facts(orjson.loads(kept.facts))])
        kept.delete()
