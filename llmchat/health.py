"""`/v1/health*`: whether the process lives, whether it can serve, and, for staff, how what it depends on does.

Cheap enough to be asked all the time, and never hanging: see `llmchat.lib.probes`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from functools import cache
from typing import Any

from django.conf import settings
from django.contrib.auth import aget_user
from django.core.cache import cache as django_cache
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.authentication import APIKeyAuthentication
from chat import durability
from chat.errors import RecordUnavailable
from llmchat.lib import lifecycle
from llmchat.lib.async_views import AsyncViewSet
from llmchat.lib.envelope import APIError, DatabaseUnavailable
from llmchat.lib.probes import Probe
from llmchat.lib.rendering import json_response
from llmchat.lib.schema import public_errors
from providers import registry
from providers.models import ModelHealth

PATIENCE = 2.0
KEPT = 1.0
#: Refreshes of the models' health that may be missed before background work counts as stopped.
_MISSED = 3

Findings = dict[str, Any]


def _missing_migrations() -> int:
    """Asks the database something, and how many migrations it lacks; 0 is final, so it is asked once."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if _Migrations.complete:
            return 0
        missing = len(_Migrations.known() - set(MigrationRecorder(connection).applied_migrations()))
        _Migrations.complete = not missing
        return missing
    finally:
        connection.close()


class _Migrations:
    complete = False

    @staticmethod
    @cache
    def known() -> frozenset[tuple[str, str]]:
        return frozenset(MigrationLoader(None).graph.nodes)


def _cache_answers() -> None:
    django_cache.get("health")


def _background_and_providers() -> Findings:
    try:
        rows = list(ModelHealth.objects.values_list("provider", "upstream_id", "status", "checked_at"))
    finally:
        connection.close()
    refreshed: dt.datetime | None = max((row[3] for row in rows), default=None)
    stale = refreshed is not None and timezone.now() - refreshed > dt.timedelta(
        seconds=_MISSED * settings.HEALTH_REFRESH_SECONDS
    )
    return {
        "background": {
            "status": "unknown" if refreshed is None else "stopped" if stale else "ok",
            "lastRefresh": refreshed,
        },
        "providers": {
            slug: {
                "configured": config.configured,
                "models": {upstream_id: status for provider, upstream_id, status, _ in rows if provider == slug},
            }
            for slug, config in registry.configs().items()
        },
    }


_database = Probe(_missing_migrations, kept=KEPT, patience=PATIENCE)
_cache = Probe(_cache_answers, kept=KEPT, patience=PATIENCE)
_lately = Probe(_background_and_providers, kept=KEPT, patience=PATIENCE)


async def _database_finding() -> Findings:
    try:
        missing = await _database.ask()
    except (DatabaseError, TimeoutError):
        return {"status": "unreachable"}
    return {"status": "migrations_missing" if missing else "ok"}


async def _cache_finding() -> Findings:
    try:
        await _cache.ask()
    except Exception:  # every cache has exceptions of its own
        return {"status": "unreachable"}
    return {"status": "ok"}


async def _lately_finding() -> Findings:
    try:
        return await _lately.ask()
    except (DatabaseError, TimeoutError):
        return {"background": {"status": "unknown", "lastRefresh": None}, "providers": {}}


def _record_finding() -> Findings:
    """That of the process that was asked; the metrics tell the sum."""
    backlog, is_behind = durability.waiting()
    return {"status": "behind" if is_behind else "ok", "backlog": backlog}


async def _dependencies() -> Findings:
    database, cache_, lately = await asyncio.gather(_database_finding(), _cache_finding(), _lately_finding())
    return {"database": database, "record": _record_finding(), "cache": cache_, **lately}


async def _may_see_details(request: Request) -> bool:
    """Staff who are logged in to the admin, and keys with the scope `metrics`."""
    try:
        async with asyncio.timeout(PATIENCE):
            if settings.SESSION_COOKIE_NAME in request.COOKIES and await _is_staff(request._request):  # noqa: SLF001
                return True
            found = await APIKeyAuthentication().aauthenticate(request)
    except (APIError, DatabaseError, TimeoutError):
        # A wrong key is nobody's key: health tells everyone else as much.
        return False
    return found is not None and "metrics" in found[1].scopes


async def _is_staff(request: HttpRequest) -> bool:
    user = await aget_user(request)
    return bool(user.is_active and user.is_staff)


#: How a service does that may be less than well.
HEALTH_STATUS = ["ok", "degraded"]


class LiveSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["ok"])
    version = serializers.CharField()


class ReadySerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(HEALTH_STATUS)
    version = serializers.CharField()


@extend_schema_serializer(many=False)
class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(HEALTH_STATUS)
    version = serializers.CharField()
    dependencies = serializers.DictField(required=False, help_text="Only for staff and keys with the scope `metrics`.")


_EXAMPLES = [
    OpenApiExample("For everyone", value={"status": "ok", "version": settings.VERSION}),
    OpenApiExample(
        "For staff",
        value={
            "status": "degraded",
            "version": settings.VERSION,
            "dependencies": {
                "database": {"status": "ok"},
                "record": {"status": "ok", "backlog": 0},
                "cache": {"status": "unreachable"},
                "background": {"status": "ok", "lastRefresh": "2024-06-15T14:32:00Z"},
                "providers": {"local": {"configured": True, "models": {"smollm2-135m": "online"}}},
            },
        },
    ),
]


class HealthViewSet(AsyncViewSet):
    """No key is needed, and none is refused."""

    authentication_classes = ()
    permission_classes = ()

    @extend_schema(
        operation_id="health",
        summary="How the service does",
        tags=["Operation"],
        auth=[],
        responses={200: OpenApiResponse(HealthSerializer, examples=_EXAMPLES), **public_errors()},
    )
    async def list(self, request: Request) -> Response:
        dependencies = await _dependencies()
        asked = ("database", "record", "cache", "background")
        healthy = all(dependencies[name]["status"] in {"ok", "unknown"} for name in asked)
        body: Findings = {"status": "ok" if healthy else "degraded", "version": settings.VERSION}
        if await _may_see_details(request):
            body["dependencies"] = dependencies
        return Response(body)

    @extend_schema(
        operation_id="health_live",
        summary="Whether the process lives",
        description="Asks nobody: restart the process when this fails, and only then.",
        tags=["Operation"],
        auth=[],
        responses={200: LiveSerializer, **public_errors()},
    )
    async def live(self, request: Request) -> HttpResponse:
        return json_response({"status": "ok", "version": settings.VERSION})

    @extend_schema(
        operation_id="health_ready",
        summary="Whether requests may be sent here",
        description="`degraded` while the database is away: chat goes on by the journal, other paths answer 503.",
        tags=["Operation"],
        auth=[],
        responses={200: ReadySerializer, **public_errors(503)},
    )
    async def ready(self, request: Request) -> HttpResponse:
        if lifecycle.is_stopping():
            raise APIError("This process is shutting down.", status=503, code="shutting_down", retry_after=5)
        if not durability.has_room():
            raise RecordUnavailable
        match (await _database_finding())["status"]:
            case "unreachable":
                # All processes would be unready at once, and answers that need no database would go unasked.
                if not _Migrations.complete:
                    raise DatabaseUnavailable
                return json_response({"status": "degraded", "version": settings.VERSION})
            case "migrations_missing":
                raise APIError(
                    "The database lacks migrations. Run `python manage.py migrate`.",
                    status=503,
                    code="migrations_missing",
                    retry_after=5,
                )
        return json_response({"status": "ok", "version": settings.VERSION})
