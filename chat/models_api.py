"""`/v1/models`: what can be asked, and how it has been lately. OpenAI's shapes with our extras."""

from __future__ import annotations
