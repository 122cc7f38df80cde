"""How figures and texts of the record are written for people. Knows no rows and makes no markup."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

UNKNOWN = "unknown"
NOTHING = "–"

#: Characters of one text that a page shows; the download has the rest.
TEXT_LIMIT = 50_000


@dataclass(frozen=True, slots=True)
class Text:
    """A text as a page shows it: its beginning, and how many characters stand behind it."""

    shown: str
    hidden: int = 0

    def __bool__(self) -> bool:
        return bool(self.shown)


NO_TEXT = Text("")


def text(value: str, *, limit: int = TEXT_LIMIT) -> Text:
    return Text(value[:limit], max(0, len(value) - limit))


def excerpt(value: str, *, limit: int = 120) -> str:
    """The beginning of a text on one line."""
    line = " ".join(value.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def money(amount: Decimal | None) -> str:
    """US dollars with three significant digits, at least two decimals. None is unknown, which is not the same as 0."""
    if amount is None:
        return UNKNOWN
    if amount == 0:
        return "$0"
    decimals = max(2, 2 - amount.adjusted())
    return f"${amount:,.{decimals}f}"


def exact_money(amount: Decimal | None) -> str:
    """US dollars with every digit that is on record."""
    return UNKNOWN if amount is None else f"${amount.normalize():f}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NOTHING
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 60_000:
        return f"{value / 1000:.2f} s"
    minutes, seconds = divmod(round(value / 1000), 60)
    return f"{minutes} min {seconds} s"


def count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def share(part: int, whole: int) -> str:
    """`part` of `whole` in percent. A few among many are never rounded to none."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    return "<0.1 %" if 0 < percent < 0.1 else f"{percent:.1f} %"


def pretty(value: Any) -> str:
    """JSON over several lines; text that holds JSON is laid out too, other text stays as it is."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return str(value)
    return json.dumps(value, indent=2, ensure_ascii=False)
