"""Histograms of times from which percentiles are read, that can be added up without loss and stored in a few bytes.

The buckets of DDSketch (Masson, Rim, Lee: "DDSketch: A fast and fully-mergeable quantile sketch with relative-error
guarantees", VLDB 2019): bucket i holds what is above GAMMA^(i-1) and up to GAMMA^i, and stands for
2 * GAMMA^i / (GAMMA + 1), which is off by (GAMMA - 1) / (GAMMA + 1) = 1.96 % at most. Knows nothing of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

GAMMA: Final = 1.04
LN_GAMMA: Final = math.log(GAMMA)
#: What percentiles may be off by, as a share of the true value.
RELATIVE_ERROR: Final = (GAMMA - 1) / (GAMMA + 1)
#: Milliseconds below which a time counts as none; it has a bucket of its own.
LEAST: Final = 0.001
NONE: Final = math.ceil(math.log(LEAST) / LN_GAMMA) - 1

Histogram = dict[int, int]
"""How many values are in each bucket that has any."""


def bucket_of(milliseconds: float) -> int:
    """The bucket of a time. The database computes the same; see `analytics.rows`."""
    return NONE if milliseconds < LEAST else math.ceil(math.log(milliseconds) / LN_GAMMA)


def value_of(bucket: int) -> float:
    """What a bucket stands for, in milliseconds."""
    return 0.0 if bucket == NONE else 2 * math.exp(bucket * LN_GAMMA) / (GAMMA + 1)


def add(histogram: Histogram, other: Mapping[int, int]) -> None:
    for bucket, count in other.items():
        histogram[bucket] = histogram.get(bucket, 0) + count


def percentiles(histogram: Mapping[int, int], shares: Iterable[float]) -> list[float | None]:
    """The values below which these rising shares (0 to 1) of all lie, by the lower nearest rank floor(share * (n - 1)),
    counted from 0; None throughout when there are none."""
    total = sum(histogram.values())
    if not total:
        return [None for _ in shares]
    found: list[float | None] = []
    buckets = iter(sorted(histogram.items()))
    bucket, passed = next(buckets)
    for share in shares:
        rank = math.floor(share * (total - 1))
        while passed <= rank:
            bucket, count = next(buckets)
            passed += count
        found.append(value_of(bucket))
    return found


def encode(histogram: Mapping[int, int]) -> bytes:
    """The distance of each bucket from the one before (the first from NONE) and its count, as LEB128 numbers."""
    encoded = bytearray()
    before = NONE
    for bucket, count in sorted(histogram.items()):
        for number in (bucket - before, count):
            rest = number
            while rest > 0x7F:
                encoded.append(rest & 0x7F | 0x80)
                rest >>= 7
            encoded.append(rest)
        before = bucket
    return bytes(encoded)


def add_encoded(histogram: Histogram, encoded: bytes) -> None:
    """Adds what `encode` made of another one."""
    bucket, is_distance, number, shift = NONE, True, 0, 0
    for byte in encoded:
        if byte > 0x7F:
            number |= (byte & 0x7F) << shift
            shift += 7
            continue
        number |= byte << shift
        if is_distance:
            bucket += number
        else:
            histogram[bucket] = histogram.get(bucket, 0) + number
        is_distance, number, shift = not is_distance, 0, 0
