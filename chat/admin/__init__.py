"""The record in the admin: interactions, conversations and request ids to read, never to change."""

from __future__ import annotations

from chat.admin.audit import EntryAdmin
from chat.admin.claims import IdempotencyClaimAdmin
from chat.admin.conversations import ConversationAdmin
from chat.admin.exports import ExportAdmin
from chat.admin.interactions import InteractionAdmin
from chat.admin.quarantine import QuarantinedExchangeAdmin
from chat.admin.removals import RemovalAdmin
from chat.admin.saved import SavedFilterAdmin

__all__ = [
    "ConversationAdmin",
    "EntryAdmin",
    "ExportAdmin",
    "IdempotencyClaimAdmin",
    "InteractionAdmin",
    "QuarantinedExchangeAdmin",
    "RemovalAdmin",
    "SavedFilterAdmin",
]
