"""`/v1/models`: what can be asked, and how it has been lately. OpenAI's shapes with our extras."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import is_model_allowed, principal_of
from accounts.principals import Principal
from chat import payloads, schema
from chat.errors import as_api_error
from llmchat.lib.envelope import APIError
from llmchat.lib.views import ViewSet
from providers import catalogue, health
from providers.catalogue import ResolvedModel, Snapshot
from providers.errors import ProviderError
from providers.models import ModelHealth


class ModelViewSet(ViewSet):
    required_scope = {"list": None, "retrieve": None, "status": "read"}

    @schema.LIST_MODELS
    def list(self, request: Request) -> Response:
        snapshot = catalogue.current()
        models = [snapshot.resolve(entry.name) for entry in snapshot.listing()]
        principal = principal_of(request)
        allowed = [model for model in models if is_model_allowed(principal, *model.names)]
        return Response({"object": "list", "data": [_shown(snapshot, model) for model in allowed]})

    @schema.RETRIEVE_MODEL
    def retrieve(self, request: Request, model: str) -> Response:
        snapshot, found = _find(principal_of(request), model)
        return Response(_shown(snapshot, found))

    @schema.MODEL_STATUS
    def status(self, request: Request, model: str) -> Response:
        _, found = _find(principal_of(request), model)
        lately = health.health_of(found.provider, found.upstream_id)
        return Response(
            {
                "model": found.name,
                "provider": found.provider,
                "status": lately.status if lately else ModelHealth.Status.UNKNOWN,
                "averageResponseMs": lately.average_response_ms if lately else None,
                "errorRate": lately.error_rate if lately else None,
                "attempts": lately.attempts if lately else 0,
                "lastCheck": payloads.timestamp(lately.checked_at) if lately else None,
            }
        )


def _find(principal: Principal, name: str) -> tuple[Snapshot, ResolvedModel]:
    """The model, if the plan includes it: to others it does not exist."""
    snapshot = catalogue.current()
    try:
        found = snapshot.resolve(name)
    except ProviderError as error:
        raise as_api_error(error) from error
    if not is_model_allowed(principal, *found.names):
        raise APIError(
            f"Your plan {principal.plan.name} has no model {found.name}.", status=404, code="model_not_found"
        )
    return snapshot, found


def _shown(snapshot: Snapshot, model: ResolvedModel) -> dict[str, Any]:
    entry = snapshot.entries.get(model.name)
    price = snapshot.price_for(model.provider, model.upstream_id, timezone.now())
    return {
        "id": model.name,
        "object": "model",
        "created": int(entry.created_at.timestamp()) if entry else 0,
        "owned_by": model.provider,
        "context_window": model.context_window,
        "max_output_tokens": model.max_output_tokens,
        "pricing": price
        and {
            "input_per_million": f"{price.input_per_million:f}",
            "output_per_million": f"{price.output_per_million:f}",
        },
    }
