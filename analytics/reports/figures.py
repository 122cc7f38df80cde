"""What several reports tell of totals, in the same words: columns and how they follow from `Totals`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from analytics import histogram
from analytics.histogram import Histogram
from analytics.questions import Answer
from analytics.reports.tables import Column, Kind, Remark, Tone
from analytics.rows import UNITS
from analytics.totals import Totals
from chat.models import Status

FAILURES: Final = [str(Status.FAILED), str(Status.INTERRUPTED)]

REQUESTS: Final = Column(name="requests", label="Requests", kind=Kind.COUNT)
FAILED: Final = (
    Column(name="failed", label="Failed", kind=Kind.COUNT),
    Column(name="failure_rate", label="Failure rate", kind=Kind.SHARE),
)
SPENT: Final = (
    Column(name="cost", label="Cost (USD)", kind=Kind.MONEY),
    Column(name="unpriced", label="Unpriced", kind=Kind.COUNT),
    Column(name="input_tokens", label="Input tokens", kind=Kind.COUNT),
    Column(name="cached_input_tokens", label="Cached input", kind=Kind.COUNT),
    Column(name="output_tokens", label="Output tokens", kind=Kind.COUNT),
    Column(name="total_tokens", label="Tokens", kind=Kind.COUNT),
)
TIMES: Final = (
    Column(name="average", label="Average latency", kind=Kind.MILLISECONDS),
    Column(name="p50", label="p50", kind=Kind.MILLISECONDS),
    Column(name="p90", label="p90", kind=Kind.MILLISECONDS),
    Column(name="p95", label="p95", kind=Kind.MILLISECONDS),
    Column(name="p99", label="p99", kind=Kind.MILLISECONDS),
)
CALLS: Final = (
    Column(name="attempts", label="Attempts", kind=Kind.COUNT),
    Column(name="retries", label="Retries", kind=Kind.COUNT),
    Column(name="fallbacks", label="Fallbacks", kind=Kind.COUNT),
)
_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def summed(parts: Iterable[Totals]) -> Totals:
    whole = Totals()
    for totals in parts:
        whole.add(totals)
    return whole


def cost_of(totals: Totals) -> Decimal | None:
    """US dollars of what is priced; None when there is none and others spent something."""
    return None if totals.unpriced and not totals.priced else Decimal(totals.cost) / UNITS


def spent(totals: Totals) -> dict[str, Any]:
    """The values of REQUESTS and SPENT."""
    return {
        "requests": totals.requests,
        "cost": cost_of(totals),
        "unpriced": totals.unpriced,
        "input_tokens": totals.input_tokens,
        "cached_input_tokens": totals.cached_input_tokens,
        "output_tokens": totals.output_tokens,
        "total_tokens": totals.input_tokens + totals.output_tokens,
    }


def times(histogram_: Histogram, microseconds: int) -> dict[str, Any]:
    """The values of TIMES."""
    count = sum(histogram_.values())
    found = histogram.percentiles(histogram_, _SHARES.values())
    return {"average": microseconds / count / 1000 if count else None, **dict(zip(_SHARES, found, strict=True))}


def calls(totals: Totals) -> dict[str, Any]:
    """The values of CALLS."""
    return {"attempts": totals.attempts, "retries": totals.retries, "fallbacks": totals.fallbacks}


def failed(failures: int, requests: int) -> dict[str, Any]:
    """The values of FAILED."""
    return {"failed": failures, "failure_rate": failures / requests if requests else None}


def pending(answers: Iterable[Answer]) -> dt.datetime | None:
    """The oldest minute whose changes are not in one of the answers."""
    return min((answer.pending_since for answer in answers if answer.pending_since), default=None)


def remark_on_prices(totals: Totals) -> list[Remark]:
    """Money that nobody knows is said, never passed off as none."""
    if not totals.unpriced:
        return []
    text = f"{totals.unpriced:,} of {totals.requests:,} requests used tokens at a price that nobody knew: "
    text += "costs are what is known, and the true ones higher. Give those models prices."
    return [Remark(text=text, tone=Tone.WARNING)]
