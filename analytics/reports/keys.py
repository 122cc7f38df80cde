"""API keys that nobody uses: never used, or not for so many days, and so safe to revoke.

When a key was last used is read from roll-ups, first by month, then by the days of the newest months: never from rows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from django import forms
from django.urls import reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from accounts.models import APIKey
from analytics import reading
from analytics.models import Grain
from analytics.periods import end_of, start_of
from analytics.reports import figures
from analytics.reports.asking import Asked, ReportForm, choice
from analytics.reports.ranges import DAY, Span
from analytics.reports.tables import Column, Kind, Line, Outcome, Remark, Table

#: Keys in one report.
_KEYS_AT_MOST: Final = 2_000
_KINDS: Final = {"usable": "Keys that work", "all": "All, also revoked and expired ones"}
#: How far back the last use is looked for, and of how many of the newest months to the day.
_MONTHS_BACK: Final = 24
_MONTHS_BY_DAY: Final = 2


class Form(ReportForm):
    days = forms.IntegerField(
        label="Unused for days",
        required=False,
        min_value=1,
        max_value=700,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Keys without a request on any of the last so many days, today included.",
    )
    keys = choice("Keys", list(_KINDS.items()))
    defaults = {"range": "today", "days": "30", "keys": "usable"}
    field_order = ("organization", "days", "keys")
    #: Days say it all.
    hidden = ("range", "since", "until")


def make(asked: Asked) -> Outcome:
    days: int = asked.options["days"] or int(Form.defaults["days"])
    today = start_of(Grain.DAY, asked.now)
    span = Span(since=today - (days - 1) * DAY, until=today + DAY)
    keys = APIKey.objects.all() if asked.options["keys"] == "all" else APIKey.objects.usable()
    if asked.organization is not None:
        keys = keys.filter(organization=asked.organization)
    (recent,) = reading.answer(asked.question(("api_key_id",), span=span))
    used = {group[1] for group, totals in recent.groups.items() if totals.requests}
    # In the order of making, the oldest first: they are the likeliest to be forgotten.
    ordered = keys.select_related("organization").order_by("created_at")
    unused = [key for key in ordered.iterator(chunk_size=500) if key.pk not in used]
    told = unused[:_KEYS_AT_MOST]
    horizon = _back(today)
    last_used = _last_used(asked, {key.pk for key in told}, Span(since=horizon, until=max(span.since, horizon)))
    lines = [_line(key, last_used.get(key.pk), today=today, horizon=horizon) for key in told]
    lines.sort(key=lambda line: (-line.values["unused_days"], line.values["prefix"]))
    never = sum(key.pk not in last_used and key.created_at >= horizon for key in told)
    return Outcome(
        tables=[
            Table(
                name="keys",
                title="Unused API keys",
                columns=[
                    Column(name="prefix", label="Key"),
                    Column(name="name", label="Name"),
                    Column(name="organization", label="Organization"),
                    Column(name="status", label="Status"),
                    Column(name="created", label="Created", kind=Kind.DAY),
                    Column(name="last_used", label="Last request"),
                    Column(name="unused_days", label="Days without, at least", kind=Kind.COUNT),
                    Column(name="recognised", label="Last recognised (UTC)", kind=Kind.MOMENT),
                ],
                lines=lines,
                note="The last request is told by the day where it is recent, else by the month. A key may have been "
                "recognised later than that, for reading usage or history.",
                empty=f"Every one of these keys was used within the last {days} days.",
            )
        ],
        remarks=_remarks(len(unused), never, days),
        pending_since=figures.pending([recent]),
    )


def _back(today: dt.datetime) -> dt.datetime:
    """The first moment of the months that are looked at."""
    months = today.year * 12 + today.month - 1 - _MONTHS_BACK
    return today.replace(year=months // 12, month=months % 12 + 1, day=1)


def _remarks(count: int, never: int, days: int) -> list[Remark]:
    found = []
    if count:
        found.append(Remark(text=f"{count:,} without a request in the last {days} days; {never:,} never had one."))
    if count > _KEYS_AT_MOST:
        found.append(Remark(text=f"The {_KEYS_AT_MOST:,} oldest are listed. Choose an organization for the others."))
    return found


def _line(key: APIKey, last: Span | None, *, today: dt.datetime, horizon: dt.datetime) -> Line:
    if last is not None:
        told = f"{last.first_day:%Y-%m-%d}" if last.days == 1 else f"{last.first_day:%Y-%m}"
        since = last.last_day
    elif key.created_at >= horizon:
        told, since = "never", key.created_at.astimezone(dt.UTC).date()
    else:
        told, since = f"before {horizon:%Y-%m}", horizon.date()
    return Line(
        values={
            "prefix": f"{key.prefix}…",
            "name": key.name,
            "organization": key.organization.name,
            "status": key.status(),
            "created": key.created_at.astimezone(dt.UTC).date(),
            "last_used": told,
            "unused_days": (today.date() - since).days,
            "recognised": key.last_used_at,
        },
        leads_to=reverse("admin:accounts_apikey_change", args=[key.pk]),
    )


def _last_used(asked: Asked, keys: Collection[UUID], span: Span) -> dict[UUID, Span]:
    """The day, or further back the month, in which each of the keys that have any request in the range had its last."""
    if not keys or span.since >= span.until:
        return {}
    these = {"api_key_id": sorted(keys)}
    (by_month,) = reading.answer(asked.question(("api_key_id",), interval=Grain.MONTH, span=span, only=these))
    months = _latest(by_month.groups, keys)
    newest = sorted({*months.values()}, reverse=True)[:_MONTHS_BY_DAY]
    parts = [Span(since=month, until=min(end_of(Grain.MONTH, month), span.until)) for month in newest]
    by_day = reading.answer(
        *(asked.question(("api_key_id",), interval=Grain.DAY, span=part, only=these) for part in parts)
    )
    days: dict[UUID, dt.datetime] = {}
    for answer in reversed(by_day):
        days |= _latest(answer.groups, keys)
    return {
        key: Span(since=days[key], until=days[key] + DAY)
        if key in days
        else Span(since=month, until=end_of(Grain.MONTH, month))
        for key, month in months.items()
    }


def _latest(groups: Any, keys: Collection[UUID]) -> dict[UUID, dt.datetime]:
    """The last interval of each key."""
    found: dict[UUID, dt.datetime] = {}
    for start, key in groups:
        if key in keys:
            found[key] = max(found.get(key, start), start)
    return found
