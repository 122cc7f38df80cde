"""Two models, providers, plans or routes beside each other: success, latency and cost, and whether a difference is more
than chance.

Success: Wilson's intervals, and Newcombe's for the difference. Latency: Welch's, with variances from histograms. Cost:
roll-ups keep no spread of single costs, so that hours or days are the units, which also allows for requests of one
period being alike (`analytics.reports.statistics` names the sources).
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from analytics import reading
from analytics.models import Grain
from analytics.questions import Answer
from analytics.reports import figures, links, statistics
from analytics.reports.asking import DIMENSIONS, FILTERS, WORDS, Asked, FilterForm, choice, text
from analytics.reports.statistics import Interval
from analytics.reports.tables import Column, Kind, Line, Outcome, Remark, Table, Tone, percent, written
from analytics.rows import UNITS
from analytics.totals import Totals
from chat.models import Status

#: Requests, and for costs periods, of each side below which nothing is concluded.
FEWEST, FEWEST_PERIODS = 30, 5
_HOURS_KEPT: Final = dt.timedelta(days=34)
_COMPARED: Final = [word for word in FILTERS if word not in {"key", "user", "status", "error_code", "cached"}]


class Form(FilterForm):
    by = choice("Compare", [(word, f"{WORDS[word]}s") for word in _COMPARED])
    first = text("A", help_text="The whole name.")
    second = text("B", help_text="The whole name.")
    defaults = {"range": "last-30-days", "by": "model"}
    field_order = ("range", "since", "until", "organization", "by", "first", "second")
    secondary = tuple(word for word in FILTERS if word not in {"status", "user", "error_code"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A comparison among the failed says nothing about failing; users have neither statuses nor times.
        for word in ("status", "user", "error_code"):
            del self.fields[word]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        first, second, by = (cleaned.get(name) or "" for name in ("first", "second", "by"))
        if first and first == second:
            self.add_error("second", "A and B are the same. Name another one.")
        elif bool(first) != bool(second):
            self.add_error("second" if first else "first", "Name both, A and B; or neither, to see what there is.")
        if by and cleaned.get(by) not in {None, ""}:
            self.add_error(by, "That is what is compared already. Take this filter away.")
        return cleaned


@dataclass(slots=True)
class Side:
    """One of the two: its totals, and what it spent on how many priced requests by period."""

    name: str
    whole: Totals = field(default_factory=Totals)
    succeeded: int = 0
    cancelled: int = 0
    answered: Totals = field(default_factory=Totals)
    costs: dict[dt.datetime, float] = field(default_factory=lambda: defaultdict(float))
    priced: dict[dt.datetime, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def tried(self) -> int:
        """Requests that could succeed or fail: a caller who left says nothing about the answer."""
        return self.whole.requests - self.cancelled


def make(asked: Asked) -> Outcome:
    by = DIMENSIONS[asked.options["by"]]
    first, second = asked.options["first"], asked.options["second"]
    if not first:
        return _choices(asked, by)
    is_short = asked.span.days <= 14 and asked.span.since >= asked.now - _HOURS_KEPT
    grain = Grain.HOUR if is_short else Grain.DAY
    only = {by: [first, second]}
    totals, by_time = reading.answer(
        asked.question((by, "status"), only=only, times=True),
        asked.question((by,), only=only, interval=grain),
    )
    a, b = sides = _sides(totals, by_time, first, second)
    word = "hour" if is_short else "day"
    return Outcome(
        tables=[_table(asked, by, sides)],
        remarks=[
            *_on_success(a, b),
            *_on_latency(a, b),
            *_on_cost(a, b, word),
            Remark(
                text="Significant means: by chance alone, a difference like this comes up in fewer than 1 of 20 "
                "comparisons. It does not say why: unless requests were shared out at random, the two may have had "
                "different ones."
            ),
            *figures.remark_on_prices(figures.summed(side.whole for side in sides)),
        ],
        pending_since=figures.pending([totals, by_time]),
    )


def _sides(totals: Answer, by_time: Answer, first: str, second: str) -> tuple[Side, Side]:
    sides = {first: Side(first), second: Side(second)}
    for (_, name, status), found in totals.groups.items():
        side = sides[name]
        side.whole.add(found)
        if status == Status.SUCCEEDED:
            side.succeeded += found.requests
            side.answered.add(found)
        elif status == Status.CANCELLED:
            side.cancelled += found.requests
    for (start, name), found in by_time.groups.items():
        if found.priced:
            sides[name].costs[start] += found.cost / UNITS
            sides[name].priced[start] += found.priced
    return sides[first], sides[second]


def _choices(asked: Asked, by: str) -> Outcome:
    """What there is to compare, the most used first."""
    (answer,) = reading.answer(asked.question((by,), limit=50))
    lines = [
        Line(values={"name": name or None, **figures.spent(totals)}, leads_to=links.rows_of(asked, {by: name}))
        for (_, name), totals in answer.groups.items()
    ]
    columns = [Column(name="name", label=WORDS[asked.options["by"]]), figures.REQUESTS, *figures.SPENT]
    return Outcome(
        tables=[Table(name="choices", title="What there is to compare", columns=columns, lines=lines, bar="requests")],
        remarks=[Remark(text="Name two of these as A and B, and ask again.")],
        pending_since=answer.pending_since,
    )


def _table(asked: Asked, by: str, sides: tuple[Side, Side]) -> Table:
    money, times, share = Kind.MONEY, Kind.MILLISECONDS, Kind.SHARE
    return Table(
        name="comparison",
        title=f"{WORDS[asked.options['by']]}: {sides[0].name} and {sides[1].name}",
        columns=[
            Column(name="name", label=WORDS[asked.options["by"]]),
            figures.REQUESTS,
            Column(name="success", label="Success rate", kind=share),
            Column(name="success_low", label="from", kind=share),
            Column(name="success_high", label="to", kind=share),
            Column(name="latency", label="Mean latency", kind=times),
            Column(name="latency_low", label="from", kind=times),
            Column(name="latency_high", label="to", kind=times),
            Column(name="p50", label="p50", kind=times),
            Column(name="p95", label="p95", kind=times),
            Column(name="mean_cost", label="Mean cost (USD)", kind=money),
            Column(name="cost_low", label="from", kind=money),
            Column(name="cost_high", label="to", kind=money),
            Column(name="unpriced", label="Unpriced", kind=Kind.COUNT),
        ],
        lines=[Line(values=_told(side), leads_to=links.rows_of(asked, {by: side.name})) for side in sides],
        note="Success: of requests that were not cancelled by their caller. Latency: of answers that succeeded. Cost: "
        "of requests whose price is known. “From” and “to” hold the truth with 95 % confidence.",
        is_sortable=False,
    )


def _told(side: Side) -> dict[str, Any]:
    found: dict[str, Any] = {"name": side.name, "requests": side.whole.requests, "unpriced": side.whole.unpriced}
    if side.tried:
        success = statistics.wilson(side.succeeded, side.tried)
        found |= {"success": success.estimate, "success_low": success.low, "success_high": success.high}
    times = figures.times(side.answered.latencies, side.answered.latency)
    found |= {"latency": times["average"], "p50": times["p50"], "p95": times["p95"]}
    if (sample := _latency(side)) is not None:
        mean = statistics.interval_of_mean(sample)
        found |= {"latency_low": max(0.0, mean.low), "latency_high": mean.high}
    if side.whole.priced:
        found["mean_cost"] = _dollars(side.whole.cost / UNITS / side.whole.priced)
    if (ratio := _cost(side)) is not None:
        mean = statistics.interval_of_ratio(ratio)
        found |= {"cost_low": _dollars(max(0.0, mean.low)), "cost_high": _dollars(mean.high)}
    return found


def _latency(side: Side) -> statistics.Sample | None:
    count = sum(side.answered.latencies.values())
    if count < 2:
        return None
    return statistics.of_histogram(side.answered.latencies, mean=side.answered.latency / count / 1000)


def _cost(side: Side) -> statistics.Ratio | None:
    if len(side.priced) < 2:
        return None
    starts = sorted(side.priced)
    return statistics.ratio([side.costs[start] for start in starts], [side.priced[start] for start in starts])


def _dollars(value: float) -> Decimal:
    return round(Decimal(value), 12)


# --- In words --------------------------------------------------------------------------------------------------------


def _on_success(a: Side, b: Side) -> list[Remark]:
    if short := _too_few(a.tried, b.tried, a, b, "requests that were not cancelled"):
        return [_nothing("Success", short)]
    difference = statistics.newcombe((a.succeeded, b.succeeded), (a.tried, b.tried))
    shares = f"{percent(a.succeeded / a.tried)} against {percent(b.succeeded / b.tried)}"
    points = _between(difference, lambda value: f"{100 * abs(value):.2f}", "percentage points")
    return [_verdict("Success", a, b, difference, "succeeds more often", f"{shares}, a difference of {points}")]


def _on_latency(a: Side, b: Side) -> list[Remark]:
    counts = [sum(side.answered.latencies.values()) for side in (a, b)]
    first, second = _latency(a), _latency(b)
    short = _too_few(counts[0], counts[1], a, b, "timed answers")
    if short or first is None or second is None:
        return [_nothing("Latency", short)]
    difference = statistics.welch(first, second)
    means = f"{written(Kind.MILLISECONDS, first.mean)} against {written(Kind.MILLISECONDS, second.mean)} on average"
    spread = _between(difference, lambda value: written(Kind.MILLISECONDS, abs(value)))
    return [_verdict("Latency", b, a, difference, "is quicker", f"{means} (A, B), a difference of {spread}")]


def _on_cost(a: Side, b: Side, word: str) -> list[Remark]:
    first, second = _cost(a), _cost(b)
    short = _too_few(a.whole.priced, b.whole.priced, a, b, "requests with a known price")
    if not short and min(len(a.priced), len(b.priced)) < FEWEST_PERIODS:
        short = (
            f"each needs {FEWEST_PERIODS} {word}s with requests, and has {len(a.priced)} (A) and {len(b.priced)} (B)"
        )
    if short or first is None or second is None:
        return [_nothing("Cost", short)]
    difference = statistics.difference_of_ratios(first, second)
    means = " against ".join(written(Kind.MONEY, _dollars(ratio.value)) for ratio in (first, second))
    spread = _between(difference, lambda value: written(Kind.MONEY, _dollars(abs(value))))
    said = f"{means} a request on average (A, B), a difference of {spread}"
    return [_verdict("Cost", b, a, difference, "is cheaper", said)]


def _too_few(first: int, second: int, a: Side, b: Side, what: str) -> str:
    if min(first, second) >= FEWEST:
        return ""
    return f"each needs {FEWEST} {what}, and {a.name} has {first:,}, {b.name} {second:,}"


def _nothing(about: str, why: str) -> Remark:
    return Remark(text=f"{about}: too little to tell; {why}.", tone=Tone.WARNING)


def _verdict(about: str, a: Side, b: Side, found: Interval, what: str, numbers: str) -> Remark:
    """`found`: how much better `a` is than `b`."""
    if not found.is_beside_zero:
        return Remark(text=f"{about}: no significant difference. {numbers}.")
    better = a if found.estimate > 0 else b
    return Remark(text=f"{about}: {better.name} {what}, and the difference is significant. {numbers}.", tone=Tone.GOOD)


def _between(found: Interval, say: Any, unit: str = "") -> str:
    """The size of a difference with its interval; the ends have signs where they lie on both sides of none."""
    low, high = (found.low, found.high) if found.estimate >= 0 else (-found.high, -found.low)
    after = f" {unit}" if unit else ""
    ends = f"{_signed(low, say)} to {_signed(high, say)}"
    return f"{say(found.estimate)}{after} (95 % interval {ends})"


def _signed(value: float, say: Any) -> str:
    return f"-{say(value)}" if value < 0 else str(say(value))
