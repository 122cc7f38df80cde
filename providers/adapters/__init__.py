"""Adapters: one class per wire dialect, each turning a `ChatRequest` into a stream of events.

Adapters know vendors; they know nothing of Django models, of callers, of limits or of the record.
"""
