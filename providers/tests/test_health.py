"""Signs of life from providers, and the rows that say how models have been."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.utils import timezone

from providers import health, registry
from providers.health import Probe
from providers.models import ModelHealth
from providers.tests.factories import ModelHealthFactory
from providers.tests.upstream import Ending, Reply, Upstream

Status = ModelHealth.Status
OPENAI = "providers.adapters.sdk.openai.OpenAIAdapter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What a caller knows of a model's calls."""

    provider: str = "openai"
    upstream_id: str = "gpt-4o"
    attempts: int = 10
    average_response_ms: float | None = 800.0
    error_rate: float = 0.0


ONLINE = Probe(provider="openai", is_configured=True, latency_ms=20.0)
OFFLINE = Probe(provider="openai", is_configured=True, error="The connection was refused.", remedy="Look.")


@pytest.mark.parametrize(
    ("probe", "recent", "expected"),
    [
        (None, None, Status.UNKNOWN),
        (None, Recent(attempts=0), Status.UNKNOWN),
        (None, Recent(), Status.ONLINE),
        (ONLINE, None, Status.ONLINE),
        (ONLINE, Recent(attempts=0), Status.ONLINE),
        (ONLINE, Recent(error_rate=0.1), Status.ONLINE),
        (ONLINE, Recent(error_rate=0.11), Status.DEGRADED),
        (ONLINE, Recent(error_rate=0.99), Status.DEGRADED),
        (ONLINE, Recent(error_rate=1.0), Status.OFFLINE),
        (OFFLINE, None, Status.OFFLINE),
        (OFFLINE, Recent(), Status.OFFLINE),
    ],
)
def test_the_status_follows_from_probe_and_attempts(
    probe: Probe | None, recent: Recent | None, expected: Status
) -> None:
    assert health.status_of(probe, recent) == expected


def told() -> list[dict[str, Any]]:
    fields = ("provider", "upstream_id", "status", "average_response_ms", "error_rate", "attempts", "last_error")
    return list(ModelHealth.objects.order_by("provider", "upstream_id").values(*fields))


@pytest.mark.django_db
def test_rows_say_what_is_known_now_and_nothing_else() -> None:
    ModelHealthFactory.create(provider="gone", upstream_id="old", checked_at=timezone.now())
    health.write_health([ONLINE], [Recent(error_rate=0.5)])
    health.write_health(
        [OFFLINE, Probe(provider="groq", is_configured=False)],
        [Recent(average_response_ms=None, error_rate=1.0), Recent(provider="groq", upstream_id="llama")],
    )
    error = "The connection was refused."
    assert told() == [
        {
            "provider": "groq",
            "upstream_id": "llama",
            "status": "online",
            "average_response_ms": 800.0,
            "error_rate": 0.0,
            "attempts": 10,
            "last_error": "",
        },
        {
            "provider": "openai",
            "upstream_id": "",
            "status": "offline",
            "average_response_ms": None,
            "error_rate": None,
            "attempts": 0,
            "last_error": error,
        },
        {
            "provider": "openai",
            "upstream_id": "gpt-4o",
            "status": "offline",
            "average_response_ms": None,
            "error_rate": 1.0,
            "attempts": 10,
            "last_error": error,
        },
    ]


@pytest.mark.django_db
def test_a_model_without_attempts_is_as_its_provider() -> None:
    health.write_health([ONLINE], [Recent(error_rate=0.5)])
    found = [health.health_of("openai", "gpt-4o"), health.health_of("openai", "o3"), health.health_of("groq", "llama")]
    assert [row and row.status for row in found] == [Status.DEGRADED, Status.ONLINE, None]


def listing_models() -> Reply:
    return Reply(body=json.dumps({"object": "list", "data": []}).encode(), content_type="application/json")


@pytest.fixture
async def vendor(settings, upstream: Upstream) -> AsyncIterator[Upstream]:
    """The only provider with a key, `openai`, is a vendor on this machine."""
    upstream.reply = listing_models()
    row = {"ADAPTER": OPENAI, "API_KEY": "sk-test", "BASE_URL": upstream.url, "SETTING": "OPENAI"}
    settings.PROVIDERS = {"openai": row, "groq": {"ADAPTER": OPENAI, "SETTING": "GROQ"}}
    yield upstream
    await registry.aclose_all()


async def test_a_provider_that_answers_is_reachable(vendor: Upstream) -> None:
    found = await health.probe("openai")
    assert found == Probe(provider="openai", is_configured=True, latency_ms=found.latency_ms)
    assert found.latency_ms is not None
    assert (found.is_reachable, found.is_failure) == (True, False)
    assert [request.method for request in vendor.requests] == ["GET"]


async def test_a_refused_key_is_a_failure_that_names_the_setting(vendor: Upstream) -> None:
    vendor.reply = Reply(
        status=401, body=b'{"error": {"message": "Incorrect API key"}}', content_type="application/json"
    )
    found = await health.probe("openai")
    assert (found.is_reachable, found.is_failure, found.remedy) == (False, True, "Check OPENAI_API_KEY.")
    assert found.error
    assert "sk-test" not in found.error


async def test_a_silent_provider_is_not_waited_for(vendor: Upstream) -> None:
    vendor.reply = Reply(mute=True, ending=Ending.HELD)
    found = await health.probe("openai", seconds=0.05)
    assert found == Probe(
        provider="openai",
        is_configured=True,
        error="No answer within 0.05 s.",
        remedy="Check the network and OPENAI_BASE_URL.",
    )


async def test_a_provider_without_a_key_is_not_asked(vendor: Upstream) -> None:
    assert await health.probe("groq") == Probe(
        provider="groq", is_configured=False, remedy="Set GROQ_API_KEY to use it."
    )


async def test_a_provider_that_needs_no_key_and_does_not_run_is_no_failure(settings, unused_tcp_port: int) -> None:
    address = f"http://127.0.0.1:{unused_tcp_port}/v1"
    settings.PROVIDERS = {"ollama": {"ADAPTER": OPENAI, "NEEDS_KEY": False, "BASE_URL": address, "SETTING": "OLLAMA"}}
    found = await health.probe("ollama")
    await registry.aclose_all()
    assert (found.is_reachable, found.is_failure, found.latency_ms) == (False, False, None)
    assert found.remedy == "Start it, or set OLLAMA_BASE_URL."


async def test_only_configured_providers_are_probed_unless_all_are_wanted(vendor: Upstream) -> None:
    assert [found.provider for found in await health.probe_all()] == ["openai"]
    assert [found.provider for found in await health.probe_all(configured_only=False)] == ["openai", "groq"]
