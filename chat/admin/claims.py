"""Request ids in the admin: which of an organization's ids stands for which interaction, and for how long."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.scoping import OrganizationScoped
from chat.admin import filters
from chat.admin.listing import ReadOnly, RecordChangeList
from chat.models import IdempotencyClaim, Interaction, Status

#: What a claim is, as (words, status whose colour it has), by the status of its interaction.
_STATES = {
    None: ("Under way", Status.INTERRUPTED),
    Status.SUCCEEDED: ("Answered", Status.SUCCEEDED),
    Status.FAILED: ("Failed: free", Status.FAILED),
    Status.CANCELLED: ("Cancelled: free", Status.CANCELLED),
    Status.INTERRUPTED: ("Interrupted: free", Status.INTERRUPTED),
}


class ClaimChangeList(RecordChangeList):
    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[IdempotencyClaim]:
        rows: QuerySet[IdempotencyClaim] = super().get_queryset(request, exclude_parameters)
        # A look by the primary key for each row shown.
        found = Interaction.objects.filter(id=OuterRef("interaction_id")).order_by().values("status")
        return rows.annotate(interaction_status=Subquery(found))


@admin.register(IdempotencyClaim)
class IdempotencyClaimAdmin(ReadOnly, OrganizationScoped, ModelAdmin):
    """A list without pages of its own: all there is to say of a claim stands in its row."""

    list_display = ("key", "organization", "state", "interaction", "created", "expires")
    list_display_links = None
    list_select_related = ("organization",)
    list_filter_submit = True
    list_filter = (filters.BY_ORGANIZATION,)
    search_fields = ("=key",)
    search_help_text = "The whole request id, or an interaction's id"
    empty_title = "No request ids yet"
    empty_text = (
        "A call with an Idempotency-Key or a requestId is answered once: its id stands here for as long as it can be "
        "asked for again."
    )

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        return filters.worth_offering(super().get_list_filter(request), request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[RecordChangeList]:
        return ClaimChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IdempotencyClaim], search_term: str
    ) -> tuple[QuerySet[IdempotencyClaim], bool]:
        found: tuple[QuerySet[IdempotencyClaim], bool] = super().get_search_results(request, queryset, search_term)
        try:
            by_interaction = queryset.filter(interaction_id=UUID(search_term.strip()))
        except ValueError:
            return found
        return found[0] | by_interaction, False

    @display(description="State")
    def state(self, row: IdempotencyClaim) -> SafeString:
        if timezone.now() >= self._end(row):
            return format_html('<span class="rec-chip">{}</span>', "Expired")
        words, colour = _STATES[row.interaction_status]  # type: ignore[attr-defined]
        return format_html('<span class="rec-badge rec-{}">{}</span>', colour, words)

    @display(description="Interaction")
    def interaction(self, row: IdempotencyClaim) -> SafeString:
        if row.interaction_status is None:  # type: ignore[attr-defined]
            return format_html("{}", row.interaction_id)
        page = reverse("admin:chat_interaction_change", args=[row.interaction_id])
        return format_html('<a class="rec-link" href="{}">{}</a>', page, row.interaction_id)

    @display(description="Claimed (UTC)")
    def created(self, row: IdempotencyClaim) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M:%S}"

    @display(description="Stands until (UTC)")
    def expires(self, row: IdempotencyClaim) -> str:
        return f"{self._end(row):%Y-%m-%d %H:%M:%S}"

    def _end(self, row: IdempotencyClaim) -> dt.datetime:
        return row.created_at + dt.timedelta(hours=settings.IDEMPOTENCY_HOURS)
