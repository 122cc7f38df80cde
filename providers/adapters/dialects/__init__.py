"""The vendors' JSON, both ways: what is sent for a `ChatRequest`, and which events an answer's chunks are.

Dialects know no transport: whoever brings the bytes (a vendor's library, our own connection) shares them.
"""
