"""The record in the admin: interactions, conversations and request ids to read, never to change."""

from __future__ import annotations

from chat.admin.claims import IdempotencyClaimAdmin
from chat.admin.conversations import ConversationAdmin
from chat.admin.interactions import InteractionAdmin
from chat.admin.quarantine import QuarantinedExchangeAdmin
from chat.admin.removals import RemovalAdmin

__all__ = [
    "ConversationAdmin",
    "IdempotencyClaimAdmin",
    "InteractionAdmin",
    "QuarantinedExchangeAdmin",
    "RemovalAdmin",
]
