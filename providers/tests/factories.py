"""Rows of the catalogue, made for tests."""

from __future__ import annotations

from decimal import Decimal

from factory.declarations import LazyAttribute, Sequence, SubFactory
from factory.django import DjangoModelFactory

from providers.models import LanguageModel, ModelAlias, ModelHealth, Price
from providers.price_list import BEGINNING


class LanguageModelFactory(DjangoModelFactory[LanguageModel]):
    """A model of the simulated provider, which always answers; `LanguageModelFactory(provider="openai")` for others."""

    name = LazyAttribute(lambda model: f"{model.provider}/{model.upstream_id}")
    provider = "simulated"
    upstream_id = Sequence(lambda number: f"model-{number}")

    class Meta:
        model = LanguageModel


class ModelAliasFactory(DjangoModelFactory[ModelAlias]):
    name = Sequence(lambda number: f"alias-{number}")
    model = SubFactory(LanguageModelFactory)

    class Meta:
        model = ModelAlias


class PriceFactory(DjangoModelFactory[Price]):
    """One dollar in and two out for a million tokens, since ever."""

    model = SubFactory(LanguageModelFactory)
    effective_from = BEGINNING
    input_per_million = Decimal(1)
    output_per_million = Decimal(2)

    class Meta:
        model = Price


class ModelHealthFactory(DjangoModelFactory[ModelHealth]):
    provider = "simulated"
    upstream_id = ""
    status = ModelHealth.Status.ONLINE

    class Meta:
        model = ModelHealth
