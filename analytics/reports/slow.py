"""Slow calls: percentiles by model and provider, and the slowest calls of the range with their pages.

The slowest are found without looking through the range: histograms by day, then by hour, say in which hours they must
lie, and only the rows of those hours are read.
"""

from __future__ import annotations

import datetime as dt
import math
from functools import reduce
from operator import or_
from typing import Any, Final

from django.urls import reverse

from analytics import histogram, reading, rows
from analytics.histogram import GAMMA, NONE, Histogram
from analytics.models import Grain
from analytics.questions import Answer
from analytics.reports import figures, links
from analytics.reports.asking import Asked, FilterForm, choice
from analytics.reports.naming import names_of
from analytics.reports.ranges import HOURS_KEPT, Span
from analytics.reports.tables import Column, Kind, Line, Outcome, Table
from analytics.totals import Totals
from chat.models import Interaction, Status

_MEASURES: Final = {"latency": "Latency of the whole answer", "first_token": "Time to the first token"}
_COLUMNS: Final = {"latency": "latency_ms", "first_token": "time_to_first_token_ms"}
#: The slowest calls that are told.
_SLOWEST: Final = 10


class Form(FilterForm):
    measure = choice("Slow by", list(_MEASURES.items()))
    defaults = {"range": "last-7-days", "measure": "latency", "status": Status.SUCCEEDED.value}
    field_order = ("range", "since", "until", "organization", "measure")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get("user"):
            self.add_error("user", "Times are not kept by user. Open the list of interactions for one user's.")
        return cleaned


def make(asked: Asked) -> Outcome:
    measure = asked.options["measure"]
    (answer,) = reading.answer(asked.question(("provider", "model"), times=True))
    groups = {group[1:]: (totals, _times(totals, measure)) for group, totals in answer.groups.items()}
    groups = {group: found for group, found in groups.items() if found[1]}
    names = [names_of(name, {group[index] for group in groups}) for index, name in enumerate(("provider", "model"))]
    lines = [
        Line(
            values={
                "provider": names[0][provider],
                "model": names[1][model],
                **_told(totals, times, measure),
            },
            leads_to=links.rows_of(asked, {"provider": provider, "model": model}),
        )
        for (provider, model), (totals, times) in groups.items()
    ]
    lines.sort(key=lambda line: -(line.values["p95"] or 0))
    whole = figures.summed(totals for totals, _ in groups.values())
    table = Table(
        name="slow",
        title=_MEASURES[measure],
        columns=[
            Column(name="provider", label="Provider"),
            Column(name="model", label="Model"),
            Column(name="timed", label="Calls", kind=Kind.COUNT),
            *figures.TIMES,
            Column(name="slowest", label="Slowest, within 2 %", kind=Kind.MILLISECONDS),
        ],
        lines=lines,
        total=_told(whole, _times(whole, measure), measure),
        note=f"Percentiles come from histograms and are off by {100 * histogram.RELATIVE_ERROR:.2f} % at most.",
        empty="No answer was timed in this range. Take a longer one, or fewer filters.",
        bar="p95",
    )
    return Outcome(
        tables=[table, *(_slowest(asked, measure) if groups else ())], pending_since=figures.pending([answer])
    )


def _times(totals: Totals, measure: str) -> Histogram:
    return totals.latencies if measure == "latency" else totals.first_tokens


def _told(totals: Totals, times: Histogram, measure: str) -> dict[str, Any]:
    microseconds = totals.latency if measure == "latency" else totals.first_token
    return {
        "timed": sum(times.values()),
        **figures.times(times, microseconds),
        "slowest": histogram.value_of(max(times)) if times else None,
    }


def _slowest(asked: Asked, measure: str) -> list[Table]:
    span = asked.span.with_hours(now=asked.now)
    lines = _lines(asked, measure, span) if span.since < span.until else []
    note = f"The {_SLOWEST} slowest"
    if span.since > asked.span.since:
        note += f" since {span.first_day}: single calls are not looked for further back than {HOURS_KEPT.days} days"
    return [
        Table(
            name="slowest",
            title="The slowest calls",
            columns=[
                Column(name="time", label="Time (UTC)", kind=Kind.MOMENT),
                Column(name="organization", label="Organization"),
                Column(name="provider", label="Provider"),
                Column(name="model", label="Model"),
                Column(name="latency", label="Latency", kind=Kind.MILLISECONDS),
                Column(name="first_token", label="First token", kind=Kind.MILLISECONDS),
                Column(name="output_tokens", label="Output tokens", kind=Kind.COUNT),
                Column(name="retries", label="Retries", kind=Kind.COUNT),
            ],
            lines=lines,
            note=f"{note}.",
            empty="None that is still on record.",
            is_sortable=False,
        )
    ]


def _lines(asked: Asked, measure: str, span: Span) -> list[Line]:
    threshold, hours = _where(asked, measure, span)
    column = _COLUMNS[measure]
    columns = (
        "pk",
        "created_at",
        "organization__name",
        "provider",
        "model",
        "latency_ms",
        "time_to_first_token_ms",
        "output_tokens",
        "retries",
    )
    if not hours:
        return []
    narrowed = {**asked.only, f"{column}__gt": threshold}
    if asked.organization_id is not None:
        narrowed["organization_id"] = asked.organization_id
    in_hours = [rows.within(since, until, "pk") for since, until in span.parts(Grain.HOUR, hours)]
    calls: Any = Interaction.objects.filter(reduce(or_, in_hours), **narrowed)
    return [
        Line(
            values={
                "time": call[1],
                "organization": call[2],
                "provider": call[3] or None,
                "model": call[4] or None,
                "latency": call[5],
                "first_token": call[6],
                "output_tokens": call[7],
                "retries": call[8],
            },
            leads_to=reverse("admin:chat_interaction_change", args=[call[0]]),
        )
        for call in calls.order_by(f"-{column}", "pk").values_list(*columns)[:_SLOWEST]
    ]


def _where(asked: Asked, measure: str, span: Span) -> tuple[float, list[dt.datetime]]:
    """Milliseconds above which the slowest calls lie, and the hours in which they do; as few as hold enough."""
    (by_day,) = reading.answer(asked.question((), interval=Grain.DAY, span=span, times=True))
    _, days = _holding(by_day, measure)
    if not days:
        return 0.0, []
    within = span.parts(Grain.DAY, days)
    (by_hour,) = reading.answer(asked.question((), interval=Grain.HOUR, span=span, within=within, times=True))
    bucket, hours = _holding(by_hour, measure)
    lowest = 0.0 if bucket == NONE else math.pow(GAMMA, bucket - 1) * (1 - 1e-9)
    return lowest, hours


def _holding(answer: Answer, measure: str) -> tuple[int, list[dt.datetime]]:
    """The bucket from which on upwards the slowest calls lie, and the intervals in which they do, by falling slowness:
    as many as calls are wanted, at most. Where hundreds share the slowest bucket, each holds calls as slow as any."""
    by_start = {group[0]: _times(totals, measure) for group, totals in answer.groups.items() if group[0] is not None}
    bucket = _least_bucket(by_start.values())
    found = [start for start, times in by_start.items() if times and max(times) >= bucket]
    return bucket, sorted(found, key=lambda start: -max(by_start[start]))[:_SLOWEST]


def _least_bucket(parts: Any) -> int:
    """The bucket from which on upwards there are as many calls as are wanted, or the lowest there is."""
    whole: Histogram = {}
    for times in parts:
        histogram.add(whole, times)
    count, bucket = 0, NONE
    for bucket in sorted(whole, reverse=True):
        count += whole[bucket]
        if count >= _SLOWEST:
            break
    return bucket
