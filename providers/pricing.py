"""What a call costs: versions of a price, which of them is in force, and the sum. Knows nothing of chat and its record.

An unknown price is None throughout, and so is the cost that it would have made; free is a price of 0.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from providers.models import LanguageModel, Price
from providers.values import Usage

#: Decimal places of a cost: prices have 6, and a price is for a million tokens, so that no cost is ever rounded.
COST_PLACES = Decimal("1e-12")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceVersion:
    """One version of a model's price as a value, in US dollars per million tokens. `id`: of the `Price` row."""

    id: UUID
    effective_from: dt.datetime
    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    cache_write_per_million: Decimal | None = None


def cost_of(usage: Usage, price: PriceVersion | Price | None) -> Decimal | None:
    """US dollars for `usage` at `price`, exactly, with 12 decimal places; None when the price is unknown.

        (plain * input + cached * cached_input + written * cache_write + output * output) / 1,000,000

    `plain` is what is left of the input tokens without the cached and the written ones (never below 0, should a vendor
    report more of these than input). Reasoning tokens are part of the output tokens. Where a price does not say what
    cached or written tokens cost, they cost what plain input costs.
    """
    if price is None:
        return None
    plain = max(usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens, 0)
    cached_price, write_price = price.cached_input_per_million, price.cache_write_per_million
    millionths = (
        plain * price.input_per_million
        + usage.cached_input_tokens * (price.input_per_million if cached_price is None else cached_price)
        + usage.cache_write_tokens * (price.input_per_million if write_price is None else write_price)
        + usage.output_tokens * price.output_per_million
    )
    return millionths.scaleb(-6).quantize(COST_PLACES)


def in_force(versions: Sequence[PriceVersion], at: dt.datetime) -> PriceVersion | None:
    """The version in force at `at`, of versions in the order in which they come into force."""
    return next((version for version in reversed(versions) if version.effective_from <= at), None)


def price_in_force(model: LanguageModel, at: dt.datetime) -> Price | None:
    """The row of the price in force at `at`; None when it is unknown."""
    return model.prices.filter(effective_from__lte=at).order_by("-effective_from").first()
