"""What a principal may do: scopes of its key, models of its plan. Decided from memory alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from accounts.errors import InsufficientScope, MissingAPIKey, ModelNotAllowed
from accounts.models import model_is_allowed
from accounts.principals import Principal
from llmchat.lib import logs

if TYPE_CHECKING:
    # DRF imports this module, named in its settings, while it makes its own views.
    from rest_framework.views import APIView


class HasScope(BasePermission):
    """Lets a request in whose key has the view's `required_scope`: a scope, None for any key, or a mapping from the
    view set's actions to either. A view that says nothing is a mistake of ours, not open."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        principal = request.auth
        if not isinstance(principal, Principal):
            raise MissingAPIKey
        logs.bind(organization=principal.organization_name)
        required = view.required_scope  # type: ignore[attr-defined]
        if isinstance(required, Mapping):
            # No action, or DRF's own for OPTIONS: a method that the view set does not have, answered with 405 later.
            action = getattr(view, "action", None)
            required = required[action] if action and action != "metadata" else None
        if required is not None and required not in principal.scopes:
            raise InsufficientScope(required, has=sorted(principal.scopes))
        return True


def principal_of(request: Request) -> Principal:
    """Who asks, in a view that `HasScope` guards."""
    principal: object = request.auth
    if not isinstance(principal, Principal):
        raise MissingAPIKey
    return principal


def is_model_allowed(principal: Principal, *names: str) -> bool:
    """Whether the principal's plan admits a model that goes by any of `names`."""
    return model_is_allowed(principal.plan.allowed_models, *names)


def check_model_allowed(principal: Principal, *names: str) -> None:
    """Raises `ModelNotAllowed`, naming the first of `names` and what the plan includes."""
    if not is_model_allowed(principal, *names):
        raise ModelNotAllowed(names[0], plan=principal.plan.name, allowed=principal.plan.allowed_models)
