"""Interactions in the admin: a list to find one in, its page, and its rows as a file."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model, QuerySet
from django.forms.models import model_to_dict
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.scoping import MANAGERS
from chat import encryption, erasure
from chat.admin import filters, formats, interaction_page
from chat.admin.beside import Beside
from chat.admin.browsing import BrowsingChangeList, without
from chat.admin.interaction_page import marks_of
from chat.admin.listing import ReadOnly
from chat.admin.saved import Saving
from chat.fields import start_of
from chat.models import Interaction
from chat.selection import SelectionError
from llmchat.lib.wording import counted

#: Seconds for which somebody waits for an erasure in the browser.
_PATIENCE = 20.0

ENCRYPTED_SEARCH = "User, id, request id. Texts are encrypted: no search in them"


class InteractionChangeList(BrowsingChangeList):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Interaction]:
        rows = super().get_queryset(request, exclude_parameters)
        return rows.defer(*Interaction.TEXTS).annotate(prompt_start=start_of("prompt", 300))


@admin.register(Interaction)
class InteractionAdmin(ReadOnly, Beside, Saving, ModelAdmin):
    list_display = ("time", "outcome", "prompt_excerpt", "caller", "answered_by", "tokens", "price", "duration")
    list_display_links = ("time", "prompt_excerpt")
    list_select_related = ("organization",)
    list_fullwidth = True
    list_filter_submit = True
    list_filter = (
        filters.PeriodFilter,
        ("created_at", filters.DayRangeFilter),
        filters.SpanFilter,
        filters.StatusFilter,
        filters.BY_CHOSEN_ORGANIZATION,
        filters.UserFilter,
        filters.ProviderFilter,
        filters.ModelFilter,
        filters.AskedFilter,
        filters.ErrorFilter,
        filters.EndpointFilter,
        filters.PlanFilter,
        filters.PriceFilter,
        filters.StreamedFilter,
        filters.FallbackFilter,
        filters.CachedFilter,
        filters.MetadataFilter,
        filters.TraceFilter,
        filters.RequestFilter,
    )
    #: Has the search box shown; what is looked for says `chat.search`.
    search_fields = ("prompt",)
    list_before_template = "admin/chat/interaction/before_list.html"
    empty_title = "No interactions yet"
    empty_text = "Each accepted request appears here as soon as it is answered, refused by a provider or cancelled."

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        return ENCRYPTED_SEARCH if encryption.is_on() else "Prompt, response, user, id, request id"

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return filters.worth_offering(super().get_list_filter(request), request)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # Nothing that changes a fact: not even Django's own action that deletes.
        name = "compare_selected"
        return {name: (type(self).compare_selected, name, "Compare the two selected interactions")}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BrowsingChangeList]:
        return InteractionChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if (default := self.default_of(request)) is not None:
            return default
        shown = {"title": "Interactions", **self.filters_of(request), **(extra_context or {})}
        try:
            response: HttpResponse = super().changelist_view(request, shown)
        except SelectionError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(f"{request.path}?{without(request.GET, error.name)}")
        return response

    # --- The list's columns ----------------------------------------------------------------------------------------
    @display(description="Time (UTC)")
    def time(self, row: Interaction) -> SafeString:
        return _two_lines(f"{row.created_at:%H:%M:%S}", f"{row.created_at:%Y-%m-%d}", title=row.created_at.isoformat())

    @display(description="Status")
    def outcome(self, row: Interaction) -> SafeString:
        badge = format_html('<span class="rec-badge rec-{}">{}</span>', row.status, row.get_status_display())
        if not row.error_code:
            return badge
        return format_html('{}<small class="rec-code" title="{}">{}</small>', badge, row.error_code, row.error_code)

    @display(description="Prompt")
    def prompt_excerpt(self, row: Interaction) -> SafeString:
        start: str = row.prompt_start  # type: ignore[attr-defined]
        if start.strip():
            words = format_html('<span class="rec-prompt">{}</span>', formats.excerpt(start, limit=110))
        else:
            reason = "erased" if row.erased_at else "no text on record"
            words = format_html('<span class="rec-prompt rec-muted">{}</span>', reason)
        marks = marks_of(row)
        return format_html('{}<span class="rec-marks">{}</span>', words, _chips(marks)) if marks else words

    @display(description="Caller")
    def caller(self, row: Interaction) -> SafeString:
        return _two_lines(row.organization.name, row.user_id)

    @display(description="Model")
    def answered_by(self, row: Interaction) -> SafeString:
        return _two_lines(row.model or row.model_requested or formats.NOTHING, row.provider or formats.NOTHING)

    @display(description="Tokens")
    def tokens(self, row: Interaction) -> SafeString:
        if row.input_tokens is None and row.output_tokens is None:
            return format_html('<span class="rec-muted">{}</span>', formats.UNKNOWN)
        estimated = "≈ " if row.usage_estimated else ""
        parts = f"{formats.count(row.input_tokens)} in, {formats.count(row.output_tokens)} out"
        return _two_lines(f"{estimated}{formats.count(row.total_tokens)}", parts)

    @display(description="Cost")
    def price(self, row: Interaction) -> SafeString:
        if row.cost is None:
            return format_html('<span class="rec-muted">{}</span>', formats.UNKNOWN)
        return format_html(
            '<span class="rec-number" title="{}">{}</span>', formats.exact_money(row.cost), formats.money(row.cost)
        )

    @display(description="Latency")
    def duration(self, row: Interaction) -> SafeString:
        first = formats.milliseconds(row.time_to_first_token_ms)
        remark = "" if row.time_to_first_token_ms is None else f"first {first}"
        return _two_lines(formats.milliseconds(row.latency_ms), remark, title=f"First token after {first}")

    # --- The page of one -------------------------------------------------------------------------------------------
    def page_context(self, request: HttpRequest, row: Interaction) -> dict[str, Any]:
        may = {"may_erase": self.may_erase(request, row), "may_run_again": self.may_run_again(request, row)}
        return interaction_page.context_of(request, row) | may

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.download)
        erase_person = self.admin_site.admin_view(self.erase_person)
        return [
            path("<uuid:pk>/download/", download, name="chat_interaction_download"),
            path("<uuid:pk>/erase-person/", erase_person, name="chat_interaction_erase_person"),
            *self.beside_urls(),
            *self.saving_urls(),
            *super().get_urls(),
        ]

    def may_erase(self, request: HttpRequest, row: Interaction) -> bool:
        """Who manages the organization; looking is not enough."""
        return self._may(request, row, MANAGERS)

    def erase_person(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Asks, and then erases the texts of the interaction's user."""
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        if not self.may_erase(request, row):
            raise PermissionDenied
        by = request.user.get_username()
        if request.method != "POST":
            removal = erasure.erase_person(row.organization, row.user_id, by=by, dry_run=True).removal
            context = {**self.admin_site.each_context(request), "title": "Erase", "row": row, "removal": removal}
            return TemplateResponse(request, "admin/chat/erase_person.html", context)
        done = erasure.erase_person(row.organization, row.user_id, by=by, seconds=_PATIENCE)
        rest = "." if done.is_whole else "; the rest follows within the hour."
        self.message_user(
            request,
            f"Erased: {counted(done.removal.interactions, 'interaction')} of {row.user_id}{rest}",
            messages.SUCCESS,
        )
        return HttpResponseRedirect(reverse("admin:chat_interaction_change", args=[pk]))

    def download(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The row with its attempts as a JSON file, every text whole."""
        row = self.get_object(request, str(pk))
        if row is None or not self.has_view_permission(request, row):
            raise Http404
        rows = {**_as_dict(row), "attempts": [_as_dict(attempt) for attempt in row.attempts.all()]}
        return HttpResponse(
            json.dumps(rows, cls=DjangoJSONEncoder, ensure_ascii=False, indent=2),
            content_type="application/json",
            headers={
                "Content-Disposition": f'attachment; filename="interaction-{pk}.json"',
                "X-Content-Type-Options": "nosniff",
            },
        )


def _as_dict(row: Model) -> dict[str, Any]:
    # `model_to_dict` leaves out what no form may edit, such as the id.
    return {"id": row.pk, **model_to_dict(row)}


def _two_lines(first: str, second: str, *, title: str = "") -> SafeString:
    return format_html(
        '<span class="rec-two" title="{}"><span>{}</span><small>{}</small></span>', title or second, first, second
    )


def _chips(marks: list[tuple[str, str]]) -> SafeString:
    return format_html_join("", '<span class="rec-chip" title="{}">{}</span>', ((why, word) for word, why in marks))
