"""Conversations in the admin: a list, and a page that reads as a thread."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.scoping import OrganizationScoped
from chat import encryption
from chat.admin import filters, formats
from chat.admin.formats import Text
from chat.admin.interactions import LONG, marks_of, page_of
from chat.admin.listing import ReadOnly, RecordChangeList
from chat.fields import length_of, start_of
from chat.models import Conversation, Interaction

#: Interactions on one page of a thread.
PAGE_LENGTH = 50
#: Characters of one prompt or response in a thread; the interaction's own page has more.
TURN_LIMIT = 4_000


class ConversationChangeList(RecordChangeList):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super().get_queryset(request, exclude_parameters)
        # A subquery by the index for each row shown; a join would group the whole table first.
        counted = Interaction.objects.filter(conversation=OuterRef("pk")).order_by().values("conversation")
        return rows.annotate(interaction_count=Subquery(counted.annotate(count=Count("pk")).values("count")))


@admin.register(Conversation)
class ConversationAdmin(ReadOnly, OrganizationScoped, ModelAdmin):
    list_display = ("name", "caller", "interaction_count", "begun", "last_activity")
    list_display_links = ("name",)
    list_select_related = ("organization",)
    list_filter_submit = True
    list_filter = (
        filters.PeriodFilter,
        ("created_at", filters.DayRangeFilter),
        filters.BY_ORGANIZATION,
        filters.UserFilter,
    )
    search_fields = ("user_id",)
    empty_title = "No conversations yet"
    empty_text = "A call to /v1/chat begins one; calls that name its conversationId carry it on."

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return filters.worth_offering(super().get_list_filter(request), request)

    @property
    def search_help_text(self) -> str:  # type: ignore[override]
        return "User, id. Titles are encrypted: no search in them" if encryption.is_on() else "Title, user, id"

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return self.search_fields if encryption.is_on() else ("title", *self.search_fields)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RecordChangeList]:
        return ConversationChangeList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = super().changelist_view(request, {"title": "Conversations", **(extra_context or {})})
        return response

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Conversation], search_term: str
    ) -> tuple[QuerySet[Conversation], bool]:
        try:
            return queryset.filter(pk=UUID(search_term.strip())), False
        except ValueError:
            found: tuple[QuerySet[Conversation], bool] = super().get_search_results(request, queryset, search_term)
            return found

    @display(description="Conversation")
    def name(self, row: Conversation) -> SafeString:
        return format_html('<span class="rec-prompt">{}</span>', formats.excerpt(row.title, limit=90) or str(row.id))

    @display(description="Caller")
    def caller(self, row: Conversation) -> SafeString:
        return format_html(
            '<span class="rec-two"><span>{}</span><small>{}</small></span>', row.organization.name, row.user_id
        )

    @display(description="Interactions")
    def interaction_count(self, row: Conversation) -> str:
        return formats.count(row.interaction_count or 0)  # type: ignore[attr-defined]

    @display(description="Begun (UTC)")
    def begun(self, row: Conversation) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Last activity (UTC)")
    def last_activity(self, row: Conversation) -> str:
        return f"{row.updated_at:%Y-%m-%d %H:%M:%S}"

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Conversation | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context |= _page(obj, before=_identifier(request.GET.get("before")))
        response: HttpResponse = super().render_change_form(request, context, add, change, form_url, obj)
        return response


def _identifier(raw: str | None) -> UUID | None:
    try:
        return UUID(raw) if raw else None
    except ValueError:
        return None


def _page(conversation: Conversation, *, before: UUID | None) -> dict[str, Any]:
    """The newest interactions of the thread, or those before the one named, oldest first."""
    rows = (
        conversation.interactions.defer(*LONG)
        .annotate(
            prompt_start=start_of("prompt", TURN_LIMIT),
            prompt_length=length_of("prompt"),
            response_start=start_of("response", TURN_LIMIT),
            response_length=length_of("response"),
        )
        .order_by("-id")
    )
    if before is not None:
        rows = rows.filter(id__lt=before)
    found = list(rows[: PAGE_LENGTH + 1])
    shown = found[:PAGE_LENGTH]
    return {
        "title": "Conversation",
        "row": conversation,
        "organization_url": page_of(conversation.organization),
        "thread": [_entry(row) for row in reversed(shown)],
        "older": shown[-1].pk if len(found) > PAGE_LENGTH else None,
        "is_latest": before is None,
    }


def _entry(row: Any) -> dict[str, Any]:
    interaction: Interaction = row
    return {
        "row": interaction,
        "url": page_of(interaction),
        "prompt": _text(row.prompt_start, row.prompt_length),
        "response": _text(row.response_start, row.response_length),
        "marks": marks_of(interaction),
        "cost": formats.money(interaction.cost),
        "latency": formats.milliseconds(interaction.latency_ms),
        "tokens": formats.count(interaction.total_tokens),
    }


def _text(start: str, length: int | None) -> Text:
    """`length`: of the text whose start this is; None when this is the whole of it, as it is of an encrypted one."""
    return formats.text(start, limit=TURN_LIMIT) if length is None else Text(start, max(0, length - TURN_LIMIT))
