"""The tables of chat: the record itself, what it is kept with, and what people ask of it."""

from chat.models.asked import Export, Repricing, SavedFilter
from chat.models.record import Attempt, Conversation, Interaction, Status
from chat.models.upkeep import Change, IdempotencyClaim, QuarantinedExchange, Removal, SearchState

__all__ = [
    "Attempt",
    "Change",
    "Conversation",
    "Export",
    "IdempotencyClaim",
    "Interaction",
    "QuarantinedExchange",
    "Removal",
    "Repricing",
    "SavedFilter",
    "SearchState",
    "Status",
]
