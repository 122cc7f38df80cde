"""Exchanges that the database refused: why, what was to be stored, and a way to try again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import display
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from accounts.scoping import SuperusersOnly
from chat import quarantine
from chat.admin.listing import QuietChangeList
from chat.models import QuarantinedExchange
from llmchat.lib.wording import counted


@admin.register(QuarantinedExchange)
class QuarantinedExchangeAdmin(SuperusersOnly, ModelAdmin):
    """For the operator alone: the rows of all organizations meet here."""

    list_display = ("id", "created_at", "why")
    readonly_fields = fields = ("id", "created_at", "reason", "facts")
    show_full_result_count = False
    actions = ("try_again",)
    list_title = "Quarantine"
    empty_title = "Nothing is in quarantine"
    empty_text = (
        "Every exchange that has ended is stored. What the database refuses would be kept here, with the reason."
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QuietChangeList]:
        return QuietChangeList

    @display(description="reason")
    def why(self, row: QuarantinedExchange) -> str:
        return str(row.reason)[:120]

    @admin.action(description="Try to store the selected exchanges again")
    def try_again(self, request: HttpRequest, queryset: QuerySet[QuarantinedExchange]) -> None:
        stored = 0
        for kept in queryset:
            try:
                quarantine.release(kept)
            except (DatabaseError, ValueError, TypeError, KeyError) as error:
                self.message_user(request, f"{kept.id} is still refused: {error}", messages.ERROR)
            else:
                stored += 1
        if stored:
            self.message_user(request, f"On record now: {counted(stored, 'exchange')}.", messages.SUCCESS)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
