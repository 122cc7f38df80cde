"""Conversations in the admin: a list, and a page that reads as a thread, so many turns at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from django.contrib import admin
from django.db.models import Avg, Count, Func, IntegerField, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.scoping import OrganizationScoped
from chat import encryption
from chat.admin import filters, formats
from chat.admin.beside import comparison_of
from chat.admin.formats import Text
from chat.admin.interaction_page import marks_of, page_of
from chat.admin.listing import COUNT_LIMIT, ReadOnly, RecordChangeList
from chat.fields import length_of, start_of
from chat.models import Conversation, Interaction, Status
from chat.walking import FIRST

#: Interactions of each conversation that the list counts; of more it says that there are more.
COUNTED = 1_000
#: Interactions on one page of a thread.
PAGE_LENGTH = 50
#: Characters of one prompt or response in a thread; the interaction's own page has more.
TURN_LIMIT = 4_000
#: Characters of an error's message.
_MESSAGE_LIMIT: Final = 300


class ConversationChangeList(RecordChangeList):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super().get_queryset(request, exclude_parameters)
        # A subquery by the index for each row shown; a join would group the whole table first.
        those = Interaction.objects.filter(conversation=OuterRef("pk")).order_by().values("pk")
        return rows.annotate(interaction_count=_HowMany(Subquery(those[: COUNTED + 1])))


class _HowMany(Func):
    """How many rows a subquery has. The ORM's own count knows no LIMIT within a subquery."""

    template = "(SELECT COUNT(*) FROM %(expressions)s AS counted)"
    output_field = IntegerField()


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
        count: int = row.interaction_count  # type: ignore[attr-defined]
        return formats.count(count) if count <= COUNTED else f"{formats.count(COUNTED)}+"

    @display(description="Begun (UTC)")
    def begun(self, row: Conversation) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Last activity (UTC)")
    def last_activity(self, row: Conversation) -> str:
        return f"{row.updated_at:%Y-%m-%d %H:%M:%S}"

    def page_context(self, request: HttpRequest, row: Conversation) -> dict[str, Any]:
        return _page(row, *(_identifier(request.GET.get(name)) for name in ("before", "after")))


def _identifier(raw: str | None) -> UUID | None:
    try:
        return UUID(raw) if raw else None
    except ValueError:
        return None


def _page(conversation: Conversation, before: UUID | None, after: UUID | None) -> dict[str, Any]:
    """The newest interactions of the thread, or those next to the one named, oldest first."""
    rows = (
        conversation.interactions.defer(*Interaction.TEXTS)
        .annotate(
            prompt_start=start_of("prompt", TURN_LIMIT),
            prompt_length=length_of("prompt"),
            response_start=start_of("response", TURN_LIMIT),
            response_length=length_of("response"),
            message_start=start_of("error_message", _MESSAGE_LIMIT),
        )
        .order_by("id" if after else "-id")
    )
    if after is not None:
        rows = rows.filter(id__gt=after)
    elif before is not None:
        rows = rows.filter(id__lt=before)
    found = list(rows[: PAGE_LENGTH + 1])
    has_more, shown = len(found) > PAGE_LENGTH, found[:PAGE_LENGTH]
    if after is None:
        shown.reverse()
    edges = (shown[0].pk, shown[-1].pk) if shown else (None, None)
    is_begun, is_ended = (after == FIRST, not has_more) if after else (not has_more, before is None)
    return {
        "title": "Conversation",
        "row": conversation,
        "organization_url": page_of(conversation.organization),
        "list_url": f"{reverse('admin:chat_interaction_changelist')}?conversation={conversation.pk}",
        "figures": _figures(conversation),
        "thread": _entries(shown),
        "earlier": None if is_begun else edges[0],
        "later": None if is_ended else edges[1],
        "first": FIRST,
    }


def _figures(conversation: Conversation) -> list[dict[str, str]]:
    """What the newest interactions come to; of all of them, unless there are very many."""
    newest = conversation.interactions.order_by("-id")[:COUNT_LIMIT]
    sums = newest.aggregate(
        count=Count("pk"),
        spent=Sum("cost"),
        used=Count("pk", filter=Q(cost=None, input_tokens__isnull=False)),
        failed=Count("pk", filter=~Q(status=Status.SUCCEEDED)),
        input=Sum("input_tokens"),
        output=Sum("output_tokens"),
        latency=Avg("latency_ms"),
        slowest=Max("latency_ms"),
    )
    cost = formats.money(sums["spent"]) if sums["count"] else formats.NOTHING
    unpriced = f"{sums['used']:,} at an unknown price" if sums["used"] else ""
    return [
        {
            "label": "Interactions",
            "value": formats.count(sums["count"]),
            "remark": "the newest; there may be more" if sums["count"] == COUNT_LIMIT else "",
        },
        {"label": "Without a whole answer", "value": formats.count(sums["failed"]), "remark": ""},
        {"label": "Cost", "value": cost, "remark": unpriced},
        {
            "label": "Tokens",
            "value": formats.count((sums["input"] or 0) + (sums["output"] or 0)),
            "remark": f"{sums['input'] or 0:,} in, {sums['output'] or 0:,} out",
        },
        {
            "label": "Latency, on average",
            "value": formats.milliseconds(sums["latency"]),
            "remark": f"at most {formats.milliseconds(sums['slowest'])}",
        },
    ]


def _entries(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Each with the way to a comparison with the one before it."""
    return [_entry(row, previous) for previous, row in pairwise([None, *rows])]


def _entry(row: Any, previous: Any) -> dict[str, Any]:
    interaction: Interaction = row
    return {
        "row": interaction,
        "url": page_of(interaction),
        "compare": comparison_of(previous.pk, interaction.pk) if previous else None,
        "prompt": _text(row.prompt_start, row.prompt_length),
        "response": _text(row.response_start, row.response_length),
        "message": row.message_start,
        "marks": marks_of(interaction),
        "cost": formats.money(interaction.cost),
        "latency": formats.milliseconds(interaction.latency_ms),
        "first_token": formats.milliseconds(interaction.time_to_first_token_ms),
        "tokens": formats.count(interaction.total_tokens),
    }


def _text(start: str, length: int | None) -> Text:
    """`length`: of the text whose start this is; None when this is the whole of it, as it is of an encrypted one."""
    return formats.text(start, limit=TURN_LIMIT) if length is None else Text(start, max(0, length - TURN_LIMIT))
