"""What the month will cost: what is spent so far, and the days that are left by what such weekdays have cost lately.

Method: ordinary least squares of a day's cost on its weekday (seasonal dummy variables: R. J. Hyndman, G.
Athanasopoulos, "Forecasting: Principles and Practice", 3rd edition (2021), section 7.4; prediction intervals 7.6), from
the latest whole days, `WINDOW` at most, so that the level is the present one. Each weekday's estimate is its mean, and
the sum over the days left has the prediction variance s2 * (h + sum(n_w^2 / m_w)): h days left, n_w of them of weekday
w, m_w such days observed; the interval is Student's with N - 7 degrees of freedom. With less than two of each weekday
that are left, there is no telling weekdays apart: one mean for all days, N - 1 degrees of freedom. With less than
`FEW` days, no interval is told at all. No trend is assumed; days are taken as independent, so that a month with a new
customer may well end outside.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.urls import reverse

from analytics import reading
from analytics.models import Grain
from analytics.periods import end_of, start_of
from analytics.reports import figures
from analytics.reports.asking import Asked, ReportForm
from analytics.reports.naming import names_of
from analytics.reports.ranges import DAY, Span
from analytics.reports.statistics import CONFIDENCE, t_quantile
from analytics.reports.tables import Chart, Column, Kind, Line, Outcome, Remark, Table, Tone, written
from analytics.rows import UNITS
from analytics.totals import Totals

#: Whole days that a forecast looks back on.
WINDOW: Final = 42
#: Whole days without which no interval is told.
FEW: Final = 4
#: Organizations that are told one by one: those that spent most in these weeks.
LINES: Final = 50


class Form(ReportForm):
    defaults = {"range": "this-month"}
    #: The month is always the present one.
    hidden = ("range", "since", "until")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Dollars. `low` and `high` are None when there is too little to tell them from; `days`: whole days looked at."""

    spent: float
    expected: float
    low: float | None
    high: float | None
    days: int
    is_seasonal: bool


