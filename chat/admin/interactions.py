"""Interactions in the admin: a list to find one in, a page to read it on, and its rows as a file."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model, QuerySet
from django.forms.models import model_to_dict
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import BooleanRadioFilter, ChoicesDropdownFilter, MultipleChoicesDropdownFilter
from unfold.decorators import display

from accounts.scoping import MANAGERS, OrganizationScoped
from chat import encryption, erasure
from chat.admin import exchange, filters, formats
from chat.admin.listing import ReadOnly, RecordChangeList
from chat.fields import start_of
from chat.models import Attempt, Interaction
from llmchat.lib.uuid7 import floor_at, moment_of

#: Between a request's id and its interaction's, whatever made the former.
_AROUND = dt.timedelta(hours=1)
#: Seconds for which somebody waits for an erasure in the browser.
_PATIENCE = 20.0

ENCRYPTED_SEARCH = "User, id, request id. Texts are encrypted: no search in them"

#: Columns that may be long and that no list shows.
LONG = (
    "prompt",
    "system_prompt",
    "messages",
    "parameters",
    "response",
    "reasoning",
    "tool_calls",
    "metadata",
    "error_message",
)


class InteractionChangeList(RecordChangeList):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Interaction]:
        rows: QuerySet[Interaction] = super().get_queryset(request, exclude_parameters)
        return rows.defer(*LONG).annotate(prompt_start=start_of("prompt", 300))


@admin.register(Interaction)
class InteractionAdmin(ReadOnly, OrganizationScoped, ModelAdmin):
    list_display = ("time", "outcome", "prompt_excerpt", "caller", "answered_by", "tokens", "price", "duration")
    list_display_links = ("time", "prompt_excerpt")
    list_select_related = ("organization",)
    list_fullwidth = True
    list_filter_submit = True
    list_filter = (
        filters.PeriodFilter,
        ("created_at", filters.DayRangeFilter),
        ("status", MultipleChoicesDropdownFilter),
        filters.BY_ORGANIZATION,
        filters.UserFilter,
        filters.ProviderFilter,
        filters.ModelFilter,
        ("endpoint", ChoicesDropdownFilter),
        filters.PlanFilter,
        filters.PriceFilter,
        ("streamed", BooleanRadioFilter),
        ("fallback", BooleanRadioFilter),
    )
    search_fields = ("user_id", "trace_id", "request_id")
    empty_title = "No interactions yet"
    empty_text = "Each accepted request appears here as soon as it is answered, refused by a provider or cancelled."

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        return ENCRYPTED_SEARCH if encryption.is_on() else "Prompt, response, user, id, request id"

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        # An encrypted text is found by no word in it; looking would read every one of them.
        return self.search_fields if encryption.is_on() else ("prompt", "response", *self.search_fields)

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return filters.worth_offering(super().get_list_filter(request), request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RecordChangeList]:
        return InteractionChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = super().changelist_view(request, {"title": "Interactions", **(extra_context or {})})
        return response

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Interaction], search_term: str
    ) -> tuple[QuerySet[Interaction], bool]:
        """A UUID is an id: of a row, found by the primary key, of a conversation or of a request. No text is read."""
        try:
            identifier = UUID(search_term.strip())
        except ValueError:
            found: tuple[QuerySet[Interaction], bool] = super().get_search_results(request, queryset, search_term)
            return found
        for column in ("pk", "conversation_id"):
            rows = queryset.filter(**{column: identifier})
            if rows.exists():
                return rows, False
        named = queryset.filter(request_id=search_term.strip())
        if named.exists():
            return named, False
        rows = queryset.filter(trace_id=search_term.strip())
        if identifier.version == 7:
            # Made when the request came in, about as its interaction's: the primary key narrows it down.
            moment = moment_of(identifier)
            rows = rows.filter(id__gte=floor_at(moment - _AROUND), id__lt=floor_at(moment + _AROUND))
        return rows, False

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
        return format_html('<span class="rec-number" title="{}">{}</span>', formats.exact_money(row.cost), _cost(row))

    @display(description="Latency")
    def duration(self, row: Interaction) -> SafeString:
        first = formats.milliseconds(row.time_to_first_token_ms)
        remark = "" if row.time_to_first_token_ms is None else f"first {first}"
        return _two_lines(formats.milliseconds(row.latency_ms), remark, title=f"First token after {first}")

    # --- The page of one -------------------------------------------------------------------------------------------
    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Interaction | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= _page(request, obj)
            context["may_erase"] = self.may_erase(request, obj)
        response: HttpResponse = super().render_change_form(request, context, add, change, form_url, obj)
        return response

    def get_urls(self) -> list[URLPattern]:
        download = self.admin_site.admin_view(self.download)
        erase_person = self.admin_site.admin_view(self.erase_person)
        return [
            path("<uuid:pk>/download/", download, name="chat_interaction_download"),
            path("<uuid:pk>/erase-person/", erase_person, name="chat_interaction_erase_person"),
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
            request, f"Erased: {done.removal.interactions:,} interactions of {row.user_id}{rest}", messages.SUCCESS
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


def marks_of(row: Interaction) -> list[tuple[str, str]]:
    """What was out of the ordinary, as (word, explanation)."""
    marks = []
    if row.streamed:
        marks.append(("stream", "Streamed as it was written"))
    if row.retries:
        marks.append((f"retry ×{row.retries}", "The same provider was asked again"))
    if row.fallback:
        marks.append(("fallback", "Another model or provider took over"))
    if row.cached:
        marks.append(("cached", "Answered without a provider"))
    return marks


def _page(request: HttpRequest, row: Interaction) -> dict[str, Any]:
    attempts = list(row.attempts.select_related("price"))
    return {
        "title": "Interaction",
        "row": row,
        "marks": marks_of(row),
        "figures": _figures(row),
        "facts": _facts(row),
        "turns": exchange.turns(row),
        "bars": exchange.bars(row, attempts),
        "attempts": [_attempt(attempt) for attempt in attempts],
        "parameters": formats.text(formats.pretty(row.parameters)) if row.parameters else None,
        "metadata": sorted(row.metadata.items()) if isinstance(row.metadata, dict) else [],
        "curl": exchange.curl(row, origin=request.build_absolute_uri("/").rstrip("/")),
    }


def _figures(row: Interaction) -> list[dict[str, str]]:
    """The header's figures: what, how much, and a remark."""
    details = [
        f"{count:,} {direction}"
        for count, direction in ((row.input_tokens, "in"), (row.output_tokens, "out"))
        if count is not None
    ]
    if row.cached_input_tokens:
        details.append(f"{row.cached_input_tokens:,} cached")
    if row.reasoning_tokens:
        details.append(f"{row.reasoning_tokens:,} reasoning")
    if row.usage_estimated:
        details.append("estimated")
    exact = formats.exact_money(row.cost)
    return [
        {"label": "Cost", "value": _cost(row), "remark": "" if exact == _cost(row) else exact},
        {"label": "Tokens", "value": _tokens(row), "remark": ", ".join(details)},
        {
            "label": "Latency",
            "value": formats.milliseconds(row.latency_ms),
            "remark": f"provider {formats.milliseconds(row.provider_latency_ms)}",
        },
        {"label": "First token", "value": formats.milliseconds(row.time_to_first_token_ms), "remark": ""},
        {"label": "Finish reason", "value": row.finish_reason or formats.NOTHING, "remark": ""},
    ]


