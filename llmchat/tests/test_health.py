"""`/v1/health*`: what everyone, staff and load balancers are told, and that nobody waits for what hangs."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.cache import cache
from django.db import OperationalError
from django.test import AsyncClient
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.models import APIKey
from accounts.tests.factories import APIKeyFactory, UserFactory
from accounts.tests.fixtures import Person
from chat import durability
from llmchat import health
from llmchat.lib import lifecycle
from llmchat.lib.probes import Probe
from providers.models import ModelHealth

pytestmark = pytest.mark.django_db(transaction=True)
WELL = {"status": "ok", "version": django_settings.VERSION}


@pytest.fixture(autouse=True)
def unasked_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's probes have found is not the next one's answer."""
    for name, question in (
        ("_database", health._missing_migrations),
        ("_cache", health._cache_answers),
        ("_lately", health._background_and_providers),
    ):
        monkeypatch.setattr(health, name, Probe(question, kept=0.0, patience=health.PATIENCE))


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`hanging("_database")` has that probe hang until the test ends."""
    release = threading.Event()

    def hang(name: str) -> None:
        monkeypatch.setattr(health, name, Probe(release.wait, kept=0.0, patience=0.05))

    yield hang
    release.set()


def failing(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(health, name, Probe(fail, kept=0.0, patience=1.0))


async def staff(client: AsyncClient, **values: Any) -> None:
    await client.aforce_login(await _new_user(is_staff=True, **values))


async def _new_user(**values: Any) -> Any:
    from asgiref.sync import sync_to_async

    return await sync_to_async(UserFactory.create)(**values)


@pytest.mark.parametrize("path", ["", "/live", "/ready"])
async def test_everyone_is_told_that_it_is_well(path: str, async_client: AsyncClient) -> None:
    response = await async_client.get(f"/v1/health{path}", headers={"Authorization": "Bearer wrong"})
    assert (response.status_code, response.json()) == (200, WELL)


async def test_live_asks_nobody(async_client: AsyncClient, hanging: Callable[[str], None]) -> None:
    for name in ("_database", "_cache", "_lately"):
        hanging(name)
    assert (await async_client.get("/v1/health/live")).status_code == 200


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_process_that_never_had_a_database_is_not_ready(
    how: str, async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch, hanging: Callable[[str], None]
) -> None:
    monkeypatch.setattr(health._Migrations, "complete", False)
    if how == "hangs":
        hanging("_database")
    else:
        failing(monkeypatch, "_database", OperationalError("gone"))
    ready = await async_client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "database_unavailable")
    assert ready["Retry-After"] == "5"
    assert (await async_client.get("/v1/health")).json() == {**WELL, "status": "degraded"}


async def test_process_that_lost_its_database_stays_ready_for_chat(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await async_client.get("/v1/health/ready")).json() == WELL
    failing(monkeypatch, "_database", OperationalError("gone"))
    ready = await async_client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()) == (200, {**WELL, "status": "degraded"})


@pytest.fixture
def full_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durability.committer().journal, "max_bytes", 0)


@pytest.mark.usefixtures("full_journal")
async def test_process_without_room_for_the_record_is_not_ready(async_client: AsyncClient) -> None:
    ready = await async_client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "record_unavailable")


async def test_missing_migration_is_not_ready(async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health._Migrations, "complete", False)
    monkeypatch.setattr(health._Migrations, "known", lambda: frozenset({("chat", "9999_not_applied")}))
    ready = await async_client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "migrations_missing")


async def test_stopping_process_is_not_ready_but_lives(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_stopping", True)
    ready = await async_client.get("/v1/health/ready")
    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "shutting_down")
    assert (await async_client.get("/v1/health/live")).status_code == 200


async def test_staff_sees_dependencies(async_client: AsyncClient) -> None:
    await staff(async_client)
    now = timezone.now()
    await ModelHealth.objects.acreate(provider="simulated", upstream_id="echo", status="online", checked_at=now)
    found = (await async_client.get("/v1/health")).json()
    dependencies = found.pop("dependencies")
    assert found == WELL
    providers = dependencies.pop("providers")
    refreshed = dependencies["background"].pop("lastRefresh")
    assert dependencies == {
        "database": {"status": "ok"},
        "record": {"status": "ok", "backlog": 0},
        "cache": {"status": "ok"},
        "background": {"status": "ok"},
    }
    assert dt.datetime.fromisoformat(refreshed) == now
    assert providers["simulated"] == {"configured": True, "models": {"echo": "online"}}
    assert providers["openai"] == {"configured": False, "models": {}}


async def test_key_with_the_scope_sees_dependencies_and_another_does_not(
    async_client: AsyncClient, member: Person
) -> None:
    from asgiref.sync import sync_to_async

    key = await sync_to_async(APIKeyFactory.create)(organization=member.organization, scopes=[APIKey.Scope.METRICS])
    seen = [
        "dependencies" in (await async_client.get("/v1/health", headers={"X-API-Key": raw})).json()
        for raw in (key.raw, member.raw)
    ]
    assert seen == [True, False]


@pytest.mark.parametrize("values", [{"is_staff": False}, {"is_staff": True, "is_active": False}])
async def test_others_with_a_session_see_no_dependencies(values: dict[str, bool], async_client: AsyncClient) -> None:
    await async_client.aforce_login(await _new_user(**values))
    assert (await async_client.get("/v1/health")).json() == WELL


async def test_background_work_that_stopped_is_seen(async_client: AsyncClient, settings: Settings) -> None:
    settings.HEALTH_REFRESH_SECONDS = 60
    await staff(async_client)
    long_ago = timezone.now() - dt.timedelta(seconds=181)
    await ModelHealth.objects.acreate(provider="simulated", upstream_id="echo", status="online", checked_at=long_ago)
    found = (await async_client.get("/v1/health")).json()
    assert (found["status"], found["dependencies"]["background"]["status"]) == ("degraded", "stopped")


async def test_cache_that_cannot_be_reached_is_seen(async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "_cache", ConnectionError("gone"))
    await staff(async_client)
    found = (await async_client.get("/v1/health")).json()
    assert (found["status"], found["dependencies"]["cache"]) == ("degraded", {"status": "unreachable"})
    assert cache.get("health") is None


async def test_record_that_waits_for_the_database_is_seen(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "waiting", lambda: (7, True))
    await staff(async_client)
    found = (await async_client.get("/v1/health")).json()
    assert (found["status"], found["dependencies"]["record"]) == ("degraded", {"status": "behind", "backlog": 7})
