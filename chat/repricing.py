"""Prices what was used at an unknown price, once the price is known: attempts, and what their interactions cost.

    run = begin(model, draft=..., reason=..., by=...)   counts: what would be priced, and how much it makes
    advance(run, spans=...)                             goes on with it, by small batches, until it is over
    agree(run)                                          sets the price; from now on `advance` writes
    advance(run, spans=...)

Each batch is one transaction, with where it ended and the notes of the minutes that changed: it may be ended at any
moment, and goes on there. Two at once never do the same batch: who finds that the run has moved on leaves. What has a
cost keeps it. Which time there is to look at is the caller's to know (`analytics.unpriced`).
"""

from __future__ import annotations

import datetime as dt
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.utils import timezone

from audit import entries
from audit.models import Action
from chat import changes
from chat.invariants import CATALOGUE_LAG, has_spent, usage_of
from chat.models import Attempt, Interaction, Repricing
from llmchat.lib.uuid7 import floor_at
from providers import services as catalogue
from providers.models import LanguageModel, Price
from providers.names import without_drill
from providers.price_list import PRICE_FIELDS
from providers.pricing import PriceVersion, cost_of, in_force

#: Interactions in one transaction: on SQLite, everybody else's writes wait for it.
BATCH: Final = 500
#: Seconds between two batches, in which others have the database to themselves.
PAUSE: Final = 0.02

Range = tuple[dt.datetime, dt.datetime]
State = Repricing.State


class NotAgreeable(Exception):
    """The run is in another state by now, or its price cannot be set any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A price that is to be set, in US dollars per million tokens."""

    effective_from: dt.datetime
    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    cache_write_per_million: Decimal | None = None


def begin(model: LanguageModel, *, draft: Draft | None, reason: str, by: str) -> Repricing:
    """A run that counts what would be priced: at `draft`, which is only set when somebody agrees, or without one at
    the versions that there are. Raises ValidationError for a draft that cannot be a price, or without a reason."""
    if not reason.strip():
        raise ValidationError({"reason": "Say why: it goes into the audit trail."})
    run = Repricing(model=model, reason=reason.strip(), by=by, state=State.COUNTING, until=timezone.now())
    if draft is not None:
        for name in ("effective_from", *PRICE_FIELDS):
            setattr(run, name, getattr(draft, name))
        catalogue.check_price(model, **_numbers(run), effective_from=draft.effective_from, reason=run.reason)
    run.full_clean()
    run.save()
    return run


def agree(run: Repricing) -> Repricing:
    """Sets the drafted price and has everything priced that has no price. Raises NotAgreeable."""
    with transaction.atomic():
        held = _held(run.pk)
        if held.state != State.COUNTED:
            raise NotAgreeable(f"This is {held.get_state_display().lower()} by now.")
        held.until = timezone.now()
        if held.effective_from is not None:
            try:
                held.price = catalogue.set_price(
                    held.model, **_numbers(held), effective_from=held.effective_from, reason=held.reason
                )
            except ValidationError as error:
                raise NotAgreeable(" ".join(error.messages)) from error
            # Until then, others may not have heard of the price.
            held.until += CATALOGUE_LAG
        held.state, held.position = State.FILLING, None
        held.turn += 1
        held.agreed_at = timezone.now()
        held.save()
        _enter(held, Action.REPRICING_BEGUN, interactions=held.counted_interactions, usd=held.counted_cost)
    return held


def cancel(run: Repricing) -> Repricing:
    """Gives up a run that nobody has agreed to. Raises NotAgreeable for one that prices already."""
    with transaction.atomic():
        held = _held(run.pk)
        if held.state not in {State.COUNTING, State.COUNTED}:
            raise NotAgreeable(f"This is {held.get_state_display().lower()} by now.")
        held.state, held.finished_at = State.CANCELLED, timezone.now()
        held.turn += 1
        held.save()
    return held


def under_way() -> models.QuerySet[Repricing]:
    """The runs that there is something to do for, the oldest first."""
    return Repricing.objects.filter(state__in=(State.COUNTING, State.FILLING)).select_related("model").order_by("id")


def advance(run: Repricing, *, spans: Sequence[Range], seconds: float = float("inf")) -> Repricing:
    """Goes on for about `seconds` at most; returns the run as it is then. `spans`: ranges of time, in order, outside
    of which nothing lacks a price. It may run in several processes at once: each batch is done by the one that is
    first, and the others leave."""
    deadline = time.monotonic() + seconds
    while run.state in {State.COUNTING, State.FILLING}:
        batch = _next_batch(run, spans)
        if not batch:
            return _finish(run)
        moved = _do(run, batch)
        if moved is None:
            return Repricing.objects.select_related("model").get(pk=run.pk)
        run = moved
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE)
    return run


# --- A batch ---------------------------------------------------------------------------------------------------------


def _next_batch(run: Repricing, spans: Iterable[Range]) -> list[UUID]:
    """Interactions without a cost, in the order of their ids, from where the run stands."""
    for since, until in spans:
        upper = floor_at(min(until, run.until))
        if run.position is not None and run.position >= upper:
            continue
        rows = Interaction.objects.filter(id__gte=floor_at(since), id__lt=upper, cost=None)
        if run.position is not None:
            rows = rows.filter(id__gt=run.position)
        if batch := list(rows.order_by("id").values_list("id", flat=True)[:BATCH]):
            return batch
    return []


@dataclass(frozen=True, slots=True)
class _Priced:
    attempt: Attempt
    price: UUID
    cost: Decimal


