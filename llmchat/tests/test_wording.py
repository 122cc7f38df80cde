"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from llmchat.lib.wording import counted


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(0, "row"), "0 rows"),
        (counted(1, "row"), "1 row"),
        (counted(2_000, "row"), "2,000 rows"),
        (counted(1, "breach", "breaches"), "1 breach"),
        (counted(3, "breach", "breaches"), "3 breaches"),
    ],
)
def test_one_is_told_apart_from_several(said: str, expected: str) -> None:
    assert said == expected
