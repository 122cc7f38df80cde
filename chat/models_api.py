"""`/v1/models`: what can be asked, and how it has been lately. OpenAI's shapes with our extras."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts.permissions import is_model_allowed
from chat import payloads, schema
from chat.errors import as_api_error
from providers import catalogue
from providers.catalogue import ResolvedModel, Snapshot
from providers.errors import ProviderError
from providers.models import ModelHealth
