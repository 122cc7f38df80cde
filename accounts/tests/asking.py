"""Two views with nothing in them but who is asking, one on the event loop and one beside it, and how to call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson
from asgiref.sync import async_to_sync
from django.http import HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from llmchat.lib.async_views import AsyncViewSet


class SyncView(ViewSet):
    required_scope: Any = None

    def show(self, request: Request) -> Response:
        return Response(who(request))


class AsyncView(AsyncViewSet):
    required_scope: Any = None

    async def show(self, request: Request) -> Response:
        return Response(who(request))


def who(request: Request) -> dict[str, Any]:
    principal: Any = request.auth
    return {
        "organization": principal.organization_name,
        "key": principal.key_name,
        "plan": principal.plan.slug,
        "user": str(request.user),
        "is_authenticated": request.user.is_authenticated,
        "is_staff": request.user.is_staff,
    }


class Ask(Protocol):
    def __call__(self, address: str = "127.0.0.1", *, scope: Any = None, **headers: str) -> HttpResponseBase: ...


def ask_sync(address: str = "127.0.0.1", *, scope: Any = None, **headers: str) -> HttpResponseBase:
    """One request; headers as keyword arguments, with underscores for hyphens."""
    request = RequestFactory().get("/", headers=_headers(headers))
    request.META["REMOTE_ADDR"] = address
    view: Callable[..., HttpResponseBase] = SyncView.as_view({"get": "show"}, required_scope=scope)
    return _rendered(view(request))


def ask_async(address: str = "127.0.0.1", *, scope: Any = None, **headers: str) -> HttpResponseBase:
    request = AsyncRequestFactory().get("/", headers=_headers(headers))
    request.META["REMOTE_ADDR"] = address
    return _rendered(async_to_sync(AsyncView.as_view({"get": "show"}, required_scope=scope))(request))


def _headers(keywords: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in keywords.items()}


def _rendered(response: Any) -> HttpResponseBase:
    rendered: HttpResponseBase = response.render() if hasattr(response, "render") else response
    return rendered


def body(response: Any) -> Any:
    return orjson.loads(response.content)


def code(response: Any) -> tuple[int, str]:
    """An error's status and code."""
    return response.status_code, body(response)["error"]["code"]
