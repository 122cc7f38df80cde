"""`GET /metrics`: what Prometheus scrapes, for addresses that are allowed to and keys with the scope for it."""

from __future__ import annotations

import ipaddress
from functools import cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

import chat.metrics
from accounts.addresses import client_address
from accounts.permissions import HasScope
from llmchat.lib import metrics
from llmchat.lib.async_views import AsyncViewSet
from llmchat.lib.rendering import OrjsonRenderer
from llmchat.lib.schema import errors
from llmchat.lib.threads import in_thread

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@cache
def allowed_networks() -> list[IPNetwork]:
    """METRICS_ALLOWED_ADDRESSES. Raises ValueError for what is no address or network (the system checks tell first)."""
    return [ipaddress.ip_network(text, strict=False) for text in settings.METRICS_ALLOWED_ADDRESSES]


def is_allowed(request: HttpRequest) -> bool:
    """Whether the request comes from an address that needs no key."""
    address = client_address(request)
    return address is not None and any(address in network for network in allowed_networks())


class AllowedAddressOrScope(HasScope):
    def has_permission(self, request: Request, view: Any) -> bool:
        return is_allowed(request._request) or super().has_permission(request, view)  # noqa: SLF001


class TextRenderer(BaseRenderer):
    """Named for the schema: the view answers by itself."""

    media_type = "text/plain"
    format = "txt"


class AsTold(BaseContentNegotiation):
    """Prometheus asks for its own formats by preference; we have one. Errors are JSON, as everywhere."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return OrjsonRenderer(), OrjsonRenderer.media_type


class MetricsViewSet(AsyncViewSet):
    required_scope = "metrics"
    permission_classes = (AllowedAddressOrScope,)
    renderer_classes = (TextRenderer,)
    content_negotiation_class = AsTold

    async def _authenticate(self, request: Request) -> None:
        # Neither the database nor a wrong key may keep an operator's own scraper out.
        if not is_allowed(request._request):  # noqa: SLF001
            await super()._authenticate(request)

    @extend_schema(
        operation_id="metrics",
        summary="Metrics for Prometheus",
        description="Needs no key from METRICS_ALLOWED_ADDRESSES, elsewhere one with the scope `metrics`.",
        tags=["Operation"],
        auth=[{}, {"bearer": []}, {"apiKey": []}],  # type: ignore[list-item]
        responses={
            (200, "text/plain"): OpenApiResponse(
                OpenApiTypes.STR,
                description="Prometheus' text format.",
                examples=[
                    OpenApiExample(
                        "One series",
                        value='llm_tokens_total{kind="output",model="gpt-4o",provider="openai"} 4711.0',
                    )
                ],
            ),
            **errors(),
        },
    )
    async def list(self, request: Request) -> HttpResponseBase:
        body, content_type = await in_thread(_told)
        return HttpResponse(body, content_type=content_type)


def _told() -> tuple[bytes, str]:
    # Other processes of ours do so about every second.
    chat.metrics.flush()
    return metrics.exposition()


@receiver(setting_changed)
def _read_again(*, setting: str, **_: object) -> None:
    if setting == "METRICS_ALLOWED_ADDRESSES":
        allowed_networks.cache_clear()
