"""The dashboard's charts over time, and the same figures as tables: what is drawn, and what is read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.utils.html import format_html_join

from analytics.admin.links import Links
from analytics.admin.tiles import money
from analytics.dashboard import Dashboard, Part
from analytics.models import Grain
from analytics.rows import UNITS
from chat.admin import formats
from chat.models import Status

#: How the start of an interval is written below a chart.
_LABELS: Final[Mapping[Grain, str]] = {
    Grain.MINUTE: "%H:%M",
    Grain.HOUR: "%H:%M",
    Grain.DAY: "%-d %b",
    Grain.MONTH: "%b %Y",
}
#: And in a table, where it stands alone.
_TIMES: Final[Mapping[Grain, str]] = {
    Grain.MINUTE: "%-d %b %H:%M",
    Grain.HOUR: "%-d %b %H:%M",
    Grain.DAY: "%a %-d %b %Y",
    Grain.MONTH: "%B %Y",
}
#: A line of a table: its chart, when it begins, where it leads and how it is called; then its values.
_LINE: Final = '<tr><th scope="row"><a id="dash-{}-{}" href="{}">{}</a></th>'
_CELL: Final = '<td class="rec-right">{}</td>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that a chart shows. `tone`: the stylesheet's name of its colour. `of`: the number that is drawn;
    `written`: the same for people."""

    label: str
    tone: str
    of: Callable[[Part], float | None]
    written: Callable[[Part], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """`kind`: "bar", stacked, or "line". `unit`: "count", "usd" or "ms"."""

    key: str
    title: str
    kind: str
    unit: str
    lines: tuple[Line, ...]


def _status(status: Status, tone: str) -> Line:
    return Line(
        label=status.label,
        tone=tone,
        of=lambda part: part.by_status.get(status, 0),
        written=lambda part: formats.count(part.by_status.get(status, 0)),
    )


def _percentile(label: str, tone: str, index: int) -> Line:
    return Line(
        label=label,
        tone=tone,
        of=lambda part: part.latencies[index],
        written=lambda part: formats.milliseconds(part.latencies[index]),
    )


def _tokens(label: str, tone: str, name: str) -> Line:
    return Line(
        label=label,
        tone=tone,
        of=lambda part: getattr(part.totals, name),
        written=lambda part: formats.count(getattr(part.totals, name)),
    )


CHARTS: Final = (
    Chart(
        key="requests",
        title="Requests by status",
        kind="bar",
        unit="count",
        lines=(
            _status(Status.SUCCEEDED, "good"),
            _status(Status.FAILED, "bad"),
            _status(Status.CANCELLED, "warn"),
            _status(Status.INTERRUPTED, "info"),
        ),
    ),
    Chart(
        key="cost",
        title="Cost",
        kind="bar",
        unit="usd",
        lines=(
            Line(
                label="Cost",
                tone="first",
                of=lambda part: None if part.cost is None else part.cost / UNITS,
                written=lambda part: money(part.cost),
            ),
        ),
    ),
    Chart(
        key="latency",
        title="Latency",
        kind="line",
        unit="ms",
        lines=(
            _percentile("Median", "first", 0),
            _percentile("95 %", "warn", 1),
            _percentile("99 %", "bad", 2),
        ),
    ),
    Chart(
        key="tokens",
        title="Tokens",
        kind="bar",
        unit="count",
        lines=(_tokens("In", "first", "input_tokens"), _tokens("Out", "second", "output_tokens")),
    ),
)


def drawn(dashboard: Dashboard, links: Links) -> list[dict[str, Any]]:
    """Each chart with what the template needs: the data to draw, the lines of the table, a summary."""
    span = links.asked.span
    grain = span.interval
    starts = [start for start, _ in dashboard.series]
    urls = [links.rows(since=since, until=until) for since, until in (span.within(start) for start in starts)]
    labels = [_label(start, _LABELS[grain]) for start in starts]
    times = [_label(start, _TIMES[grain]) for start in starts]
    found = []
    for chart in CHARTS:
        data = {
            "kind": chart.kind,
            "unit": chart.unit,
            "labels": labels,
            "times": times,
            "urls": urls,
            "lines": [
                {"label": line.label, "tone": line.tone, "data": [line.of(part) for _, part in dashboard.series]}
                for line in chart.lines
            ],
        }
        lines = (
            (chart.key, f"{start:%Y%m%d%H%M}", url, time, *(line.written(part) for line in chart.lines))
            for time, url, (start, part) in zip(times, urls, dashboard.series, strict=True)
        )
        # A template takes longer over these hundred lines.
        table = format_html_join("", _LINE + _CELL * len(chart.lines) + "</tr>", lines)
        whole = ", ".join(f"{line.label} {line.written(dashboard.now)}" for line in chart.lines)
        found.append({"chart": chart, "data": data, "table": table, "summary": f"{chart.title} over time. {whole}."})
    return found


def _label(start: dt.datetime, written: str) -> str:
    return start.strftime(written)
