"""Who uses most: users by requests, cost, tokens or failures.

Users have totals by day, without statuses. Failures are therefore counted in rows: in the newest of the range, as many
as cost little to read, and the report says from when on.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from django.db.models import Count

from analytics import reading
from analytics.reports import figures, links
from analytics.reports.asking import Asked, ReportForm, choice
from analytics.reports.naming import UNKNOWN, names_of
from analytics.reports.ranges import Span
from analytics.reports.tables import Column, Kind, Line, Outcome, Remark, Table, Tone
from analytics.rows import within
from chat.models import Interaction
from llmchat.lib.uuid7 import moment_of
from llmchat.lib.wording import counted

#: What to rank by: the form's word, how people say it, and the counter of the roll-ups.
_MEASURES: Final = {
    "cost": ("Cost", "cost"),
    "requests": ("Requests", "requests"),
    "input_tokens": ("Input tokens", "input_tokens"),
    "output_tokens": ("Output tokens", "output_tokens"),
    "failed": ("Failed requests", ""),
}
_LIMITS: Final = ("10", "25", "50", "100", "500")
#: Rows in which failures are looked for.
ROWS_AT_MOST: Final = 20_000


class Form(ReportForm):
    measure = choice("Most by", [(name, label) for name, (label, _) in _MEASURES.items()])
    limit = choice("Users", [(number, number) for number in _LIMITS])
    defaults = {"range": "last-30-days", "measure": "cost", "limit": "25"}


def make(asked: Asked) -> Outcome:
    if asked.options["measure"] == "failed":
        return _by_failures(asked)
    (answer,) = reading.answer(
        asked.question(
            ("organization_id", "user_id"),
            limit=int(asked.options["limit"]),
            top=_MEASURES[asked.options["measure"]][1],
        )
    )
    names = names_of("organization_id", {group[1] for group in answer.groups})
    lines = [
        Line(
            values={"organization": names[organization], "user": user or UNKNOWN, **figures.spent(totals)},
            leads_to=partial(links.rows_of, asked, {"organization_id": organization, "user_id": user}),
        )
        for (_, organization, user), totals in answer.groups.items()
    ]
    whole = figures.summed([*answer.groups.values(), *([answer.rest] if answer.rest else [])])
    rest = answer.rest.requests if answer.rest else 0
    return Outcome(
        tables=[
            Table(
                name="users",
                title="Users",
                columns=[
                    Column(name="user", label="User"),
                    Column(name="organization", label="Organization"),
                    figures.REQUESTS,
                    *figures.SPENT,
                ],
                lines=lines,
                total=figures.spent(whole),
                note=f"The total is of all users; those that are not listed made {counted(rest, 'request')}."
                if rest
                else "",
                empty="No requests in this range. Take a longer one.",
                bar="requests" if asked.options["measure"] == "requests" else asked.options["measure"],
            )
        ],
        remarks=figures.remark_on_prices(whole),
        pending_since=answer.pending_since,
    )


def _by_failures(asked: Asked) -> Outcome:
    rows: Any = Interaction.objects.filter(within(asked.span.since, asked.span.until, "pk")).order_by()
    if asked.organization_id is not None:
        rows = rows.filter(organization_id=asked.organization_id)
    # Where the newest end: one step along the index, instead of the whole range.
    bound = rows.order_by("-pk").values_list("pk", flat=True)[ROWS_AT_MOST : ROWS_AT_MOST + 1].first()
    if bound is not None:
        rows = rows.filter(pk__gt=bound)
    failing = rows.filter(status__in=figures.FAILURES).values_list("organization_id", "user_id")
    found = list(failing.annotate(count=Count("pk")).order_by("-count", "user_id")[: int(asked.options["limit"])])
    names = names_of("organization_id", {organization for organization, _, _ in found})
    span = asked.span if bound is None else Span(since=moment_of(bound), until=asked.span.until)
    return Outcome(
        tables=[
            Table(
                name="users",
                title="Users",
                columns=[
                    Column(name="user", label="User"),
                    Column(name="organization", label="Organization"),
                    Column(name="failed", label="Failed", kind=Kind.COUNT),
                ],
                lines=[
                    Line(
                        values={"user": user or UNKNOWN, "organization": names[organization], "failed": count},
                        leads_to=links.rows_of(
                            asked,
                            {"organization_id": organization, "user_id": user, "status": figures.FAILURES},
                            span=span,
                        ),
                    )
                    for organization, user, count in found
                ],
                empty="Nobody's request failed.",
                bar="failed",
            )
        ],
        remarks=[_how_far(span)] if bound is not None else [],
    )


def _how_far(span: Span) -> Remark:
    text = f"Failures by user are counted in the newest {ROWS_AT_MOST:,} requests of the range: since "
    text += f"{span.since:%Y-%m-%d %H:%M} UTC. For more, take a range that ends earlier."
    return Remark(text=text, tone=Tone.WARNING)
