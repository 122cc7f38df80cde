"""The admin's first page: the dashboard, and the fragment of it with which it refreshes itself.

Who may see the list of interactions sees their figures, of the same organizations; see `accounts.scoping`.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from accounts.models import APIKey, Organization, Plan
from accounts.scoping import scope_of
from analytics import dashboard as figures
from analytics import spans
from analytics.admin import asking, charts, rankings, tiles
from analytics.admin.asking import CUSTOM, Asked, Refused
from analytics.admin.links import Links
from analytics.dashboard import FAILURES, Dashboard
from chat.admin import exchange, formats
from chat.admin.interaction_page import page_of
from chat.fields import start_of
from chat.models import Interaction, Status
from chat.storing import UNUSABLE
from llmchat.lib.markup import options

logger = logging.getLogger(__name__)

#: Seconds from one refresh to the next.
REFRESH = 30
#: Choices that a select offers; what is not among them is chosen from a ranking, or by its id in the address.
CHOICES = 200
_FAILURES_SHOWN = 6
_OF_FAILURES = ("organization__name", "status", "error_code", "model", "model_requested", "created_at")
#: How much of the range the latest failures are looked for in.
_RECENT = dt.timedelta(hours=24)

_AWAY = (
    "The database cannot be reached, so there are no figures to show. Requests are still answered, and "
    "their rows follow. Look at Service health; this page tries again by itself."
)


def add_to(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback."""
    return context | {"title": "Dashboard", **_shown(request)}


def fragment(request: HttpRequest) -> HttpResponse:
    """What changes when the page refreshes; goes within `AdminSite.admin_view`."""
    shown = _shown(request)
    content = render_to_string("admin/dashboard/figures.html", shown, request=request)
    return HttpResponse(content, status=503 if shown.get("is_away") else 200)


def _shown(request: HttpRequest) -> dict[str, Any]:
    try:
        if scope_of(request) == frozenset():
            return {"belongs_nowhere": True}
        try:
            asked = asking.read(request, now=timezone.now())
        except Refused as refusal:
            return {"refusal": str(refusal), "start": reverse("admin:index")}
        return _dashboard(request, asked)
    except UNUSABLE as error:
        logger.exception("The dashboard has no database: %s", type(error).__name__)
        return {"is_away": True, "away": _AWAY, "refresh": REFRESH, "source": reverse("dashboard-figures")}


def _dashboard(request: HttpRequest, asked: Asked) -> dict[str, Any]:
    links = Links(asked)
    found = figures.look_at(asked.scope, asked.span)
    organizations, keys = _organizations(request, asked), _keys(asked)
    shown: dict[str, Any] = {
        "refresh": REFRESH,
        "source": reverse("dashboard-figures"),
        "asked": asked,
        "is_filtered": bool(asked.selection.values()),
        "periods": _periods(asked, links),
        "is_custom": asked.period == CUSTOM,
        "kept": {name: value for name, value in asked.selection.values().items() if name in {"model", "error"}},
        "filters": _filters(asked, links, named={**dict(organizations), **dict(keys)}),
        "choices": _choices(asked, organizations=organizations, keys=keys),
        "as_of": found.as_of,
        "pending_since": found.pending_since,
        "before": asked.span.before,
    }
    if not found.now.requests and not _rows(request).exists():
        return shown | {"first_call": exchange.first_call(origin=request.build_absolute_uri("/"))}
    return shown | {
        "is_quiet": not found.now.requests,
        "all_rows": reverse("admin:chat_interaction_changelist"),
        "tiles": tiles.tiles(found, links),
        "charts": charts.drawn(found, links),
        "rankings": rankings.told(found, links, {UUID(pk): name for pk, name in organizations}),
        "failures": _failures(request, asked, found),
        "users_left_out": bool(asked.scope.only),
    }


def _rows(request: HttpRequest) -> Any:
    return admin.site.get_model_admin(Interaction).get_queryset(request).order_by()


def _failures(request: HttpRequest, asked: Asked, found: Dashboard) -> list[dict[str, Any]]:
    """The latest of the range's end. Looked for in no more than a day, and where the figures say there are any."""
    recent = max(asked.span.since, asked.span.until - _RECENT)
    failed = [start for start, part in found.series if part.failures and asked.span.within(start)[1] > recent]
    if not failed:
        return []
    wanted = asked.selection.replace(
        since=max(failed[0], recent),
        until=asked.span.until,
        status=tuple(set(asked.selection.status or FAILURES) & FAILURES),
    )
    latest = wanted.rows(_rows(request)).select_related("organization").only(*_OF_FAILURES)
    latest = latest.annotate(message_start=start_of("error_message", 300)).order_by("-id")[:_FAILURES_SHOWN]
    return [
        {"row": row, "url": page_of(row), "message": formats.excerpt(row.message_start, limit=140)} for row in latest
    ]


# --- The bar above the figures ---------------------------------------------------------------------------------------
def _periods(asked: Asked, links: Links) -> list[dict[str, Any]]:
    return [
        {"name": name, "label": preset.label, "url": links.period(name), "is_chosen": asked.period == name}
        for name, preset in spans.PRESETS.items()
    ]


def _filters(asked: Asked, links: Links, *, named: dict[str, str]) -> list[dict[str, str]]:
    """Those that are in force, each with the way to take it away."""
    found = []
    for name, value in asked.selection.values().items():
        written = " or ".join(value) if isinstance(value, list) else named.get(value, value)
        if name == "cached":
            written = "yes" if asked.selection.cached else "no"
        found.append({"name": name, "value": written, "url": links.narrowed(**{name: None})})
    return found


def _choices(
    asked: Asked, *, organizations: list[tuple[str, str]], keys: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    """The selects of the filter form. What the record itself holds is not looked for: rankings offer it."""
    chosen = asked.selection.values()
    offered: list[tuple[str, str, list[tuple[str, str]]]] = [
        ("organization", "Organization", organizations),
        ("key", "API key", keys),
        ("provider", "Provider", [(slug, slug) for slug in sorted(settings.PROVIDERS)]),
        ("plan", "Plan", list(Plan.objects.values_list("slug", "name"))),
        ("status", "Status", [(str(status), str(status.label)) for status in Status]),
        ("cached", "From the cache", [("1", "Yes"), ("0", "No")]),
    ]
    found = []
    for name, label, choices in offered:
        value = chosen.get(name, "")
        # Several at once come from links only; the form keeps the first.
        value = value[0] if isinstance(value, list) else value
        known = [*choices] if not value or value in dict(choices) else [(value, value), *choices]
        if len(known) > 1 or value:
            written = options((option, text, option == value) for option, text in known)
            found.append({"name": name, "label": label, "options": written, "value": value})
    return found


def _organizations(request: HttpRequest, asked: Asked) -> list[tuple[str, str]]:
    """By name; the chosen one always among them."""
    visible = scope_of(request)
    rows = Organization.objects.all() if visible is None else Organization.objects.filter(pk__in=visible)
    listed = list(rows.order_by("name").values_list("pk", "name")[:CHOICES])
    chosen = asked.selection.organization
    if chosen and chosen not in dict(listed):
        listed += rows.filter(pk=chosen).values_list("pk", "name")
    return [(str(pk), name) for pk, name in listed]


def _keys(asked: Asked) -> list[tuple[str, str]]:
    """Of the organization that is looked at, when it is one."""
    if asked.scope.organizations is None or len(asked.scope.organizations) != 1:
        return []
    rows = APIKey.objects.filter(organization__in=asked.scope.organizations).order_by("name")[:CHOICES]
    return [(str(row.pk), str(row)) for row in rows]
