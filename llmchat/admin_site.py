"""The frame of the admin: its name, its side bar, its badge. `UNFOLD` in the settings names these functions.

It knows models by name only: an entry whose model has no admin, or that the person may not see, is left out.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.db import connection
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils.module_loading import import_string

#: Groups of (title, icon, model).
_GROUPS = (
    (
        "Record",
        (
            ("Interactions", "forum", "chat.Interaction"),
            ("Conversations", "chat_bubble", "chat.Conversation"),
            ("Saved filters", "filter_alt", "chat.SavedFilter"),
            ("Exports", "download", "chat.Export"),
            ("Request ids", "key_visualizer", "chat.IdempotencyClaim"),
            ("Quarantine", "report", "chat.QuarantinedExchange"),
            ("Removals", "delete_sweep", "chat.Removal"),
        ),
    ),
    (
        "Models",
        (
            ("Models", "smart_toy", "providers.LanguageModel"),
            ("Aliases", "alt_route", "providers.ModelAlias"),
            ("Prices", "payments", "providers.Price"),
            ("Unpriced use", "money_off", "chat.Repricing"),
            ("Health", "monitor_heart", "providers.ModelHealth"),
        ),
    ),
    (
        "Accounts",
        (
            ("Organizations", "domain", "accounts.Organization"),
            ("Users", "group", "accounts.User"),
            ("API keys", "key", "accounts.APIKey"),
            ("Plans", "speed", "accounts.Plan"),
            ("Audit trail", "history", "audit.Entry"),
        ),
    ),
)


def icon(request: HttpRequest) -> str:
    return static("llmchat/icon.svg")


def style(request: HttpRequest) -> str:
    return static("chat/record.css")


def script(request: HttpRequest) -> str:
    return static("chat/record.js")


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The side bar, grouped."""
    dashboard = {"title": "Dashboard", "icon": "monitoring", "link": reverse("admin:index")}
    groups: list[dict[str, Any]] = [{"items": [dashboard]}]
    for title, entries in _GROUPS:
        items = [item for entry in entries if (item := _item(request, *entry))]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
        if title == "Record":
            groups += [group for name in settings.ADMIN_NAVIGATION for group in import_string(name)(request)]
    reference = [
        {"title": "API documentation", "icon": "menu_book", "link": reverse("docs")},
        {"title": "Service health", "icon": "ecg_heart", "link": reverse("health")},
    ]
    groups.append({"title": "Reference", "separator": True, "items": reference})
    return groups


def _item(request: HttpRequest, title: str, symbol: str, label: str) -> dict[str, Any] | None:
    model = apps.get_model(label)
    if not admin.site.is_registered(model) or not admin.site.get_model_admin(model).has_view_permission(request):
        return None
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"
    return {"title": title, "icon": symbol, "link": reverse(name)}


def environment(request: HttpRequest) -> list[str] | None:
    """The badge beside the title: what a production server should not be."""
    if settings.DEBUG:
        return ["Debug", "danger"]
    if connection.vendor == "sqlite":
        return ["Embedded SQLite", "info"]
    return None