def forecast(costs: Mapping[dt.date, float], *, now: dt.datetime) -> Forecast:
    """Of the month that `now` is in, from costs by day (UTC). Days without an entry cost nothing, but for those before
    the first entry: then nobody was there yet."""
    today = now.astimezone(dt.UTC).date()
    month = today.replace(day=1)
    last = end_of(Grain.MONTH, start_of(Grain.MONTH, now)).date() - DAY
    spent = math.fsum(cost for day, cost in costs.items() if month <= day <= today)
    began = min((day for day in costs if day < today), default=today)
    first = max(began, today - WINDOW * DAY)
    seen = [(first + number * DAY, costs.get(first + number * DAY, 0.0)) for number in range((today - first).days)]
    midnight = start_of(Grain.DAY, now)
    # What is left of today counts as a part of a day.
    left = [(today, 1 - (now - midnight) / DAY)]
    left += [(today + number * DAY, 1.0) for number in range(1, (last - today).days + 1)]
    if not seen:
        return Forecast(spent=spent, expected=spent, low=None, high=None, days=0, is_seasonal=False)
    rest, error, freedom, is_seasonal = _rest(seen, left)
    low = high = None
    if len(seen) >= FEW and freedom > 0:
        half = t_quantile(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(error)
        # What is spent is spent: no month ends below it.
        low, high = spent + max(0.0, rest - half), spent + rest + half
    return Forecast(spent=spent, expected=spent + rest, low=low, high=high, days=len(seen), is_seasonal=is_seasonal)


def _rest(
    seen: Sequence[tuple[dt.date, float]], left: Sequence[tuple[dt.date, float]]
) -> tuple[float, float, int, bool]:
    """What the days (or parts of days) left will cost: expectation, variance, degrees of freedom, and whether weekdays
    were told apart."""
    by_weekday: dict[int, list[float]] = defaultdict(list)
    for day, cost in seen:
        by_weekday[day.weekday()].append(cost)
    is_seasonal = len(by_weekday) == 7 and all(len(costs) >= 2 for costs in by_weekday.values())
    if not is_seasonal:
        by_weekday = {0: [cost for _, cost in seen]}
    parts: dict[int, float] = defaultdict(float)
    for day, part in left:
        parts[day.weekday() if is_seasonal else 0] += part
    means = {weekday: math.fsum(costs) / len(costs) for weekday, costs in by_weekday.items()}
    squares = math.fsum((cost - means[weekday]) ** 2 for weekday, costs in by_weekday.items() for cost in costs)
    freedom = len(seen) - len(by_weekday)
    variance = squares / freedom if freedom > 0 else 0.0
    whole = math.fsum(part for _, part in left)
    spread = whole + math.fsum(part**2 / len(by_weekday[weekday]) for weekday, part in parts.items())
    return math.fsum(part * means[weekday] for weekday, part in parts.items()), variance * spread, freedom, is_seasonal


# --- The report ------------------------------------------------------------------------------------------------------


def make(asked: Asked) -> Outcome:
    today = start_of(Grain.DAY, asked.now)
    month = start_of(Grain.MONTH, asked.now)
    span = Span(since=min(month, today - WINDOW * DAY), until=today + DAY)
    whole, largest, before = reading.answer(
        asked.question((), interval=Grain.DAY, span=span),
        asked.question(("organization_id",), span=span, limit=LINES, top="cost"),
        asked.question(("organization_id",), span=Span(since=start_of(Grain.MONTH, month - DAY), until=month)),
    )
    # Each day of each of thousands would be many figures for lines that nobody reads.
    listed = {"organization_id": [group[1] for group in largest.groups]}
    (by_organization,) = reading.answer(
        asked.question(("organization_id",), interval=Grain.DAY, span=span, only=listed)
    )
    found = forecast(_costs(whole.groups.items()), now=asked.now)
    costs: dict[UUID, dict[dt.date, float]] = defaultdict(dict)
    for (start, organization), totals in by_organization.groups.items():
        costs[organization][start.date()] = totals.cost / UNITS
    last = {group[1]: figures.cost_of(totals) for group, totals in before.groups.items()}
    forecasts = {organization: forecast(days, now=asked.now) for organization, days in costs.items()}
    ranked = sorted(forecasts, key=lambda organization: -forecasts[organization].expected)
    names = names_of("organization_id", ranked)
    this_month = figures.summed(totals for (start,), totals in whole.groups.items() if start >= month)
    return Outcome(
        tables=[
            Table(
                name="forecast",
                title=f"The bill of {month:%B %Y}",
                columns=[
                    Column(name="organization", label="Organization"),
                    Column(name="spent", label="So far (USD)", kind=Kind.MONEY),
                    Column(name="expected", label="Expected (USD)", kind=Kind.MONEY),
                    Column(name="low", label="At least, 95 %", kind=Kind.MONEY),
                    Column(name="high", label="At most, 95 %", kind=Kind.MONEY),
                    Column(name="last_month", label="Last month (USD)", kind=Kind.MONEY),
                    Column(name="days", label="Days looked at", kind=Kind.COUNT),
                ],
                lines=[
                    Line(
                        values={
                            "organization": names[organization],
                            **_told(forecasts[organization]),
                            "last_month": last.get(organization, Decimal(0)),
                        },
                        leads_to=f"{reverse('reports:report', args=['forecast'])}?organization={organization}",
                    )
                    for organization in ranked
                ],
                total={**_told(found), "last_month": sum((cost or Decimal(0) for cost in last.values()), Decimal(0))},
                note="The total has an interval of its own: organizations' intervals do not add up. Months in UTC.",
                empty="Nothing was spent this month or in the weeks before it.",
                bar="expected",
            )
        ],
        remarks=[*_said(found), *_beyond(largest.rest), *figures.remark_on_prices(this_month)],
        chart=_chart(whole.groups.items(), month),
        pending_since=figures.pending([whole, by_organization, before]),
    )


def _costs(groups: Any) -> dict[dt.date, float]:
    return {group[0].date(): totals.cost / UNITS for group, totals in groups}


def _told(found: Forecast) -> dict[str, Any]:
    told = {name: getattr(found, name) for name in ("spent", "expected", "low", "high")}
    # A millionth of a cent is beyond any forecast.
    money = {name: None if value is None else round(Decimal(value), 8) for name, value in told.items()}
    return {**money, "days": found.days}


def _beyond(rest: Totals | None) -> list[Remark]:
    if rest is None or not rest.cost:
        return []
    spent = written(Kind.MONEY, Decimal(rest.cost) / UNITS)
    return [
        Remark(
            text=f"The {LINES} organizations that spent most in these weeks are listed; the others spent {spent}, "
            "which is in the total."
        )
    ]


def _said(found: Forecast) -> list[Remark]:
    if not found.days:
        return [
            Remark(
                text="There is not one whole day with requests yet to tell from: come back tomorrow.",
                tone=Tone.WARNING,
            )
        ]
    said = []
    expected = written(Kind.MONEY, round(Decimal(found.expected), 8))
    if found.low is None or found.high is None:
        said.append(
            Remark(
                text=f"About {expected}, if days go on as the {found.days} before today. That is too few to say how "
                f"sure this is; from {FEW} days on there is an interval.",
                tone=Tone.WARNING,
            )
        )
    else:
        low, high = (written(Kind.MONEY, round(Decimal(value), 8)) for value in (found.low, found.high))
        basis = "by weekday" if found.is_seasonal else "all days alike: too few to tell weekdays apart"
        said.append(
            Remark(
                text=f"The month will cost {expected}, between {low} and {high} with 95 % confidence, if days go on as "
                f"the {found.days} before today did ({basis}). Growth and new customers are not foreseen."
            )
        )
    return said


def _chart(groups: Any, month: dt.datetime) -> Chart | None:
    by_day: dict[dt.datetime, Totals] = {group[0]: totals for group, totals in groups}
    points = [(f"{day:%Y-%m-%d}", totals.cost / UNITS) for day, totals in sorted(by_day.items())]
    return Chart(title="Cost by day", kind=Kind.MONEY, points=points) if any(cost for _, cost in points) else None
