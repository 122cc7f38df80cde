"""What is known of models and prices without asking anyone: genai-prices' list, and our own two providers.

Reads the list into values; knows nothing of rows. What the list says in more detail than a price of ours can, is cut
down here: tiers to the base tier, times of day to the price of the rest of the day, audio and images to the price of
text, batch and priority to the standard service.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version
from itertools import pairwise

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, StartDateConstraint, TieredPrices

from providers.adapters import local, simulated

#: From when a price holds that the list gives without a date: before any model was sold by the token.
BEGINNING = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
#: Where all prices of the list come from, as `Price.source` says it.
SOURCE = f"genai-prices {version('genai-prices')}"
#: Prefix of the sources whose prices this module may replace.
SOURCE_PREFIX = "genai-prices"

#: The list's name for each of our providers that it knows.
_LISTED_AS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "deepseek": "deepseek",
    "groq": "groq",
    "together": "together",
    "openrouter": "openrouter",
}
#: Providers whose models are their own: these go by their bare ids.
_VENDORS = frozenset({"openai", "anthropic", "gemini", "deepseek"})
#: Drills have prices that nobody pays, so that they have costs; these have none, so that there are unknown costs too.
_UNPRICED_DRILLS = frozenset({"unknown-reason"})
_PRICE_PLACES = Decimal("0.000001")
#: The numbers of a price.
PRICE_FIELDS = (
    "input_per_million",
    "output_per_million",
    "cached_input_per_million",
    "cache_write_per_million",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrice:
    """A price in US dollars per million tokens, from `starts` until the next one's."""

    starts: dt.datetime
    input_per_million: Decimal
    output_per_million: Decimal
    cached_input_per_million: Decimal | None = None
    cache_write_per_million: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model as the list has it. `prices` in the order in which they start; none: the price is unknown."""

    name: str
    provider: str
    upstream_id: str
    source: str
    display_name: str = ""
    context_window: int | None = None
    max_output_tokens: int | None = None
    prices: tuple[ListedPrice, ...] = ()


def listed_models() -> list[ListedModel]:
    """All models that we know of, each once."""
    return [*_own_models(), *_vendors_models()]


def _own_models() -> Iterator[ListedModel]:
    yield ListedModel(
        name=f"local/{local.MODEL}",
        provider="local",
        upstream_id=local.MODEL,
        source="local",
        display_name="SmolLM2 135M, in this process",
        context_window=local.CONTEXT_LENGTH,
        prices=(ListedPrice(starts=BEGINNING, input_per_million=Decimal(0), output_per_million=Decimal(0)),),
    )
    drill = ListedPrice(starts=BEGINNING, input_per_million=Decimal(1), output_per_million=Decimal(2))
    for name, fault in simulated.FAULTS.items():
        yield ListedModel(
            name=f"simulated/{name}",
            provider="simulated",
            upstream_id=name,
            source="simulated",
            display_name=f"Drill: {fault.description}"[:200],
            prices=() if name in _UNPRICED_DRILLS else (drill,),
        )


def _vendors_models() -> Iterator[ListedModel]:
    by_id = {provider.id: provider for provider in get_snapshot().providers}
    for slug, listed_as in _LISTED_AS.items():
        for model in by_id[listed_as].models:
            segments = _segments(model)
            if not _is_served(slug, model.id) or not _answers_in_text(segments):
                continue
            yield ListedModel(
                name=model.id if slug in _VENDORS else f"{slug}/{model.id}",
                provider=slug,
                upstream_id=model.id,
                source=SOURCE,
                display_name=model.name or "",
                context_window=model.context_window,
                prices=_timeline(segments),
            )


def _is_served(slug: str, model_id: str) -> bool:
    """Whether the id is one that the vendor's chat interface takes: the list also has patterns and other doors' ids."""
    match slug:
        case "gemini":
            return model_id.startswith(("gemini-", "gemma-"))  # Vertex also sells Claude
        case "openrouter":
            return "/" in model_id and not model_id.endswith(":batch")
        case "openai":
            return not model_id.startswith("ft:") and not model_id.endswith("-") and model_id != "moderation"
        case _:
            return True


def _answers_in_text(segments: Sequence[tuple[dt.datetime, ModelPrice]]) -> bool:
    """Sold by tokens in and out, or without any price; not by hours, characters or input alone, as speech and
    embeddings are."""
    _, latest = segments[-1]
    said = {key for key, value in vars(latest).items() if value is not None}
    return not said or {"input_mtok", "output_mtok"} <= said


def _segments(model: ModelInfo) -> list[tuple[dt.datetime, ModelPrice]]:
    """The standard price over time, oldest first. Prices for some hours of the day are left out."""
    prices = model.prices if isinstance(model.prices, list) else [ConditionalPrice(None, prices=model.prices)]
    dated: dict[dt.datetime, ModelPrice] = {}
    for conditional in prices:
        match conditional.constraint:
            case None:
                dated[BEGINNING] = conditional.prices
            case StartDateConstraint(start_date=day):
                dated[dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)] = conditional.prices
    return sorted(dated.items(), key=lambda segment: segment[0]) or [(BEGINNING, ModelPrice())]


def _timeline(segments: Sequence[tuple[dt.datetime, ModelPrice]]) -> tuple[ListedPrice, ...]:
    """The prices of the segments that can be said in tokens; one that repeats the price before it is left out."""
    prices = [price for starts, said in segments if (price := _price(starts, said)) is not None]
    repeated = {later.starts for earlier, later in pairwise(prices) if same_price(earlier, later)}
    return tuple(price for price in prices if price.starts not in repeated)


def _price(starts: dt.datetime, said: ModelPrice) -> ListedPrice | None:
    input_price, output_price = _base(said.input_mtok), _base(said.output_mtok)
    if input_price is None or output_price is None or said.requests_kcount is not None:
        return None  # a fee for each request cannot be said in tokens: better no price than one that is too low
    return ListedPrice(
        starts=starts,
        input_per_million=input_price,
        output_per_million=output_price,
        cached_input_per_million=_base(said.cache_read_mtok),
        cache_write_per_million=_base(said.cache_write_mtok),
    )


def _base(value: Decimal | TieredPrices | None) -> Decimal | None:
    if isinstance(value, TieredPrices):
        value = value.base
    return None if value is None else value.quantize(_PRICE_PLACES)


def same_price(one: object, other: object) -> bool:
    """Whether two prices say the same, whenever they start: rows, versions or listed ones."""
    return all(getattr(one, field) == getattr(other, field) for field in PRICE_FIELDS)
