"""A small real model inside this process, so that everything works without a key, a server or a network."""

from providers.adapters.local.adapter import MODEL, LocalAdapter, warm_up
from providers.adapters.local.engine import CONTEXT_LENGTH

__all__ = ["CONTEXT_LENGTH", "MODEL", "LocalAdapter", "warm_up"]
