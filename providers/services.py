"""Verbs across the catalogue's rows: filling it from the price list, setting a price, switching models on and off."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from audit import actors, entries
from audit.models import Action
from providers import catalogue
from providers.models import LanguageModel, ModelAlias, Price
from providers.names import Route
from providers.price_list import PRICE_FIELDS, SOURCE_PREFIX, ListedModel, ListedPrice, listed_models, same_price

#: `Price.source` of prices that people set.
MANUAL = "manual"
#: Details of a model that are filled in where they are empty.
_DETAILS = ("display_name", "context_window", "max_output_tokens")
_BATCH = 500
#: Lines of news that are told.
_NEWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What filling the catalogue did, in numbers of rows. `manual_kept`: models whose manual price differs from the
    list's and stayed. `news`: in words, each price that follows another one or is withdrawn."""

    models_known: int = 0
    models_added: int = 0
    models_completed: int = 0
    prices_added: int = 0
    prices_withdrawn: int = 0
    manual_kept: int = 0
    news: tuple[str, ...] = field(default=(), compare=False)

    @property
    def changed(self) -> bool:
        return bool(self.models_added or self.models_completed or self.prices_added or self.prices_withdrawn)


def fill_catalogue(
    listed: Iterable[ListedModel] | None = None, *, overwrite_manual: bool = False, dry_run: bool = False
) -> Filled:
    """Adds the models and prices of `listed` (the price list that is installed); run again, it changes nothing.

    Rows that exist are kept: of a model only empty details are filled in, and a price that has changed makes a new
    version, in force from the list's own date or from now. Prices that people set stay, unless `overwrite_manual`.
    `dry_run` changes nothing and tells what would be.
    """
    wanted = {(model.provider, model.upstream_id): model for model in (listed_models() if listed is None else listed)}
    with transaction.atomic():
        rows, added = _add_models(wanted.values())
        completed = _complete_models(rows, wanted)
        planned = _plan_prices(rows, wanted, now=timezone.now(), overwrite_manual=overwrite_manual)
        with entries.as_action(Action.WITHDRAWN):
            Price.objects.filter(id__in=[price.id for price in planned.withdrawn]).delete()
        by = actors.current().name
        for price in planned.added:
            price.set_by = by
        first = [price for price in planned.added if price not in planned.followed]
        # The many of a first filling are one entry, not a thousand: these are not entered by themselves.
        Price.objects.bulk_create(first, batch_size=_BATCH, ignore_conflicts=True)
        Price.objects.bulk_create(planned.followed, batch_size=_BATCH)
        filled = Filled(
            models_known=len(wanted),
            models_added=added,
            models_completed=completed,
            prices_added=len(planned.added),
            prices_withdrawn=len(planned.withdrawn),
            manual_kept=planned.manual_kept,
            news=_news(planned),
        )
        if filled.changed:
            entries.record(
                Action.PRICES_UPDATED,
                object_type=Price._meta.label_lower,
                object_name="the price list",
                details={name: value for name, value in asdict(filled).items() if value},
            )
        transaction.set_rollback(dry_run)
        transaction.on_commit(catalogue.tell_of_change)
    return filled


def set_price(
    model: LanguageModel,
    *,
    input_per_million: Decimal,
    output_per_million: Decimal,
    cached_input_per_million: Decimal | None = None,
    cache_write_per_million: Decimal | None = None,
    effective_from: dt.datetime | None = None,
    source: str = MANUAL,
    reason: str = "",
) -> Price:
    """A new version of the model's price in US dollars per million tokens, from now or from a given moment.

    Raises ValidationError for numbers that no price can be, for a moment in the past at which another price was in
    force, since what has been priced stays as it is, and for one in the past without a reason. What was used since at
    an unknown price is the business of `chat.repricing`.
    """
    price = check_price(
        model,
        input_per_million=input_per_million,
        output_per_million=output_per_million,
        cached_input_per_million=cached_input_per_million,
        cache_write_per_million=cache_write_per_million,
        effective_from=effective_from or timezone.now(),
        source=source,
        reason=reason,
    )
    with transaction.atomic():
        price.save()
        transaction.on_commit(catalogue.tell_of_change)
    return price


def check_price(model: LanguageModel, **fields: Any) -> Price:
    """The version that `set_price` would set, not stored. Raises ValidationError as it does."""
    price = Price(model=model, **fields)
    price.full_clean()
    return price


def withdraw_price(price: Price) -> None:
    """Takes back a version that is not in force yet. Raises PriceIsFinal for one that is or was."""
    with transaction.atomic(), entries.as_action(Action.WITHDRAWN):
        price.delete()
        transaction.on_commit(catalogue.tell_of_change)


def set_enabled(models: QuerySet[LanguageModel], *, enabled: bool) -> int:
    """Switches models on or off; returns how many were not so before."""
    with transaction.atomic():
        changed = models.exclude(is_enabled=enabled).update(is_enabled=enabled, updated_at=timezone.now())
        transaction.on_commit(catalogue.tell_of_change)
    return changed


