"""Intervals held against published examples, and against what defines them."""

from __future__ import annotations

import math
from statistics import NormalDist, mean, variance

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analytics import histogram
from analytics.reports import statistics
from analytics.reports.statistics import Ratio, Sample

pytestmark = pytest.mark.once

# "sleep" of R: extra hours of sleep with two drugs (Student 1908, Cushny and Peebles 1905).
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def sample_of(values: list[float]) -> Sample:
    return Sample(len(values), mean(values), variance(values))


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (17.776, 2.103), (30, 2.042), (120, 1.980), (1e9, 1.960)],
)
def test_quantiles_are_those_of_the_printed_tables(freedom: float, expected: float) -> None:
    assert statistics.t_quantile(0.975, freedom) == pytest.approx(expected, abs=0.0006)


@given(st.floats(0.5, 300), st.floats(0, 8))
@example(128.0, 1.192092896e-07)
def test_distribution_is_the_integral_of_its_density(freedom: float, value: float) -> None:
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def density(at: float) -> float:
        return scale * (1 + at * at / freedom) ** (-(freedom + 1) / 2)

    steps = 600
    width = value / steps
    simpson = sum((4 if i % 2 else 2) * density(i * width) for i in range(1, steps)) + density(0) + density(value)
    assert statistics.t_below(value, freedom) == pytest.approx(0.5 + simpson * width / 3, abs=1e-8)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_share_has_the_published_interval(successes: int, trials: int, low: float, high: float) -> None:
    found = statistics.wilson(successes, trials)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(st.integers(1, 100_000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials))))
def test_ends_of_a_share_are_where_the_score_test_turns(counted: tuple[int, int]) -> None:
    successes, trials = counted
    found = statistics.wilson(successes, trials)
    z = NormalDist().inv_cdf(0.975)
    assert found.low <= found.estimate <= found.high
    for end in (found.low, found.high):
        if 0 < end < 1:
            score = abs(found.estimate - end) / math.sqrt(end * (1 - end) / trials)
            assert score == pytest.approx(z, rel=1e-6)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # R. G. Newcombe, "Interval estimation for the difference between independent proportions", 1998, table II, 10.
    [
        ((56, 48), (70, 80), 0.0524, 0.3339),
        ((9, 3), (10, 10), 0.1705, 0.8090),
        ((6, 2), (7, 7), 0.0582, 0.8062),
        ((5, 0), (56, 29), -0.0381, 0.1926),
        ((0, 0), (10, 20), -0.1611, 0.2775),
        ((10, 0), (10, 20), 0.6791, 1.0),
    ],
)
def test_difference_of_shares_has_the_published_interval(
    successes: tuple[int, int], trials: tuple[int, int], low: float, high: float
) -> None:
    found = statistics.newcombe(successes, trials)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_difference_of_means_is_that_of_r() -> None:
    found = statistics.welch(sample_of(DRUG_1), sample_of(DRUG_2))
    assert found.estimate == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)
    assert not found.is_beside_zero


def test_mean_has_the_interval_of_r() -> None:
    found = statistics.interval_of_mean(sample_of(DRUG_2))
    # R: t.test(sleep$extra[11:20])
    assert (found.low, found.high) == pytest.approx((0.8976775, 3.7623225), abs=1e-6)


@given(st.lists(st.floats(0.01, 1e6), min_size=2, max_size=200))
def test_mean_and_spread_of_a_histogram_are_nearly_those_of_its_values(values: list[float]) -> None:
    times: dict[int, int] = {}
    for value in values:
        histogram.add(times, {histogram.bucket_of(value): 1})
    found = statistics.of_histogram(times)
    assert found.count == len(values)
    assert found.mean == pytest.approx(mean(values), rel=histogram.RELATIVE_ERROR + 1e-9)
    # Each value is off by two percent at most, so deviations are off by two percent of the largest at most.
    allowed = 2 * histogram.RELATIVE_ERROR * max(values) * math.sqrt(len(values) / (len(values) - 1))
    assert math.sqrt(found.variance) == pytest.approx(math.sqrt(variance(values)), abs=allowed + 1e-9)


@given(st.lists(st.floats(0, 1000), min_size=2, max_size=50))
def test_ratio_to_one_thing_a_period_is_the_mean(amounts: list[float]) -> None:
    found = statistics.interval_of_ratio(statistics.ratio(amounts, [1.0] * len(amounts)))
    plain = statistics.interval_of_mean(sample_of(amounts))
    assert (found.estimate, found.low, found.high) == pytest.approx((plain.estimate, plain.low, plain.high), abs=1e-6)


@given(st.lists(st.integers(1, 500), min_size=2, max_size=50), st.floats(0.001, 100))
def test_ratio_that_never_varies_is_certain(counts: list[int], price: float) -> None:
    found = statistics.ratio([count * price for count in counts], [float(count) for count in counts])
    assert found.value == pytest.approx(price)
    assert math.sqrt(found.error) == pytest.approx(0, abs=price * 1e-9)


def test_ratios_differ_like_means_when_each_period_has_one_thing() -> None:
    ones = [1.0] * 10
    found = statistics.difference_of_ratios(statistics.ratio(DRUG_1, ones), statistics.ratio(DRUG_2, ones))
    expected = statistics.welch(sample_of(DRUG_1), sample_of(DRUG_2))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_sure_ratios_differ_surely() -> None:
    found = statistics.difference_of_ratios(Ratio(2.0, 0.0, 5), Ratio(1.0, 0.0, 5))
    assert (found.estimate, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.is_beside_zero
