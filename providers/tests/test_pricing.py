"""What a call costs, and which price is in force."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.models import PriceIsFinal
from providers.pricing import PriceVersion, cost_of, in_force, price_in_force
from providers.tests.factories import LanguageModelFactory, PriceFactory
from providers.values import Usage

NOW = dt.datetime(2026, 6, 15, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def version(
    number: int = 0,
    *,
    starts: dt.datetime = NOW,
    input_price: str = "0.15",
    output_price: str = "0.6",
    cached: str | None = None,
    write: str | None = None,
) -> PriceVersion:
    return PriceVersion(
        id=UUID(int=number),
        effective_from=starts,
        input_per_million=Decimal(input_price),
        output_per_million=Decimal(output_price),
        cached_input_per_million=None if cached is None else Decimal(cached),
        cache_write_per_million=None if write is None else Decimal(write),
    )


@pytest.mark.parametrize(
    ("usage", "price", "cost"),
    [
        (Usage(input_tokens=25, output_tokens=45), version(), "0.000030750000"),
        (Usage(input_tokens=0, output_tokens=0), version(), "0.000000000000"),
        (Usage(input_tokens=1000, output_tokens=10), version(input_price="0", output_price="0"), "0.000000000000"),
        # 600 plain, 400 cached, 10 out
        (
            Usage(input_tokens=1000, output_tokens=10, cached_input_tokens=400),
            version(cached="0.075"),
            "0.000126000000",
        ),
        # Without prices of their own, cached and written tokens cost what input costs
        (
            Usage(input_tokens=1000, output_tokens=10, cached_input_tokens=400, cache_write_tokens=100),
            version(),
            "0.000156000000",
        ),
        # 500 plain, 400 cached for nothing, 100 written
        (
            Usage(input_tokens=1000, output_tokens=10, cached_input_tokens=400, cache_write_tokens=100),
            version(input_price="3", output_price="15", cached="0", write="3.75"),
            "0.002025000000",
        ),
        # Reasoning is part of the output, and not paid twice
        (Usage(input_tokens=0, output_tokens=100, reasoning_tokens=90), version(), "0.000060000000"),
        # A vendor that reports more cached tokens than input
        (Usage(input_tokens=10, output_tokens=0, cached_input_tokens=20), version(cached="0.075"), "0.000001500000"),
        # The smallest price there is
        (Usage(input_tokens=1, output_tokens=0), version(input_price="0.000001"), "0.000000000001"),
    ],
)
def test_a_cost_is_tokens_times_price(usage: Usage, price: PriceVersion, cost: str) -> None:
    assert f"{cost_of(usage, price):f}" == cost


def test_an_unknown_price_makes_an_unknown_cost() -> None:
    assert cost_of(Usage(input_tokens=1, output_tokens=1), None) is None


prices = st.decimals(min_value=0, max_value=99_999_999, places=6)
versions = st.builds(
    PriceVersion,
    id=st.just(UUID(int=0)),
    effective_from=st.just(NOW),
    input_per_million=prices,
    output_per_million=prices,
    cached_input_per_million=st.none() | prices,
    cache_write_per_million=st.none() | prices,
)
counts = st.integers(min_value=0, max_value=10_000_000)


@settings(deadline=None)  # a busy machine is no fault of the sum
@given(plain=counts, cached=counts, written=counts, output=counts, price=versions)
def test_no_cost_is_ever_rounded(plain: int, cached: int, written: int, output: int, price: PriceVersion) -> None:
    usage = Usage(
        input_tokens=plain + cached + written,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
    )
    cost = cost_of(usage, price)
    assert cost is not None
    # Fractions are exact, so that they can tell
    per_cached, per_written = price.cached_input_per_million, price.cache_write_per_million
    assert Fraction(cost) * 1_000_000 == (
        plain * Fraction(price.input_per_million)
        + cached * Fraction(price.input_per_million if per_cached is None else per_cached)
        + written * Fraction(price.input_per_million if per_written is None else per_written)
        + output * Fraction(price.output_per_million)
    )
    assert cost.as_tuple().exponent == -12


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (NOW - DAY - dt.timedelta(microseconds=1), None),
        (NOW - DAY, 1),
        (NOW - dt.timedelta(microseconds=1), 1),
        (NOW, 2),
        (NOW + DAY, 3),
        (NOW + 2 * DAY, 3),
    ],
)
def test_a_version_is_in_force_from_its_moment_to_the_next_ones(at: dt.datetime, expected: int | None) -> None:
    found = in_force([version(1, starts=NOW - DAY), version(2, starts=NOW), version(3, starts=NOW + DAY)], at)
    assert (None if found is None else found.id.int) == expected


@pytest.mark.django_db
def test_the_row_in_force_is_found_for_a_moment() -> None:
    model = LanguageModelFactory.create()
    old = PriceFactory.create(model=model, effective_from=NOW - DAY)
    new = PriceFactory.create(model=model, effective_from=NOW)
    PriceFactory.create(effective_from=NOW - 2 * DAY)
    moments = (NOW - 2 * DAY, NOW - DAY, NOW + DAY)
    assert [price_in_force(model, at) for at in moments] == [None, old, new]


@pytest.mark.django_db
def test_a_price_that_exists_is_neither_changed_nor_deleted() -> None:
    price = PriceFactory.create()
    price.input_per_million = Decimal(9)
    with pytest.raises(PriceIsFinal):
        price.save()
    with pytest.raises(PriceIsFinal):
        price.delete()
    price.refresh_from_db()
    assert price.input_per_million == Decimal(1)
