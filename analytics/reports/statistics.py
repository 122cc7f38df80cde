"""Intervals of confidence for shares, means and ratios, from counts, histograms and sums by period.

No package for so little: each function is a published formula, named in its docstring, and held against published
examples in its tests. Knows nothing of reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final

from analytics import histogram

#: How sure an interval is to hold the truth.
CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where, by the confidence asked for, the truth lies."""

    estimate: float
    low: float
    high: float

    @property
    def is_beside_zero(self) -> bool:
        """Whether 0 lies outside: as a difference, it is significant."""
        return self.low > 0 or self.high < 0


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a share, without correction for continuity.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927), 209.
    """
    z = _z(confidence)
    share = successes / trials
    middle = (2 * trials * share + z * z) / (2 * (trials + z * z))
    half = z * math.sqrt(z * z + 4 * trials * share * (1 - share)) / (2 * (trials + z * z))
    # At the ends the formula gives 0 and 1, but for rounding.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return Interval(share, low, high)


def newcombe(successes: tuple[int, int], trials: tuple[int, int], *, confidence: float = CONFIDENCE) -> Interval:
    """The difference of two independent shares, the first less the second: the hybrid of their score intervals.

    Source: R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 17 (1998), 873, method 10.
    """
    first, second = (wilson(*pair, confidence=confidence) for pair in zip(successes, trials, strict=True))
    difference = first.estimate - second.estimate
    below = math.hypot(first.estimate - first.low, second.high - second.estimate)
    above = math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Interval(difference, difference - below, difference + above)


@dataclass(frozen=True, slots=True)
class Sample:
    """Count, mean and variance (with n - 1) of independent values."""

    count: int
    mean: float
    variance: float

    @property
    def error(self) -> float:
        """The mean's own variance."""
        return self.variance / self.count


def of_histogram(times: Mapping[int, int], *, mean: float | None = None) -> Sample:
    """A histogram's values, each as its bucket's: off by 1.96 % at most (`analytics.histogram`). `mean`: the exact one,
    where it is known. At least two values."""
    count = sum(times.values())
    values = [(histogram.value_of(bucket), times_) for bucket, times_ in times.items()]
    middle = math.fsum(value * times_ for value, times_ in values) / count
    squares = math.fsum(times_ * (value - middle) ** 2 for value, times_ in values)
    return Sample(count, middle if mean is None else mean, squares / (count - 1))


def interval_of_mean(sample: Sample, *, confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of a mean.

    Source: Student, "The probable error of a mean", Biometrika 6 (1908), 1.
    """
    half = t_quantile(0.5 + confidence / 2, sample.count - 1) * math.sqrt(sample.error)
    return Interval(sample.mean, sample.mean - half, sample.mean + half)


def welch(first: Sample, second: Sample, *, confidence: float = CONFIDENCE) -> Interval:
    """The difference of two means, the first less the second, whose variances may differ.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947), 28; degrees of freedom by F. E. Satterthwaite, Biometrics Bulletin 2 (1946), 110.
    """
    return _difference(
        (first.mean, first.error, first.count - 1), (second.mean, second.error, second.count - 1), confidence
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of sums over periods, with its own variance and the number of periods."""

    value: float
    error: float
    periods: int


def ratio(amounts: Sequence[float], counts: Sequence[float]) -> Ratio:
    """What an amount is for each counted thing, and how sure that is, from sums by period. Periods are taken as the
    independent units, so that things of one period may be alike. At least two periods.

    Source: linearised variance of a ratio, W. G. Cochran, "Sampling Techniques", 3rd edition (1977), section 6.3; as
    the delta method in A. Deng, U. Knoblich, J. Lu, "Applying the Delta Method in Metric Analytics", KDD 2018.
    """
    periods, things = len(counts), math.fsum(counts)
    value = math.fsum(amounts) / things
    squares = math.fsum((amount - value * count) ** 2 for amount, count in zip(amounts, counts, strict=True))
    return Ratio(value, periods / (periods - 1) * squares / things**2, periods)


def interval_of_ratio(found: Ratio, *, confidence: float = CONFIDENCE) -> Interval:
    """Student's, with one degree of freedom less than periods."""
    half = t_quantile(0.5 + confidence / 2, found.periods - 1) * math.sqrt(found.error)
    return Interval(found.value, found.value - half, found.value + half)


def difference_of_ratios(first: Ratio, second: Ratio, *, confidence: float = CONFIDENCE) -> Interval:
    """The first less the second, as `welch` does it for means."""
    return _difference(
        (first.value, first.error, first.periods - 1), (second.value, second.error, second.periods - 1), confidence
    )


def _difference(first: tuple[float, float, int], second: tuple[float, float, int], confidence: float) -> Interval:
    """Of (estimate, its variance, degrees of freedom)."""
    (one, error_1, freedom_1), (two, error_2, freedom_2) = first, second
    error, difference = error_1 + error_2, one - two
    if error == 0:
        return Interval(difference, difference, difference)
    freedom = error**2 / (error_1**2 / freedom_1 + error_2**2 / freedom_2)
    half = t_quantile(0.5 + confidence / 2, freedom) * math.sqrt(error)
    return Interval(difference, difference - half, difference + half)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


# --- Student's distribution ------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def t_quantile(share: float, freedom: float) -> float:
    """The value below which this share (0.5 to 1) of Student's distribution lies.

    Found by halving: the distribution rises, and a thousand degrees of freedom or three need the same forty steps.
    """
    if freedom > 1e6:
        return NormalDist().inv_cdf(share)
    low, high = 0.0, 1.0
    while t_below(high, freedom) < share:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        if t_below(middle, freedom) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def t_below(value: float, freedom: float) -> float:
    """The share of Student's distribution below a value that is not negative.

    Source: M. Abramowitz, I. A. Stegun, "Handbook of Mathematical Functions" (1964), 26.7.1 with 26.5. Taken by the
    square of the value over its sum with the freedom: one minus that would round a small value away.
    """
    square = value * value
    return 0.5 + _incomplete_beta(0.5, freedom / 2, square / (freedom + square)) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised one, by its continued fraction (Abramowitz and Stegun 26.5.8), taken where it converges fast."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # Lentz's way to add up a continued fraction from its front.
    tiny = 1e-300
    c, d = 1.0, 1 / max(1 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _apart(1 + step * d, tiny)
            c = _apart(1 + step / c, tiny)
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * fraction / a


def _apart(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
