"""Filling the catalogue from the price list, and what people change in it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from providers import services
from providers.models import LanguageModel, Price, PriceIsFinal
from providers.price_list import BEGINNING, ListedModel, ListedPrice, listed_models
from providers.services import Filled
from providers.tests.factories import LanguageModelFactory, ModelAliasFactory, PriceFactory

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


def price(value: int, *, starts: dt.datetime = BEGINNING) -> ListedPrice:
    return ListedPrice(starts=starts, input_per_million=Decimal(value), output_per_million=Decimal(2 * value))


def listed(*prices: ListedPrice, **changes: Any) -> list[ListedModel]:
    values = {"name": "gpt-4o", "provider": "openai", "upstream_id": "gpt-4o", "source": "genai-prices 1.0", **changes}
    return [ListedModel(prices=prices, **values)]


def versions() -> list[tuple[dt.datetime, Decimal, str]]:
    rows = Price.objects.order_by("effective_from")
    return [(row.effective_from, row.input_per_million, row.source) for row in rows]


def test_models_and_prices_are_added_once() -> None:
    data = listed(price(1), price(2, starts=BEGINNING + DAY), display_name="GPT-4o", context_window=128_000)
    assert services.fill_catalogue(data) == Filled(models_known=1, models_added=1, prices_added=2)
    assert services.fill_catalogue(data) == Filled(models_known=1)
    model = LanguageModel.objects.get()
    assert (model.name, model.provider, model.upstream_id, model.display_name, model.context_window) == (
        "gpt-4o",
        "openai",
        "gpt-4o",
        "GPT-4o",
        128_000,
    )
    assert versions() == [
        (BEGINNING, Decimal(1), "genai-prices 1.0"),
        (BEGINNING + DAY, Decimal(2), "genai-prices 1.0"),
    ]


def test_a_dry_run_tells_what_would_be_and_changes_nothing() -> None:
    assert services.fill_catalogue(listed(price(1)), dry_run=True) == Filled(
        models_known=1, models_added=1, prices_added=1
    )
    assert not LanguageModel.objects.exists()


def test_a_changed_price_without_a_date_is_in_force_from_now() -> None:
    services.fill_catalogue(listed(price(1)))
    before = timezone.now()
    assert services.fill_catalogue(listed(price(2), source="genai-prices 1.1")).prices_added == 1
    (first, second) = versions()
    assert first == (BEGINNING, Decimal(1), "genai-prices 1.0")
    assert (second[1:], before <= second[0] <= timezone.now()) == ((Decimal(2), "genai-prices 1.1"), True)
    assert not services.fill_catalogue(listed(price(2))).changed


def test_a_changed_price_with_a_date_is_in_force_from_that_date() -> None:
    services.fill_catalogue(listed(price(1)))
    since = (timezone.now() - DAY).replace(microsecond=0)
    services.fill_catalogue(listed(price(1), price(2, starts=since)))
    assert [row[:2] for row in versions()] == [(BEGINNING, Decimal(1)), (since, Decimal(2))]


def test_a_planned_price_waits_for_its_day_and_goes_when_it_is_called_off() -> None:
    soon = timezone.now() + DAY
    services.fill_catalogue(listed(price(1), price(2, starts=soon)))
    assert services.fill_catalogue(listed(price(1), price(3, starts=soon))) == Filled(
        models_known=1, prices_added=1, prices_withdrawn=1
    )
    assert [row[:2] for row in versions()] == [(BEGINNING, Decimal(1)), (soon, Decimal(3))]
    assert services.fill_catalogue(listed(price(1))) == Filled(models_known=1, prices_withdrawn=1)
    assert [row[:2] for row in versions()] == [(BEGINNING, Decimal(1))]


def test_a_price_that_people_set_stays_unless_told_otherwise() -> None:
    services.fill_catalogue(listed(price(1)))
    services.set_price(LanguageModel.objects.get(), input_per_million=Decimal(9), output_per_million=Decimal(9))
    assert services.fill_catalogue(listed(price(1))) == Filled(models_known=1, manual_kept=1)
    assert services.fill_catalogue(listed(price(1)), overwrite_manual=True).prices_added == 1
    assert [row[1:] for row in versions()] == [
        (Decimal(1), "genai-prices 1.0"),
        (Decimal(9), "manual"),
        (Decimal(1), "genai-prices 1.0"),
    ]
    assert not services.fill_catalogue(listed(price(1)), overwrite_manual=True).changed


def test_what_people_wrote_about_a_model_stays_and_only_gaps_are_filled() -> None:
    LanguageModelFactory.create(
        name="gpt-4o", provider="openai", upstream_id="gpt-4o", display_name="Ours", is_enabled=False
    )
    data = listed(display_name="Theirs", context_window=128_000)
    assert services.fill_catalogue(data) == Filled(models_known=1, models_completed=1)
    model = LanguageModel.objects.get()
    assert (model.display_name, model.context_window, model.is_enabled) == ("Ours", 128_000, False)


def test_a_name_that_people_gave_to_something_else_stays_theirs() -> None:
    ModelAliasFactory.create(name="gpt-4o")
    services.fill_catalogue(listed(price(1)))
    assert LanguageModel.objects.get(provider="openai").name == "openai/gpt-4o"


def test_the_installed_list_fills_the_catalogue_and_a_second_time_changes_nothing() -> None:
    first = services.fill_catalogue()
    assert first.models_added == first.models_known == LanguageModel.objects.count() > 500
    assert first.prices_added == Price.objects.count() > 500
    assert services.fill_catalogue() == Filled(models_known=first.models_known)
    assert not LanguageModel.objects.exclude(name__contains="/").exclude(
        provider__in=["openai", "gemini", "anthropic", "deepseek"]
    )


def test_the_installed_list_says_what_it_says() -> None:
    found = {model.name: model for model in listed_models()}
    assert len(found) == len(listed_models())
    flash = found["gemini-2.0-flash"]
    assert (flash.provider, flash.upstream_id, flash.context_window, flash.prices) == (
        "gemini",
        "gemini-2.0-flash",
        1_000_000,
        (
            ListedPrice(
                starts=BEGINNING,
                input_per_million=Decimal("0.1"),
                output_per_million=Decimal("0.4"),
                cached_input_per_million=Decimal("0.025"),
            ),
        ),
    )
    # In tiers: the base tier
    assert found["gemini-2.5-pro"].prices[0].input_per_million == Decimal("1.25")
    # Cheaper at night: the price of the rest of the day
    assert [entry.input_per_million for entry in found["deepseek-chat"].prices] == [Decimal("0.135")]
    # The same model elsewhere
    assert found["openrouter/openai/gpt-4o-mini"].upstream_id == "openai/gpt-4o-mini"
    # Not for chat, or not at this door
    assert not found.keys() & {"text-embedding-3-small", "whisper-1", "tts-1", "ft:gpt-4o", "moderation"}
    assert not [model for model in found.values() if model.provider == "gemini" and "claude" in model.name]


def test_the_local_model_is_free_and_a_drill_has_a_cost_unless_it_is_about_having_none() -> None:
    found = {model.name: model for model in listed_models()}
    free = found["local/smollm2-135m"]
    assert (free.source, [entry.input_per_million for entry in free.prices]) == ("local", [Decimal(0)])
    assert [entry.output_per_million for entry in found["simulated/ok"].prices] == [Decimal(2)]
    assert [model.name for model in found.values() if model.provider == "simulated" and not model.prices]


def test_a_new_price_is_a_new_version() -> None:
    old = PriceFactory.create()
    new = services.set_price(old.model, input_per_million=Decimal(3), output_per_million=Decimal(4))
    assert list(old.model.prices.all()) == [new, old]
    assert (new.source, new.cached_input_per_million, new.effective_from <= timezone.now()) == ("manual", None, True)


@pytest.mark.parametrize("numbers", [("-1", "1"), ("1", "-0.5"), ("0.0000001", "1"), ("1", "1000000000")])
def test_a_number_that_no_price_can_be_is_refused(numbers: tuple[str, str]) -> None:
    model = LanguageModelFactory.create()
    with pytest.raises(ValidationError):
        services.set_price(model, input_per_million=Decimal(numbers[0]), output_per_million=Decimal(numbers[1]))
    assert not Price.objects.exists()


def test_the_past_can_be_priced_only_where_it_had_no_price() -> None:
    model = LanguageModelFactory.create()
    yesterday, earlier = timezone.now() - DAY, timezone.now() - 2 * DAY
    set_price = partial(services.set_price, model, input_per_million=Decimal(1), output_per_million=Decimal(1))
    with pytest.raises(ValidationError, match="Price the past"):
        set_price(effective_from=yesterday)
    set_price(effective_from=yesterday, reason="the invoice came")
    set_price(effective_from=earlier, reason="the invoice came")
    with pytest.raises(ValidationError, match="Another price was in force then"):
        set_price(effective_from=yesterday + dt.timedelta(hours=1))


def test_a_planned_price_can_be_withdrawn_and_one_in_force_cannot() -> None:
    in_force = PriceFactory.create()
    planned = PriceFactory.create(model=in_force.model, effective_from=timezone.now() + DAY)
    services.withdraw_price(planned)
    with pytest.raises(PriceIsFinal):
        services.withdraw_price(in_force)
    assert list(Price.objects.all()) == [in_force]


def test_switching_counts_those_that_were_not_so_before() -> None:
    LanguageModelFactory.create()
    LanguageModelFactory.create(is_enabled=False)
    assert services.set_enabled(LanguageModel.objects.all(), enabled=False) == 1
    assert not LanguageModel.objects.filter(is_enabled=True).exists()


def test_a_model_and_an_alias_cannot_share_a_name() -> None:
    alias = ModelAliasFactory.create(name="fast")
    with pytest.raises(ValidationError, match="An alias has this name already"):
        LanguageModelFactory.build(name="fast").full_clean()
    alias.name = alias.model.name
    with pytest.raises(ValidationError, match="A model has this name already"):
        alias.full_clean()
