"""JSON from outside read without trust: a value of the wrong kind counts as one that is not there."""

from __future__ import annotations

import math

from providers.values import Json


def mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def mappings(value: Json) -> list[dict[str, Json]]:
    """The objects in a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def index(value: Json) -> int | None:
    return value if isinstance(value, int) else None


def count(value: Json) -> int:
    """A number of tokens. JSON also says numbers that are infinite or none at all."""
    if type(value) is int:
        return max(0, value)
    return max(0, int(value)) if isinstance(value, (int, float)) and math.isfinite(value) else 0
