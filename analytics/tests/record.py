"""Rows for tests of roll-ups, and what must come out, added up one by one in Python."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from analytics.histogram import bucket_of
from analytics.models import Cube
from analytics.totals import Key, Table, Totals, add_to
from chat import rows
from chat.models import Attempt, Interaction, Status
from chat.rows import ExchangeRows
from chat.tests.factories import id_at

NOW = dt.datetime(2026, 5, 20, 12, 30, 20, tzinfo=dt.UTC)


def exchange(organization: Any, moment: dt.datetime, *, attempts: int = 1, **fields: Any) -> ExchangeRows:
    """An exchange of that moment with as many attempts, not stored."""
    identifier = id_at(moment)
    row = Interaction(
        id=identifier,
        organization_id=organization.id,
        created_at=moment,
        finished_at=moment,
        endpoint="chat",
        streamed=False,
        **{
            "user_id": "ana",
            "plan": "free",
            "status": Status.SUCCEEDED,
            "model": "gemini-2.0-flash",
            "provider": "gemini",
            "route_reason": "asked for",
            "input_tokens": 25,
            "output_tokens": 45,
            "cost": Decimal("0.0000205"),
            "latency_ms": 812.4,
            "time_to_first_token_ms": 320.1,
            **fields,
        },
    )
    calls = [
        Attempt(
            id=id_at(moment),
            interaction_id=identifier,
            number=number,
            provider=row.provider,
            model=row.model,
            started_at=moment,
            status=row.status,
        )
        for number in range(1, attempts + 1)
    ]
    return ExchangeRows(interaction=row, attempts=calls)


def some_exchanges(
    organizations: Sequence[Any], count: int, *, since: dt.datetime, until: dt.datetime, seed: int
) -> list[ExchangeRows]:
    """Believable and unbelievable exchanges at random moments of the range; the same for the same seed."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        moment = since + (until - since) * chance.random()
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        status = chance.choice([Status.SUCCEEDED] * 5 + [Status.FAILED, Status.CANCELLED, Status.INTERRUPTED])
        has_spent = status == Status.SUCCEEDED or chance.random() < 0.3
        found.append(
            exchange(
                chance.choice(organizations),
                moment,
                attempts=chance.choice([0, 1, 1, 1, 2, 3]),
                user_id=chance.choice(["ana", "bo", "", "ünïcode|x=1"]),
                status=status,
                error_code="" if status == Status.SUCCEEDED else chance.choice(["interrupted", "provider_timeout"]),
                model=chance.choice(["gemini-2.0-flash", "gpt-4o", ""]),
                provider=chance.choice(["gemini", "openai"]),
                plan=chance.choice(["free", "premium"]),
                cached=chance.random() < 0.1,
                retries=chance.choice([0, 0, 1]),
                fallback=chance.random() < 0.2,
                input_tokens=chance.randrange(10_000) if has_spent else None,
                output_tokens=chance.randrange(10_000) if has_spent else None,
                cached_input_tokens=chance.choice([0, 7, None]) if has_spent else None,
                reasoning_tokens=chance.choice([0, 9, None]) if has_spent else None,
                cost=Decimal(chance.randrange(10**13)).scaleb(-12) if has_spent and chance.random() < 0.8 else None,
                latency_ms=chance.choice([None, 0.0, round(chance.lognormvariate(6, 2), 3)]),
                time_to_first_token_ms=chance.choice([None, round(chance.lognormvariate(4, 2), 3)]),
            )
        )
    return found


def store(exchanges: Sequence[ExchangeRows]) -> None:
    rows.store(exchanges)


def added_up(exchanges: Iterable[ExchangeRows]) -> Table:
    """Every cube of these exchanges."""
    table: Table = {}
    for each in exchanges:
        row = each.interaction
        told: dict[str, Any] = {
            name: getattr(row, name)
            for name in ("provider", "model", "plan", "status", "error_code", "cached", "route_reason")
        }
        whole, of_user = _totals(row, len(each.attempts)), _totals(row, 0)
        of_user.latencies, of_user.first_tokens = {}, {}
        own: dict[str, Any] = {"organization_id": row.organization_id, "api_key_id": row.api_key_id}
        add_to(table, Key(Cube.ORGANIZATION, **told, **own), whole)
        add_to(table, Key(Cube.EVERYTHING, **told), whole)
        add_to(table, Key(Cube.TOTAL), whole)
        short: dict[str, Any] = {"status": row.status, "cached": row.cached}
        add_to(table, Key(Cube.OVERVIEW, provider=row.provider, model=row.model, **short), whole)
        add_to(table, Key(Cube.TENANT, organization_id=row.organization_id, **short), whole)
        add_to(table, Key(Cube.KEY, **own), whole)
        user = Key(Cube.USER, organization_id=row.organization_id, user_id=row.user_id)
        add_to(table, user, of_user)
    return table


def _totals(row: Interaction, attempts: int) -> Totals:
    first = row.time_to_first_token_ms
    return Totals(
        requests=1,
        priced=int(row.cost is not None),
        unpriced=int(row.cost is None and row.input_tokens is not None),
        attempts=attempts,
        retries=row.retries,
        fallbacks=int(row.fallback),
        input_tokens=row.input_tokens or 0,
        cached_input_tokens=row.cached_input_tokens or 0,
        output_tokens=row.output_tokens or 0,
        reasoning_tokens=row.reasoning_tokens or 0,
        cost=int((row.cost or Decimal(0)).scaleb(12)),
        latency=math.floor((row.latency_ms or 0) * 1000 + 0.5),
        first_token=math.floor((first or 0) * 1000 + 0.5),
        latencies={} if row.latency_ms is None else {bucket_of(row.latency_ms): 1},
        first_tokens={} if first is None else {bucket_of(first): 1},
    )