def note_change() -> None:
    """Rows of the catalogue are being changed: once that is committed, this process sees it."""
    transaction.on_commit(catalogue.tell_of_change)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to happen to the prices."""

    added: list[Price]
    withdrawn: list[Price]
    manual_kept: int
    followed: list[Price]


def _news(planned: _Plan) -> tuple[str, ...]:
    """In words, as many as an entry of the audit trail should hold."""
    lines = [
        *(f"from {price.effective_from:%Y-%m-%d}: {_in_words(price)}" for price in planned.followed),
        *(f"withdrawn: {_in_words(price)}" for price in planned.withdrawn),
    ]
    return tuple(lines[:_NEWS])


def _in_words(price: Price) -> str:
    return (
        f"{price.model.name} ${price.input_per_million.normalize():f} in, ${price.output_per_million.normalize():f} out"
    )


def _add_models(listed: Collection[ListedModel]) -> tuple[list[LanguageModel], int]:
    """Adds rows for those that have none; returns all rows, locked, and how many are new."""
    known = set(LanguageModel.objects.values_list("provider", "upstream_id"))
    taken = set(LanguageModel.objects.values_list("name", flat=True)) | set(
        ModelAlias.objects.values_list("name", flat=True)
    )
    missing = [
        LanguageModel(
            # A name that people gave to something else stays theirs.
            name=f"{model.provider}/{model.upstream_id}" if model.name in taken else model.name,
            provider=model.provider,
            upstream_id=model.upstream_id,
            **{detail: getattr(model, detail) for detail in _DETAILS},
        )
        for model in listed
        if (model.provider, model.upstream_id) not in known
    ]
    # Two processes that start together may both find rows missing: the second waits for the first and adds nothing.
    LanguageModel.objects.bulk_create(missing, batch_size=_BATCH, ignore_conflicts=True)
    rows = list(LanguageModel.objects.select_for_update().order_by("id"))
    return rows, len({(row.provider, row.upstream_id) for row in rows} - known)


def _complete_models(rows: Iterable[LanguageModel], wanted: dict[Route, ListedModel]) -> int:
    completed = []
    for row in rows:
        listed = wanted.get((row.provider, row.upstream_id))
        news = [detail for detail in _DETAILS if listed and not getattr(row, detail) and getattr(listed, detail)]
        if news:
            for detail in news:
                setattr(row, detail, getattr(listed, detail))
            row.updated_at = timezone.now()
            completed.append(row)
    LanguageModel.objects.bulk_update(completed, [*_DETAILS, "updated_at"], batch_size=_BATCH)
    return len(completed)


def _plan_prices(
    rows: Iterable[LanguageModel],
    wanted: dict[Route, ListedModel],
    *,
    now: dt.datetime,
    overwrite_manual: bool,
) -> _Plan:
    versions: defaultdict[int, list[Price]] = defaultdict(list)
    for price in Price.objects.order_by("effective_from"):
        versions[price.model_id].append(price)
    withdrawn: list[Price] = []
    added: list[Price] = []
    followed: list[Price] = []
    manual_kept = 0
    for row in rows:
        listed = wanted.get((row.provider, row.upstream_id))
        if listed is None:
            continue
        there = versions[row.id]
        outdated = [price for price in there if price.effective_from > now and _is_outdated(price, listed)]
        there = [price for price in there if price not in outdated]
        withdrawn.extend(outdated)
        new, kept = _new_versions(row, there, listed, now=now, overwrite_manual=overwrite_manual)
        added.extend(new)
        followed.extend(new if versions[row.id] else ())
        manual_kept += kept
    return _Plan(added=added, withdrawn=withdrawn, manual_kept=manual_kept, followed=followed)


def _is_outdated(planned: Price, listed: ListedModel) -> bool:
    """Whether the list announced this price once and no longer does."""
    return planned.source.startswith(SOURCE_PREFIX) and not any(
        planned.effective_from == price.starts and same_price(planned, price) for price in listed.prices
    )


def _new_versions(
    row: LanguageModel, there: Sequence[Price], listed: ListedModel, *, now: dt.datetime, overwrite_manual: bool
) -> tuple[list[Price], bool]:
    """The versions that the row lacks, and whether a price that people set kept one out."""
    if not there:
        return [_version(row, price, starts=price.starts, source=listed.source) for price in listed.prices], False
    added: list[Price] = []
    manual_kept = False
    for price in _current_and_planned(listed.prices, now):
        at = max(price.starts, now)
        before = [version for version in (*there, *added) if version.effective_from <= at]
        held = max(before, key=lambda version: version.effective_from, default=None)
        if held is not None and same_price(held, price):
            continue
        if held is not None and held.source == MANUAL and not overwrite_manual:
            manual_kept = True
            continue
        starts = price.starts
        if held is not None and held.effective_from >= starts:
            # The list's date is taken, or earlier than what is replaced: from now, or just after what is planned.
            starts = max(now, held.effective_from + dt.timedelta(microseconds=1))
        added.append(_version(row, price, starts=starts, source=listed.source))
    return added, manual_kept


def _current_and_planned(prices: Sequence[ListedPrice], now: dt.datetime) -> list[ListedPrice]:
    past = [price for price in prices if price.starts <= now]
    return [*past[-1:], *(price for price in prices if price.starts > now)]


def _version(row: LanguageModel, price: ListedPrice, *, starts: dt.datetime, source: str) -> Price:
    return Price(
        model=row, effective_from=starts, source=source, **{field: getattr(price, field) for field in PRICE_FIELDS}
    )
