"""The record in the admin: interactions and conversations to read, never to change."""

from __future__ import annotations

from chat.admin.conversations import ConversationAdmin
from chat.admin.interactions import InteractionAdmin

__all__ = ["ConversationAdmin", "InteractionAdmin"]
