"""What is counted in memory and told later is what counting at once would have told."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram

from llmchat.lib.tallies import Tallies

pytestmark = pytest.mark.once

BUCKETS = (0.5, 1, 2.5)


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 300).map(lambda number: number / 64)), max_size=30))
def test_later_is_as_at_once(observed: list[tuple[str, float]]) -> None:
    at_once, later = CollectorRegistry(), CollectorRegistry()
    tallies = Tallies()
    for registry in (at_once, later):
        counter = Counter("said", "", ["who"], registry=registry)
        histogram = Histogram("long", "", ["who"], buckets=BUCKETS, registry=registry)
        for who, amount in observed:
            if registry is at_once:
                counter.labels(who).inc(amount)
                histogram.labels(who).observe(amount)
            else:
                tallies.add([(counter, (who,), amount), (histogram, (who,), amount)])
    assert not samples(later)
    tallies.flush()
    tallies.flush()
    assert samples(later) == samples(at_once)


def test_nothing_is_lost_between_threads_that_count_and_one_that_tells() -> None:
    registry = CollectorRegistry()
    counter, tallies = Counter("said", "", ["who"], registry=registry), Tallies()

    def count() -> None:
        for _ in range(2_000):
            tallies.add([(counter, ("a",), 1)])

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        tallies.flush()
    tallies.flush()
    assert registry.get_sample_value("said_total", {"who": "a"}) == 8_000
