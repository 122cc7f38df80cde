"""Histograms: percentiles within the stated bound, adding up without loss, few bytes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics import histogram
from analytics.histogram import Histogram, add, add_encoded, bucket_of, encode, percentiles, value_of

pytestmark = pytest.mark.once

TIMES = st.floats(min_value=0, max_value=1e9, allow_nan=False) | st.sampled_from([0.0, 0.001, 1.0, 812.4])
SHARES = (0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0)


def histogram_of(times: list[float]) -> Histogram:
    found: Histogram = {}
    for time in times:
        add(found, {bucket_of(time): 1})
    return found


@given(st.lists(TIMES, min_size=1, max_size=300))
def test_percentiles_are_within_the_bound_of_the_exact_ones(times: list[float]) -> None:
    ordered = sorted(times)
    for share, found in zip(SHARES, percentiles(histogram_of(times), SHARES), strict=True):
        exact = ordered[math.floor(share * (len(times) - 1))]
        # What is below a microsecond counts as nothing.
        assert abs(found - exact) <= max(exact * (histogram.RELATIVE_ERROR + 1e-9), histogram.LEAST)


def test_the_bound_is_below_two_percent() -> None:
    assert histogram.RELATIVE_ERROR < 0.02


@given(st.lists(TIMES), st.lists(TIMES), st.lists(TIMES))
def test_the_histogram_of_parts_added_up_is_that_of_the_whole(a: list[float], b: list[float], c: list[float]) -> None:
    whole = histogram_of(a + b + c)
    right, left = histogram_of(c), histogram_of(a)
    add(right, histogram_of(b))
    add(right, histogram_of(a))
    add(left, histogram_of(b))
    add(left, histogram_of(c))
    assert left == right == whole


@given(st.lists(TIMES), st.lists(TIMES))
def test_what_is_stored_adds_up_to_the_same(a: list[float], b: list[float]) -> None:
    found: Histogram = {}
    add_encoded(found, encode(histogram_of(a)))
    add_encoded(found, encode(histogram_of(b)))
    assert found == histogram_of(a + b)


def test_counts_of_any_size_are_stored() -> None:
    large = {bucket_of(0.0): 127, bucket_of(1.0): 128, bucket_of(1e9): 10**12}
    found: Histogram = {}
    add_encoded(found, encode(large))
    assert found == large


def test_a_hundred_values_of_an_ordinary_spread_are_stored_in_less_than_two_bytes_each() -> None:
    assert len(encode(histogram_of([100.0 + 9 * index for index in range(100)]))) < 200


def test_no_values_have_no_percentiles() -> None:
    assert percentiles({}, SHARES) == [None] * len(SHARES)


def test_buckets_rise_with_their_values() -> None:
    values = [value_of(bucket) for bucket in range(histogram.NONE, 600)]
    assert values == sorted(set(values))
