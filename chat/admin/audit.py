"""The audit trail in the admin: who changed what, when and from where, for the operator and for those who manage an
organization."""

from __future__ import annotations

import json
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter, TextFilter
from unfold.decorators import display

from accounts.scoping import MANAGERS, OrganizationScoped, managed_organizations
from audit.models import Entry
from chat.admin import filters
from chat.admin.listing import ReadOnly

#: Values of a change that a list shows; the entry's own page has all.
_SHORT = 40


class WhoFilter(TextFilter):
    title = "who (whole name)"
    parameter_name = "who"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").strip()
        return queryset.filter(actor=name) if name else queryset


class KindFilter(DropdownFilter):
    """What kind of thing was changed. Asks the models, not the table."""

    title = "kind of thing"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        ours = [model for model in apps.get_models() if model.__module__.partition(".")[0] in _OURS]
        known = [(model._meta.label_lower, str(model._meta.verbose_name).capitalize()) for model in ours]
        return sorted(known, key=lambda choice: choice[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(object_type=self.value()) if self.value() else queryset


class ObjectFilter(TextFilter):
    """One thing: `accounts.plan:free`."""

    title = "thing (kind:id)"
    parameter_name = "object"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        kind, colon, identifier = (self.value() or "").strip().partition(":")
        return queryset.filter(object_type=kind, object_id=identifier) if colon else queryset


_OURS = frozenset({"accounts", "providers", "chat", "analytics", "knowledge"})


@admin.register(Entry)
class EntryAdmin(ReadOnly, OrganizationScoped, ModelAdmin):
    """Operators see all; who manages an organization sees what was done to what belongs to it."""

    list_display = ("time", "who", "act", "thing", "what_changed", "organization")
    list_display_links = ("time",)
    list_select_related = ("organization",)
    list_fullwidth = True
    list_filter_submit = True
    list_filter = (
        filters.PeriodFilter,
        ("created_at", filters.DayRangeFilter),
        ("action", ChoicesDropdownFilter),
        ("actor_kind", ChoicesDropdownFilter),
        KindFilter,
        filters.BY_ORGANIZATION,
        WhoFilter,
        ObjectFilter,
    )
    search_fields = ("=actor", "object_name", "=object_id", "=request_id")
    search_help_text = "Who, the name or id of a thing, a request id"
    list_title = "Audit trail"
    empty_title = "No changes yet"
    empty_text = "Each change to accounts, keys, plans, models and prices leaves an entry here, with who made it."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Entry]:
        rows: QuerySet[Entry] = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(organization__in=managed_organizations(request))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, obj, MANAGERS)

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return filters.worth_offering(super().get_list_filter(request), request)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        where = ("address", "request_id") if request.user.is_superuser else ("request_id",)
        what = ("act", "object_type", "object_id", "object_name", "page", "all_changes", "all_details")
        return ("created_at", "who", "organization", *where, *what)

    # --- The list's columns ----------------------------------------------------------------------------------------
    @display(description="When (UTC)")
    def time(self, row: Entry) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Who")
    def who(self, row: Entry) -> SafeString:
        return format_html(
            '<span class="rec-two"><span>{}</span><small>{}</small></span>', row.actor, row.get_actor_kind_display()
        )

    @display(description="Did")
    def act(self, row: Entry) -> str:
        return row.get_action_display()

    @display(description="What")
    def thing(self, row: Entry) -> SafeString:
        return format_html(
            '<span class="rec-two"><span>{}</span><small>{}</small></span>',
            row.object_name or row.object_id,
            _kind_of(row),
        )

    @display(description="Changes")
    def what_changed(self, row: Entry) -> SafeString:
        parts = [(name, f"{_short(before)} → {_short(after)}") for name, (before, after) in row.changes.items()][:3]
        parts += [(name, _short(value)) for name, value in row.details.items()][: 3 - len(parts)]
        more = len(row.changes) + len(row.details) - len(parts)
        shown = format_html_join("", '<small class="rec-line">{}: {}</small>', parts)
        return format_html("{}{}", shown, format_html("<small>and {} more</small>", more) if more else "")

    # --- The page of one -------------------------------------------------------------------------------------------
    @display(description="Its page")
    def page(self, row: Entry) -> SafeString | str:
        app, _, model = row.object_type.partition(".")
        try:
            address = reverse(f"admin:{app}_{model}_change", args=[row.object_id])
        except NoReverseMatch:
            return "–"
        return format_html('<a class="rec-link" href="{}">{}</a>', address, row.object_name or row.object_id)

    @display(description="Changes")
    def all_changes(self, row: Entry) -> SafeString | str:
        if not row.changes:
            return "–"
        lines = format_html_join(
            "",
            "<tr><th>{}</th><td>{}</td><td>{}</td></tr>",
            ((name, _said(before), _said(after)) for name, (before, after) in row.changes.items()),
        )
        return format_html(
            '<table class="rec-changes"><thead><tr><th>Field</th><th>Before</th><th>After</th></tr></thead>'
            "<tbody>{}</tbody></table>",
            lines,
        )

    @display(description="Details")
    def all_details(self, row: Entry) -> SafeString | str:
        if not row.details:
            return "–"
        return format_html(
            '<table class="rec-changes"><tbody>{}</tbody></table>',
            format_html_join("", "<tr><th>{}</th><td>{}</td></tr>", ((n, _said(v)) for n, v in row.details.items())),
        )


def _kind_of(row: Entry) -> str:
    try:
        return str(apps.get_model(row.object_type)._meta.verbose_name)
    except (LookupError, ValueError):
        return row.object_type


def _said(value: Any) -> str:
    match value:
        case None | "":
            return "–"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    text = _said(value)
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
