"""Usage and cost by anything: requests, failures, tokens, money and times by up to two dimensions and by time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from analytics import reading
from analytics.models import Grain
from analytics.periods import end_of
from analytics.questions import Answer, Group
from analytics.reports import figures, links
from analytics.reports.asking import DIMENSIONS, WORDS, Asked, FilterForm, choice
from analytics.reports.naming import names_of
from analytics.reports.ranges import DAY, HOURS_KEPT, Span
from analytics.reports.tables import Chart, Column, Kind, Line, Outcome, Table
from analytics.totals import Totals
from llmchat.lib.wording import counted

#: What intervals are asked by; weeks are days added up.
INTERVALS: Final = {"hour": Grain.HOUR, "day": Grain.DAY, "week": Grain.DAY, "month": Grain.MONTH}
#: By the hour, longer ranges give tables that nobody reads.
_DAYS_BY_HOUR: Final = 14
#: Users that are told one by one.
USERS_AT_MOST: Final = 1_000
_GROUPS: Final = [(word, label) for word, label in WORDS.items()]


class Form(FilterForm):
    group_by = choice("Group by", [("", "Nothing"), *_GROUPS])
    then_by = choice("Then by", [("", "Nothing"), *_GROUPS])
    interval = choice("By time", [("", "The whole range"), *((name, f"By {name}") for name in INTERVALS)])
    defaults = {"range": "last-30-days", "group_by": "model"}
    field_order = ("range", "since", "until", "organization", "group_by", "then_by", "interval")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        first, second = cleaned.get("group_by") or "", cleaned.get("then_by") or ""
        asked = {first, second, *(word for word in WORDS if cleaned.get(word) not in {None, ""})} - {"", "organization"}
        if first and first == second:
            self.add_error("then_by", "That is what the report is grouped by already. Choose another or nothing.")
        elif "user" in asked and len(asked) > 1:
            self.add_error(
                "group_by" if "user" in {first, second} else "user",
                "Users are counted by themselves: with them goes the organization, and no other group or filter.",
            )
        if "user" in {first, second} and cleaned.get("interval"):
            self.add_error(
                "interval", "Each user by time would be a long table. Name one user below, or take no times."
            )
        if cleaned.get("interval") == "hour" and not self.errors:
            self._check_hours("user" in asked)
        return cleaned

    def _check_hours(self, is_by_user: bool) -> None:
        span = self.asked().span
        if is_by_user:
            self.add_error("interval", "Users are not counted by the hour. Take days.")
        elif span.days > _DAYS_BY_HOUR:
            self.add_error("interval", f"By the hour go {_DAYS_BY_HOUR} days at most. Take days, or a shorter range.")
        elif span.since < self._now - HOURS_KEPT:
            self.add_error("interval", f"Hours are kept for {HOURS_KEPT.days} days. Take days, or a later range.")


def make(asked: Asked) -> Outcome:
    words = [word for word in (asked.options["group_by"], asked.options["then_by"]) if word]
    if "user" in words and "organization" not in words and asked.organization is None:
        # Users are an organization's: the same name elsewhere is somebody else.
        words.append("organization")
    by = [DIMENSIONS[word] for word in words]
    interval = asked.options["interval"]
    is_by_user = "user_id" in {*by, *asked.only}
    is_timed = not interval and not is_by_user
    # The status tells failures apart; users' totals have none.
    extra = [] if is_by_user or "status" in by else ["status"]
    grain = INTERVALS.get(interval)
    limit = USERS_AT_MOST if "user_id" in by else None
    (answer,) = reading.answer(asked.question([*by, *extra], interval=grain, times=is_timed, limit=limit))
    groups = _folded(answer, dimensions=by, is_weekly=interval == "week")
    names = [names_of(dimension, {group[1 + index] for group in groups}) for index, dimension in enumerate(by)]
    lines = []
    for group, (totals, failures) in groups.items():
        start, *values = group
        named = {word: names[index][value] for index, (word, value) in enumerate(zip(words, values, strict=True))}
        lines.append(
            Line(
                values={
                    **({"start": start if grain is Grain.HOUR else start.date()} if start else {}),
                    **named,
                    **_told(totals, failures, is_timed=is_timed),
                },
                leads_to=partial(
                    links.rows_of,
                    asked,
                    dict(zip(by, values, strict=True)),
                    span=_within(asked.span, start, interval),
                ),
            )
        )
    lines.sort(key=lambda line: (str(line.values.get("start", "")), -line.values["requests"]))
    rest = answer.rest or Totals()
    whole = figures.summed([*(totals for totals, _ in groups.values()), rest])
    failures = None if is_by_user else sum(count or 0 for _, count in groups.values())
    return Outcome(
        tables=[
            Table(
                name="usage",
                title="Usage and cost",
                columns=_columns(words, interval, is_by_user=is_by_user, is_timed=is_timed),
                lines=lines,
                total=_told(whole, failures, is_timed=is_timed),
                note=f"The total is of all users; users beyond the {USERS_AT_MOST:,} with the most made "
                f"{counted(rest.requests, 'request')}."
                if rest.requests
                else "",
                empty="No requests in this range. Take a longer one, or fewer filters.",
                bar="" if interval or not words else "requests",
            )
        ],
        remarks=figures.remark_on_prices(whole),
        chart=_chart(groups, interval),
        pending_since=answer.pending_since,
    )


_Folded = dict[Group, tuple[Totals, int | None]]


def _folded(answer: Answer, *, dimensions: list[str], is_weekly: bool) -> _Folded:
    """By what was asked for alone, with the number of failures, None where it is not known."""
    folded: _Folded = {}
    for (start, *values), totals in answer.groups.items():
        day = start - DAY * start.weekday() if start and is_weekly else start
        status = values[dimensions.index("status")] if "status" in dimensions else None
        if len(values) > len(dimensions):
            status = values.pop()
        failures = None if status is None else totals.requests * (status in figures.FAILURES)
        whole, before = folded.setdefault((day, *values), (Totals(), None if failures is None else 0))
        whole.add(totals)
        folded[day, *values] = (whole, None if failures is None else (before or 0) + failures)
    return folded


def _within(span: Span, start: dt.datetime | None, interval: str) -> Span:
    """The part of the range that lies in the interval that begins at `start`."""
    if start is None:
        return span
    end = start + 7 * DAY if interval == "week" else end_of(INTERVALS[interval], start)
    return Span(since=max(span.since, start), until=min(span.until, end))


def _told(totals: Totals, failures: int | None, *, is_timed: bool) -> dict[str, Any]:
    found: dict[str, Any] = figures.spent(totals)
    if failures is not None:
        found |= figures.failed(failures, totals.requests)
        found |= figures.calls(totals)
    if is_timed:
        found |= figures.times(totals.latencies, totals.latency)
    return found


def _columns(words: list[str], interval: str, *, is_by_user: bool, is_timed: bool) -> list[Column]:
    kind = Kind.MOMENT if interval == "hour" else Kind.DAY
    return [
        *([Column(name="start", label=f"{interval.capitalize()} from (UTC)", kind=kind)] if interval else []),
        *(Column(name=word, label=WORDS[word]) for word in words),
        figures.REQUESTS,
        *(() if is_by_user else figures.FAILED),
        *figures.SPENT,
        *(figures.TIMES if is_timed else ()),
        *(() if is_by_user else figures.CALLS),
    ]


def _chart(groups: Mapping[Group, tuple[Totals, Any]], interval: str) -> Chart | None:
    """Money over time; requests while nothing costs any."""
    if not interval:
        return None
    by_start: dict[dt.datetime, Totals] = {}
    for group, (totals, _) in groups.items():
        by_start.setdefault(group[0], Totals()).add(totals)
    costs = any(totals.cost for totals in by_start.values())
    form = "%Y-%m-%d %H:%M" if interval == "hour" else "%Y-%m" if interval == "month" else "%Y-%m-%d"
    points = [
        (format(start, form), float(figures.cost_of(totals) or 0) if costs else float(totals.requests))
        for start, totals in sorted(by_start.items())
    ]
    kind, what = (Kind.MONEY, "Cost") if costs else (Kind.COUNT, "Requests")
    return Chart(title=f"{what} by {interval}", kind=kind, points=points)
