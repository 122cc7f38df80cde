"""Numbers with their nouns, for people. English alone; it knows nothing of what is counted."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Such as `1 row` or `2,000 rows`. `many`: the plural, where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
