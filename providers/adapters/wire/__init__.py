"""Adapters that speak to the vendors themselves, over one pool of connections for all providers of an event loop."""
