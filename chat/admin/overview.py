"""The admin's first page: the last 24 hours in figures, the latest failures, the first step when nothing is there."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from django.contrib import admin
from django.db.models import Count, F, Q, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from chat.admin import exchange, formats
from chat.admin.interactions import LONG, page_of
from chat.fields import start_of
from chat.models import Interaction, Status
from llmchat.lib.uuid7 import floor_at

SPAN = dt.timedelta(hours=24)
_FAILURES = (Status.FAILED, Status.INTERRUPTED)
_LATEST = 6
_MODELS = 6


def add_to(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback. Shows what the person may see in the list of interactions, no more."""
    context = context | {"title": "Overview"}
    model_admin = admin.site.get_model_admin(Interaction)
    if not model_admin.has_view_permission(request):
        return context | {"overview": None}
    rows = model_admin.get_queryset(request)
    recent = rows.filter(id__gte=floor_at(timezone.now() - SPAN)).order_by()
    # One pass over the day; everything else is added up from its few groups.
    groups: list[Any] = list(
        recent.values("model", "provider").annotate(
            requests=Count("pk"),
            failures=Count("pk", filter=Q(status__in=_FAILURES)),
            answered=Count("pk", filter=Q(status=Status.SUCCEEDED)),
            unpriced=Count("pk", filter=Q(cost=None, input_tokens__isnull=False)),
            spent=Sum("cost"),
            tokens=Sum(F("input_tokens") + F("output_tokens")),
            milliseconds=Sum("latency_ms", filter=Q(status=Status.SUCCEEDED)),
        )
    )
    overview: dict[str, Any] = {"figures": _figures(groups), "models": _models(groups)}
    if groups:
        latest = recent.filter(status__in=_FAILURES).select_related("organization").defer(*LONG)
        latest = latest.annotate(message_start=start_of("error_message", 300)).order_by("-id")[:_LATEST]
        overview["failures"] = [_failure(row) for row in latest]
    elif not rows.exists():
        overview["first_call"] = exchange.first_call(origin=request.build_absolute_uri("/"))
    return context | {"overview": overview}


def _total(groups: list[Any], name: str) -> Any:
    return sum(group[name] or 0 for group in groups)


def _spent(groups: list[Any]) -> Decimal | None:
    """The sum of the costs that are known; None when there were calls and not one has a known cost."""
    known: list[Decimal] = [group["spent"] for group in groups if group["spent"] is not None]
    return sum(known, Decimal(0)) if known or not groups else None


def _figures(groups: list[Any]) -> list[dict[str, str]]:
    requests, failures, unpriced = (_total(groups, name) for name in ("requests", "failures", "unpriced"))
    answered = _total(groups, "answered")
    average = _total(groups, "milliseconds") / answered if answered else None
    changelist = reverse("admin:chat_interaction_changelist")
    day = f"{changelist}?period=day"
    return [
        {"label": "Requests", "value": formats.count(requests), "remark": "accepted", "url": day},
        {
            "label": "Failed",
            "value": formats.count(failures),
            "remark": f"{formats.share(failures, requests)} of requests" if requests else "",
            "url": f"{day}&" + "&".join(f"status__exact={status}" for status in _FAILURES),
            "alarm": "yes" if failures else "",
        },
        {
            "label": "Cost",
            "value": formats.money(_spent(groups)),
            "remark": f"and {unpriced:,} unpriced" if unpriced else "every price known" if requests else "",
            "url": f"{day}&price=unpriced" if unpriced else day,
        },
        {"label": "Tokens", "value": formats.count(_total(groups, "tokens")), "remark": "in and out", "url": day},
        {
            "label": "Average latency",
            "value": formats.milliseconds(average),
            "remark": "of successful answers",
            "url": f"{day}&status__exact={Status.SUCCEEDED}",
        },
    ]


def _models(groups: list[Any]) -> list[dict[str, Any]]:
    most = max((group["requests"] for group in groups), default=0)
    return [
        {
            "model": group["model"] or formats.UNKNOWN,
            "provider": group["provider"] or formats.UNKNOWN,
            "requests": formats.count(group["requests"]),
            "failed": formats.share(group["failures"], group["requests"]) if group["failures"] else formats.NOTHING,
            "latency": formats.milliseconds(group["milliseconds"] / group["answered"] if group["answered"] else None),
            "cost": formats.money(group["spent"]),
            "width": f"{100 * group['requests'] / most:.1f}%",
        }
        for group in sorted(groups, key=lambda group: -group["requests"])[:_MODELS]
    ]


def _failure(row: Any) -> dict[str, Any]:
    return {
        "row": row,
        "url": page_of(row),
        "message": formats.excerpt(row.message_start, limit=140),
    }
