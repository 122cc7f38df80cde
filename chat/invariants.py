"""What must be true of one exchange on record: rules on its rows, which may contradict each other.

A rule looks at values alone: it queries nothing, changes nothing and needs no text.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final
from uuid import UUID

from chat.models import Attempt, Interaction, Status
from llmchat.lib.uuid7 import moment_of
from providers.pricing import COST_PLACES, cost_of
from providers.values import Usage

#: For how long a process may price by a catalogue that it read before a newer price was set.
CATALOGUE_LAG: Final = dt.timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """An interaction with its attempts in the order of their numbers. `superseded`: of attempts whose price had a
    successor in force when they began, when the oldest such successor was set. `digits`: how many of a cost the
    database keeps; None: all."""

    interaction: Interaction
    attempts: Sequence[Attempt]
    superseded: dict[UUID, dt.datetime]
    digits: int | None = None


Finding = tuple[UUID | str, str]
"""A row's id, or what else names it, and what is wrong with it."""

Rule = Callable[[Exchange], Iterator[Finding]]


def ids(exchange: Exchange) -> Iterator[Finding]:
    row = exchange.interaction
    yield from _wrong_moment(row.id, "created_at", row.created_at)
    for attempt in exchange.attempts:
        yield from _wrong_moment(attempt.id, "started_at", attempt.started_at)


def numbers(exchange: Exchange) -> Iterator[Finding]:
    found = [attempt.number for attempt in exchange.attempts]
    if found != list(range(1, len(found) + 1)):
        yield exchange.interaction.id, f"its attempts have the numbers {', '.join(map(str, found))}"


def endings(exchange: Exchange) -> Iterator[Finding]:
    row, attempts = exchange.interaction, exchange.attempts
    match row.status:
        case Status.SUCCEEDED:
            if not row.finish_reason:
                yield row.id, "it succeeded without a finish reason"
            # An answer out of the cache needs no provider.
            if (attempts or not row.cached) and (not attempts or attempts[-1].status != Status.SUCCEEDED):
                last = f"its last attempt is {attempts[-1].status}" if attempts else "it has no attempt"
                yield row.id, f"it succeeded, but {last}"
        case Status.FAILED if not row.error_code:
            yield row.id, "it failed without an error code"
    if row.status != Status.SUCCEEDED and row.finish_reason:
        yield row.id, f"it is {row.status}, but has the finish reason {row.finish_reason}"
    for attempt in attempts:
        if attempt.status == Status.SUCCEEDED and not attempt.finish_reason:
            yield attempt.id, "it succeeded without a finish reason"
        if attempt.status == Status.FAILED and not attempt.error_code:
            yield attempt.id, "it failed without an error code"


def times(exchange: Exchange) -> Iterator[Finding]:
    row = exchange.interaction
    if row.finished_at is None:
        if row.status != Status.INTERRUPTED:
            yield row.id, f"it is {row.status}, but has no finished_at"
    elif row.finished_at < row.created_at:
        yield row.id, f"it finished at {row.finished_at.isoformat()}, before it began"


def tokens(exchange: Exchange) -> Iterator[Finding]:
    if not exchange.attempts:
        return
    row, last = exchange.interaction, exchange.attempts[-1]
    for name in ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "usage_estimated"):
        here, there = getattr(row, name), getattr(last, name)
        if here != there:
            yield row.id, f"{name} is {_said(here)}, its last attempt's is {_said(there)}"


def totals(exchange: Exchange) -> Iterator[Finding]:
    row = exchange.interaction
    if row.cached and not exchange.attempts:
        return
    spent = [attempt.cost for attempt in exchange.attempts if has_spent(attempt)]
    known = [cost for cost in spent if cost is not None]
    expected = sum(known, Decimal(0)) if spent and len(known) == len(spent) else None
    if not _is_the_same(row.cost, expected, digits=exchange.digits, parts=len(known)):
        yield row.id, f"cost is {_said(row.cost)}, its attempts' make {_said(expected)}"


