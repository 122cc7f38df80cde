"""The record in the admin: interactions and conversations to read, never to change."""

from __future__ import annotations

from chat.admin.conversations import ConversationAdmin
from chat.admin.interactions import InteractionAdmin
from chat.admin.quarantine import QuarantinedExchangeAdmin

__all__ = ["ConversationAdmin", "InteractionAdmin", "QuarantinedExchangeAdmin"]
