"""What went from the record: entries of retention and of erasure, for whoever may see the organization's record."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts.scoping import OrganizationScoped
from chat.admin.listing import QuietChangeList, ReadOnly
from chat.models import Removal


@admin.register(Removal)
class RemovalAdmin(ReadOnly, OrganizationScoped, ModelAdmin):
    """A partition's entry belongs to no organization: only the operator sees it."""

    list_display = ("created_at", "kind", "organization", "user_id", "interactions", "conversations", "before", "by")
    list_select_related = ("organization",)
    fields = (
        *("created_at", "kind", "organization", "user_id", "before", "by"),
        *("interactions", "conversations", "quarantined", "partition"),
    )
    empty_title = "Nothing has been removed"
    empty_text = "What plans keep no longer, and what is erased at somebody's wish, leaves an entry here."

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QuietChangeList]:
        return QuietChangeList