def _is_the_same(here: Decimal | None, there: Decimal | None, *, digits: int | None, parts: int = 0) -> bool:
    """Whether two costs are equal, as far as a database can tell that keeps so many digits: of each, and of each of the
    `parts` that were added up for the second, the last digit may be off by one where it is not the last place."""
    if here == there:
        return True
    if here is None or there is None or digits is None:
        return False
    last_digit = Decimal(1).scaleb(max(abs(here), abs(there)).adjusted() + 1 - digits)
    return last_digit > COST_PLACES and abs(here - there) <= last_digit * (parts + 1)


def costs(exchange: Exchange) -> Iterator[Finding]:
    for attempt in exchange.attempts:
        if attempt.cost_reported:
            if attempt.cost is None or attempt.cost < 0:
                yield attempt.id, f"the provider is said to have reported the cost, but it is {_said(attempt.cost)}"
        elif attempt.price_id is None:
            if attempt.cost is not None:
                yield attempt.id, f"cost is {_said(attempt.cost)} without a price or a provider's report"
        elif attempt.price is None:
            yield attempt.id, f"its price {attempt.price_id} is not on record"
        else:
            expected = cost_of(usage_of(attempt), attempt.price) if has_spent(attempt) else None
            if not _is_the_same(attempt.cost, expected, digits=exchange.digits):
                yield attempt.id, f"cost is {_said(attempt.cost)}, tokens and price make {_said(expected)}"


def prices(exchange: Exchange) -> Iterator[Finding]:
    for attempt in exchange.attempts:
        price = attempt.price
        if price is None:
            continue
        # A drill's parameters follow the model's name: `slow?delay=2`.
        if attempt.provider != price.model.provider or price.model.upstream_id not in {
            attempt.model,
            attempt.model.partition("?")[0],
        }:
            yield attempt.id, f"its price is that of {price.model.provider}/{price.model.upstream_id}"
        if price.effective_from > attempt.started_at:
            yield attempt.id, f"its price came into force later, at {price.effective_from.isoformat()}"
        newer_since = exchange.superseded.get(attempt.id)
        if newer_since is not None and newer_since < exchange.interaction.created_at - CATALOGUE_LAG:
            yield attempt.id, f"its price was no longer in force; the newer one was set at {newer_since.isoformat()}"


def routes(exchange: Exchange) -> Iterator[Finding]:
    row = exchange.interaction
    called = [(attempt.provider, attempt.model) for attempt in exchange.attempts]
    retries, fallback = len(called) - len(set(called)), len(set(called)) > 1
    if row.retries != retries:
        yield row.id, f"retries is {row.retries}, its attempts show {retries}"
    if row.fallback != fallback:
        yield row.id, f"fallback is {row.fallback}, its attempts show {fallback}"


def conversations(exchange: Exchange) -> Iterator[Finding]:
    row = exchange.interaction
    if row.conversation_id is None:
        return
    conversation = row.conversation
    if conversation is None:
        yield row.id, f"its conversation {row.conversation_id} is not on record"
        return
    if conversation.organization_id != row.organization_id:
        yield row.id, f"its conversation {conversation.id} is another organization's"
    if conversation.user_id != row.user_id:
        yield row.id, f"its conversation {conversation.id} is another user's"
    if conversation.updated_at < row.created_at:
        yield row.id, f"its conversation {conversation.id} was last updated before it"


def _wrong_moment(identifier: UUID, name: str, moment: dt.datetime) -> Iterator[Finding]:
    try:
        expected = moment_of(identifier)
    except ValueError:
        yield identifier, "its id is not a UUIDv7"
        return
    if moment != expected:
        yield identifier, f"{name} is {moment.isoformat()}, its id was made at {expected.isoformat()}"


def has_spent(attempt: Attempt) -> bool:
    """Whether it used tokens, known or estimated; a call that came to nothing did not."""
    return attempt.input_tokens is not None


def usage_of(attempt: Attempt) -> Usage:
    return Usage(
        input_tokens=attempt.input_tokens or 0,
        output_tokens=attempt.output_tokens or 0,
        cached_input_tokens=attempt.cached_input_tokens or 0,
        cache_write_tokens=attempt.cache_write_tokens or 0,
        reasoning_tokens=attempt.reasoning_tokens or 0,
    )


def _said(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.12f}" if isinstance(value, Decimal) else str(value)
