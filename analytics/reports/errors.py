"""What failed: by provider, model and code, with when it began, when it was last, and a few of the very requests.

Counts come from roll-ups. An example is looked for in the last hour in which the roll-ups saw its kind, found by
looking closer at the last month, then day, of each; so that it costs an hour's rows at most, however long the range.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from django.urls import reverse

from analytics import reading, rows
from analytics.models import Grain
from analytics.reports import figures, links
from analytics.reports.asking import Asked, FilterForm
from analytics.reports.naming import names_of
from analytics.reports.ranges import HOURS_KEPT
from analytics.reports.tables import Column, Kind, Line, Outcome, Remark, Table
from analytics.totals import Totals
from chat.admin import formats
from chat.fields import start_of as start_of_text
from chat.models import Interaction
from llmchat.lib.wording import counted

_BY: Final = ("provider", "model", "error_code", "status")
#: Kinds of failures that get examples, and how many each.
_KINDS, _EXAMPLES = 10, 3
#: Days up to which a range is told by the hour and by the day; longer ones are by the month.
_DAYS_BY_HOUR, _DAYS_BY_DAY = 2, 100

_Kind = tuple[Any, ...]
"""Values of _BY."""


class Form(FilterForm):
    defaults = {"range": "last-7-days"}

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get("user"):
            self.add_error("user", "Errors are not counted by user. Open the list of interactions for one user's.")
        return cleaned


def make(asked: Asked) -> Outcome:
    grain = _grain(asked)
    narrowed = asked.only.get("status")
    failing = [status for status in figures.FAILURES if narrowed in {None, status}]
    whole, by_time = reading.answer(
        asked.question(("provider", "model", "status")),
        asked.question(_BY, interval=grain, only={"status": failing}),
    )
    requests: dict[tuple[Any, ...], int] = {}
    for (_, provider, model, _), totals in whole.groups.items():
        requests[provider, model] = requests.get((provider, model), 0) + totals.requests
    kinds: dict[_Kind, Totals] = {}
    seen: dict[_Kind, tuple[dt.datetime, dt.datetime]] = {}
    for (start, *values), totals in by_time.groups.items():
        kind = tuple(values)
        kinds.setdefault(kind, Totals()).add(totals)
        first, last = seen.get(kind, (start, start))
        seen[kind] = (min(first, start), max(last, start))
    failures = sum(totals.requests for totals in kinds.values())
    ranked = sorted(kinds, key=lambda kind: (-kinds[kind].requests, kind))
    names = {name: names_of(name, {kind[index] for kind in kinds}) for index, name in enumerate(_BY)}
    lines = [
        Line(
            values={
                **{name: names[name][value] for name, value in zip(_BY, kind, strict=True)},
                "failed": kinds[kind].requests,
                "share": kinds[kind].requests / failures,
                "failure_rate": kinds[kind].requests / requests[kind[:2]],
                "first": seen[kind][0] if grain is Grain.HOUR else seen[kind][0].date(),
                "last": seen[kind][1] if grain is Grain.HOUR else seen[kind][1].date(),
            },
            leads_to=links.rows_of(asked, dict(zip(_BY, kind, strict=True))),
        )
        for kind in ranked
    ]
    all_requests = sum(requests.values())
    moment = Kind.MOMENT if grain is Grain.HOUR else Kind.DAY
    word = grain.label.lower()
    return Outcome(
        tables=[
            Table(
                name="errors",
                title="Failures by kind",
                columns=[
                    Column(name="provider", label="Provider"),
                    Column(name="model", label="Model"),
                    Column(name="error_code", label="Code"),
                    Column(name="status", label="Status"),
                    Column(name="failed", label="Failed", kind=Kind.COUNT),
                    Column(name="share", label="Of all failures", kind=Kind.SHARE),
                    Column(name="failure_rate", label="Of its model's requests", kind=Kind.SHARE),
                    Column(name="first", label=f"First {word}", kind=moment),
                    Column(name="last", label=f"Last {word}", kind=moment),
                ],
                lines=lines,
                total={
                    "failed": failures,
                    "share": 1.0,
                    "failure_rate": failures / all_requests if all_requests else None,
                },
                empty="Nothing failed in this range.",
                bar="failed",
            ),
            *_examples(asked, {kind: seen[kind][1] for kind in ranked[:_KINDS]}, grain=grain),
        ],
        remarks=[] if failures else [Remark(text=f"{counted(all_requests, 'request')}, and none failed.")],
        pending_since=figures.pending([whole, by_time]),
    )


def _grain(asked: Asked) -> Grain:
    """How closely it is told when a failure was first and last seen."""
    if asked.span.days <= _DAYS_BY_HOUR and asked.span.with_hours(now=asked.now) == asked.span:
        return Grain.HOUR
    return Grain.DAY if asked.span.days <= _DAYS_BY_DAY else Grain.MONTH


def _examples(asked: Asked, last_seen: dict[_Kind, dt.datetime], *, grain: Grain) -> list[Table]:
    """The newest requests of each kind, from the last hour it was seen in."""
    if not last_seen:
        return []
    hours = _last_hours(asked, last_seen, grain=grain)
    lines = [line for kind in last_seen if kind in hours for line in _newest(asked, kind, hours[kind])]
    note = f"The newest of each kind, {_EXAMPLES} at most, of the {_KINDS} most frequent kinds"
    if len(hours) < len(last_seen):
        note += f"; kinds that were last seen more than {HOURS_KEPT.days} days ago have a link above only"
    return [
        Table(
            name="examples",
            title="Examples",
            columns=[
                Column(name="time", label="Time (UTC)", kind=Kind.MOMENT),
                Column(name="organization", label="Organization"),
                Column(name="model", label="Model"),
                Column(name="error_code", label="Code"),
                Column(name="latency", label="Latency", kind=Kind.MILLISECONDS),
                Column(name="message", label="Message", is_private=True),
            ],
            lines=lines,
            note=f"{note}.",
            empty="None that is still on record.",
            is_sortable=False,
        )
    ]


def _last_hours(asked: Asked, last_seen: dict[_Kind, dt.datetime], *, grain: Grain) -> dict[_Kind, dt.datetime]:
    """The last hour in which each kind was seen, of those that were seen while hours are kept."""
    span, found = asked.span.with_hours(now=asked.now), last_seen
    for finer in (Grain.DAY, Grain.HOUR):
        if finer < grain and (within := span.parts(grain, found.values())):
            question = asked.question(_BY, interval=finer, span=span, within=within, only={"status": figures.FAILURES})
            (answer,) = reading.answer(question)
            found = {}
            for start, *values in answer.groups:
                if (kind := tuple(values)) in last_seen:
                    found[kind] = max(found.get(kind, start), start)
            grain = finer
    return found if grain is Grain.HOUR else {}


def _newest(asked: Asked, kind: _Kind, hour: dt.datetime) -> list[Line]:
    narrowed: Mapping[str, Any] = {**asked.only, **dict(zip(_BY, kind, strict=True))}
    ((since, until),) = asked.span.parts(Grain.HOUR, [hour])
    found: Any = Interaction.objects.filter(rows.within(since, until, "pk"), **narrowed)
    if asked.organization_id is not None:
        found = found.filter(organization_id=asked.organization_id)
    found = found.annotate(message_start=start_of_text("error_message", 300)).order_by("-pk")
    columns = ("pk", "created_at", "organization__name", "model", "error_code", "latency_ms", "message_start")
    return [
        Line(
            values={
                "time": created_at,
                "organization": organization,
                "model": model or None,
                "error_code": code or None,
                "latency": latency,
                "message": formats.excerpt(message, limit=160),
            },
            leads_to=reverse("admin:chat_interaction_change", args=[pk]),
        )
        for pk, created_at, organization, model, code, latency, message in found.values_list(*columns)[:_EXAMPLES]
    ]