def _facts(row: Interaction) -> list[dict[str, str | None]]:
    """Who asked, from where and by which way: label, value and, where the admin has a page for it, its address."""
    key, conversation = _related(row, "api_key"), _related(row, "conversation")
    facts: list[tuple[str, str, str | None]] = [
        ("Organization", row.organization.name, page_of(row.organization)),
        ("Plan then", row.plan, None),
        ("User", row.user_id, None),
        ("API key", str(key or ""), page_of(key)),
        ("Conversation", str(conversation or ""), page_of(conversation)),
        ("Endpoint", row.get_endpoint_display(), None),
        ("Route", row.route_reason, None),
        ("Request id", row.trace_id, None),
        ("Caller's request id", row.request_id or "", None),
        ("Interaction id", str(row.id), None),
        ("Accepted", f"{row.created_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC", None),
        ("Finished", f"{row.finished_at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC" if row.finished_at else "", None),
    ]
    return [{"label": label, "value": value, "url": url} for label, value, url in facts if value]


def _related(row: Interaction, name: str) -> Model | None:
    """The row that a reference without a constraint names, or None when it is gone."""
    try:
        related: Model | None = getattr(row, name)
    except ObjectDoesNotExist:
        return None
    return related


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "row": attempt,
        "latency": formats.milliseconds(attempt.latency_ms),
        "first_token": formats.milliseconds(attempt.time_to_first_token_ms),
        "input_tokens": formats.count(attempt.input_tokens),
        "output_tokens": formats.count(attempt.output_tokens),
        "ending": attempt.raw_finish_reason or attempt.finish_reason or formats.NOTHING,
        "cost": formats.money(attempt.cost),
        "price": _price_source(attempt),
        "price_url": page_of(attempt.price),
    }


def _price_source(attempt: Attempt) -> str:
    if attempt.cost_reported:
        return "reported by the provider"
    return f"price of {attempt.price.effective_from:%Y-%m-%d}" if attempt.price else ""


def page_of(row: Model | None) -> str | None:
    """The address of a row's page in the admin, or None when there is none."""
    if row is None:
        return None
    try:
        return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return None


def _cost(row: Interaction) -> str:
    return formats.money(row.cost)


def _tokens(row: Interaction) -> str:
    return formats.UNKNOWN if row.total_tokens is None else formats.count(row.total_tokens)


def _as_dict(row: Model) -> dict[str, Any]:
    # `model_to_dict` leaves out what no form may edit, such as the id.
    return {"id": row.pk, **model_to_dict(row)}


def _two_lines(first: str, second: str, *, title: str = "") -> SafeString:
    return format_html(
        '<span class="rec-two" title="{}"><span>{}</span><small>{}</small></span>', title or second, first, second
    )


def _chips(marks: list[tuple[str, str]]) -> SafeString:
    return format_html_join("", '<span class="rec-chip" title="{}">{}</span>', ((why, word) for word, why in marks))