def _do(run: Repricing, batch: Sequence[UUID]) -> Repricing | None:
    """One batch, counted or priced; the run as it is then, None when somebody else was first."""
    with transaction.atomic():
        held = _held(run.pk)
        if held.turn != run.turn:
            return None
        rows = Interaction.objects.filter(id__in=batch, cost=None).order_by("id")
        # Whoever removes them waits: what is counted has been written.
        unpriced = list(rows.select_for_update().values_list("id", flat=True))
        attempts: defaultdict[UUID, list[Attempt]] = defaultdict(list)
        for attempt in Attempt.objects.filter(interaction_id__in=unpriced).defer("error_message"):
            attempts[attempt.interaction_id].append(attempt)
        priced = list(_priced(held, (attempt for found in attempts.values() for attempt in found)))
        totals = _totals(attempts, priced)
        cost = sum((each.cost for each in priced), Decimal(0))
        if held.state == State.FILLING:
            _write(priced, totals)
            changes.note(totals)
            held.filled_attempts += len(priced)
            held.filled_interactions += len(totals)
            held.filled_cost += cost
        else:
            held.counted_attempts += len(priced)
            held.counted_interactions += len(totals)
            held.counted_cost += cost
        held.position = batch[-1]
        held.turn += 1
        held.save()
    return held


def _priced(run: Repricing, attempts: Iterable[Attempt]) -> Iterator[_Priced]:
    versions = _versions(run)
    route = (run.model.provider, run.model.upstream_id)
    for attempt in attempts:
        if attempt.cost is not None or attempt.price_id is not None or not has_spent(attempt):
            continue
        if (attempt.provider, without_drill(attempt.provider, attempt.model)) != route:
            continue
        version = in_force(versions, attempt.started_at)
        cost = cost_of(usage_of(attempt), version)
        if version is not None and cost is not None:
            yield _Priced(attempt, version.id, cost)


def _totals(attempts: dict[UUID, list[Attempt]], priced: Iterable[_Priced]) -> dict[UUID, Decimal]:
    """What interactions cost of which every attempt that used tokens has a cost now; see `invariants.totals`."""
    costs = {each.attempt.pk: each.cost for each in priced}
    touched = {each.attempt.interaction_id for each in priced}
    found = {}
    for identifier in touched:
        spent = [costs.get(each.pk, each.cost) for each in attempts[identifier] if has_spent(each)]
        known = [cost for cost in spent if cost is not None]
        if len(known) == len(spent):
            found[identifier] = sum(known, Decimal(0))
    return found


def _versions(run: Repricing) -> list[PriceVersion]:
    """The model's versions in the order in which they come into force, with the draft as long as it is one."""
    fields = [*PriceVersion.__dataclass_fields__]
    versions = [PriceVersion(**row) for row in Price.objects.filter(model=run.model_id).values(*fields)]
    if run.effective_from is not None and run.price_id is None:
        versions.append(PriceVersion(id=run.pk, effective_from=run.effective_from, **_numbers(run)))
    return sorted(versions, key=lambda version: version.effective_from)


def _write(priced: Sequence[_Priced], totals: dict[UUID, Decimal]) -> None:
    # By what the tables have indexes for: attempts have none by `id`.
    _update(
        Attempt,
        ("price_id", "cost"),
        ("interaction_id", "number"),
        [(each.price, each.cost, each.attempt.interaction_id, each.attempt.number) for each in priced],
    )
    _update(Interaction, ("cost",), ("id",), [(cost, identifier) for identifier, cost in totals.items()])


def _update(
    model: type[models.Model], columns: Sequence[str], keys: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Fills columns that are NULL, in rows that are named by `keys`."""
    if not rows:
        return
    by_name = {field.attname: field for field in model._meta.concrete_fields}
    fields = [by_name[name] for name in (*columns, *keys)]
    quote = connection.ops.quote_name
    named = [quote(str(field.column)) for field in fields]
    filled, sought = named[: len(columns)], named[len(columns) :]
    statement = (
        f"UPDATE {quote(model._meta.db_table)} SET {', '.join(f'{name} = %s' for name in filled)} "  # noqa: S608 - ours
        f"WHERE {' AND '.join([*(f'{name} = %s' for name in sought), *(f'{name} IS NULL' for name in filled)])}"
    )
    values = [
        tuple(field.get_db_prep_save(value, connection) for field, value in zip(fields, row, strict=True))
        for row in rows
    ]
    with connection.cursor() as cursor:
        cursor.executemany(statement, values)


# --- The run ---------------------------------------------------------------------------------------------------------


def _finish(run: Repricing) -> Repricing:
    with transaction.atomic():
        held = _held(run.pk)
        if held.turn != run.turn:
            return held
        if held.state == State.COUNTING:
            held.state, held.position = State.COUNTED, None
        elif timezone.now() < held.until:
            return held  # rows may still come from who has not heard of the price
        else:
            held.state, held.finished_at = State.DONE, timezone.now()
            _enter(held, Action.REPRICING_ENDED, interactions=held.filled_interactions, usd=held.filled_cost)
        held.turn += 1
        held.save()
    return held


def _held(identifier: UUID) -> Repricing:
    """The run, locked until the end of the transaction."""
    return Repricing.objects.select_for_update(of=("self",)).select_related("model").get(pk=identifier)


def _numbers(run: Repricing) -> dict[str, Any]:
    return {name: getattr(run, name) for name in PRICE_FIELDS}


def _enter(run: Repricing, action: Action, *, interactions: int, usd: Decimal) -> None:
    entries.record(
        action,
        object_type=LanguageModel._meta.label_lower,
        object_id=run.model_id,
        object_name=run.model.name,
        details={
            "interactions": interactions,
            "usd": f"{usd:.12f}",
            "reason": run.reason,
            "asked for by": run.by,
            "price": str(run.price_id or "as on record"),
            "run": str(run.pk),
        },
    )
