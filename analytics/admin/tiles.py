"""The dashboard's figures in words: value, remark, where it leads, and how it stands against the period before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from analytics.admin.links import Links
from analytics.dashboard import FAILURES, Dashboard, Part
from analytics.rows import UNITS
from chat.admin import formats

#: Percentiles come from histograms: what differs by less may be the same.
_APPROXIMATE: Final = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Against the period before. `arrow` and `amount` are seen, `spoken` is heard; `verdict` is "better", "worse" or
    nothing where more is neither."""

    arrow: str
    amount: str
    spoken: str
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    key: str
    label: str
    value: str
    remark: str
    url: str
    change: Change
    alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """How one figure is read of a part, written, and judged. `better`: -1 where less is, 1 where more is."""

    of: Callable[[Part], float | None]
    written: Callable[[float], str]
    better: int = 0
    is_share: bool = False
    noise: float = 0.0

    def change(self, now: Part, before: Part) -> Change:
        value, earlier = self.of(now), self.of(before)
        if earlier is None or not before.requests:
            return Change(arrow="", amount="nothing before", spoken="Nothing to compare with in the period before.")
        was = f"{self.written(earlier)} in the period before"
        if value is None:
            return Change(arrow="", amount=f"before: {self.written(earlier)}", spoken=f"{was}.")
        if value == earlier or abs(value - earlier) < self.noise * earlier:
            return Change(arrow="=", amount="about the same" if self.noise else "the same", spoken=f"{was}.")
        is_more = value > earlier
        amount = self._amount(value, earlier)
        is_slight = self.is_share and abs(value - earlier) < 0.001
        verdict = "" if not self.better or is_slight else "better" if is_more == (self.better > 0) else "worse"
        return Change(
            arrow="▲" if is_more else "▼",
            amount=amount,
            verdict=verdict,
            spoken=f"{'Up' if is_more else 'Down'} {amount}{f', which is {verdict}' if verdict else ''}: {was}.",
        )

    def _amount(self, value: float, earlier: float) -> str:
        difference = abs(value - earlier)
        if self.is_share:
            points = 100 * difference
            return f"{points:.1f} points" if points >= 0.1 else "under 0.1 points"
        if not earlier:
            return f"from {self.written(earlier)}"
        percent = 100 * difference / earlier
        if percent >= 1000:
            return f"{value / earlier:,.0f} times"
        return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %" if percent >= 0.1 else "under 0.1 %"


def tiles(dashboard: Dashboard, links: Links) -> list[Tile]:
    """In the order in which they are shown."""
    now, before = dashboard.now, dashboard.before
    totals, whole = now.totals, links.rows()
    failed = [status for status in links.asked.selection.status or sorted(FAILURES) if status in FAILURES]
    shown: Mapping[str, tuple[str, str, str, bool]] = {
        "requests": ("Requests", "accepted", whole, False),
        "errors": (
            "Error rate",
            f"{now.failures:,} failed or interrupted",
            links.rows(status=tuple(failed)) if failed else whole,
            bool(now.failures),
        ),
        "cost": ("Cost", "of what has a price", whole, False),
        "unpriced": (
            "Unpriced",
            "used tokens at no known price" if totals.unpriced else "every price is known",
            links.rows(price="unpriced"),
            bool(totals.unpriced),
        ),
        "tokens": ("Tokens", f"{brief(totals.input_tokens)} in, {brief(totals.output_tokens)} out", whole, False),
        "p50": ("Latency, median", "half were quicker", whole, False),
        "p95": ("Latency, 95 %", "19 of 20 were quicker", whole, False),
        "p99": ("Latency, 99 %", "99 of 100 were quicker", whole, False),
        "first_token": (
            "First token, median",
            f"95 % within {formats.milliseconds(now.first_tokens[1])}",
            whole,
            False,
        ),
        "cache": ("Cache hit rate", f"{now.hits:,} without a provider", links.rows(cached=True), False),
        "fallbacks": (
            "Fallbacks",
            f"{formats.share(totals.fallbacks, now.requests)} of requests",
            links.rows(fallback=True),
            False,
        ),
        "retries": ("Retries", _per_hundred(now), links.rows(retried=True), False),
    }
    return [
        Tile(
            key=key,
            label=label,
            value=_value(key, now),
            remark=remark if now.requests else "",
            url=url,
            alarm=alarm,
            change=_FIGURES[key].change(now, before),
        )
        for key, (label, remark, url, alarm) in shown.items()
    ]


def _value(key: str, part: Part) -> str:
    counts = {name: getattr(part.totals, name) for name in ("unpriced", "fallbacks", "retries")}
    if key in counts:
        return brief(counts[key])
    value = _FIGURES[key].of(part)
    if value is None:
        return formats.UNKNOWN if key == "cost" else formats.NOTHING
    return _FIGURES[key].written(value)


def _share_of(count: Callable[[Part], int]) -> Callable[[Part], float | None]:
    return lambda part: count(part) / part.requests if part.requests else None


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _per_hundred(part: Part) -> str:
    return f"{100 * part.totals.retries / part.requests:.1f} per 100 requests" if part.requests else ""


def brief(count: float) -> str:
    """A count with four significant digits at least: `9,999`, `12.3 k`, `4.57 M`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size * 10 or (unit != "k" and count >= size):
            return f"{count / size:,.2f} {unit}" if count < 10 * size else f"{count / size:,.1f} {unit}"
    return f"{count:,.0f}"


def money(units: float | None) -> str:
    """Of 1e-12 dollars."""
    return formats.money(None if units is None else Decimal(int(units)) / UNITS)


def _time(index: int) -> _Figure:
    return _Figure(of=lambda part: part.latencies[index], written=formats.milliseconds, better=-1, noise=_APPROXIMATE)


_FIGURES: Final[Mapping[str, _Figure]] = {
    "requests": _Figure(of=lambda part: part.requests, written=brief),
    "errors": _Figure(of=_share_of(lambda part: part.failures), written=_percent, better=-1, is_share=True),
    "cost": _Figure(of=lambda part: part.cost, written=money),
    "unpriced": _Figure(of=_share_of(lambda part: part.totals.unpriced), written=_percent, better=-1, is_share=True),
    "tokens": _Figure(of=lambda part: part.tokens, written=brief),
    "p50": _time(0),
    "p95": _time(1),
    "p99": _time(2),
    "first_token": _Figure(
        of=lambda part: part.first_tokens[0], written=formats.milliseconds, better=-1, noise=_APPROXIMATE
    ),
    "cache": _Figure(of=_share_of(lambda part: part.hits), written=_percent, better=1, is_share=True),
    "fallbacks": _Figure(of=_share_of(lambda part: part.totals.fallbacks), written=_percent, better=-1, is_share=True),
    "retries": _Figure(
        of=_share_of(lambda part: part.totals.retries), written=lambda share: f"{100 * share:.1f} per 100", better=-1
    ),
}
