"""What is expected of the next answer after those before it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from providers import pace
from providers.pace import Pace

KIND = ("organization", "openai", "m")
FIRST_BYTE = 10.0


def after(times: Sequence[float]) -> Pace:
    remembered = Pace()
    for seconds in times:
        remembered.note(KIND, seconds)
    return remembered


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], False),
        ([0.1] * 7, False),
        ([0.1] * 8, True),
        ([2.4] * 8, True),
        ([2.6] * 8, False),
        ([0.1] * 100 + [2.6], False),
        ([10.0] + [0.1] * 60, False),
        ([10.0] + [0.1] * 75, True),
    ],
    ids=["none", "few", "enough", "near", "slow", "one slow", "lately slow", "slow long ago"],
)
def test_next_answer_is_expected_to_be_like_the_slowest_of_late(times: Sequence[float], expected: bool) -> None:
    assert after(times).is_quick(KIND, first_byte=FIRST_BYTE) is expected


def test_one_kind_says_nothing_of_another() -> None:
    remembered = after([0.1] * 8)
    assert not remembered.is_quick(("organization", "openai", "n"), first_byte=FIRST_BYTE)
    assert not remembered.is_quick(KIND, first_byte=0.1)


def test_memory_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_MOST", 2)
    remembered = after([0.1] * 8)
    remembered.note("second", 0.1)
    assert remembered.is_quick(KIND, first_byte=FIRST_BYTE)
    remembered.note("third", 0.1)
    assert not remembered.is_quick(KIND, first_byte=FIRST_BYTE)
