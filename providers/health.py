"""How the providers are: a sign of life from each, and the rows that say how their models have been lately.

What the record knows of calls is handed in by the caller; this module knows nothing of interactions and attempts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from django.db import transaction
from django.utils import timezone

from providers import registry
from providers.adapters.base import ProviderConfig
from providers.errors import ConnectionFailed, CredentialsRejected, NotConfigured, ProviderError
from providers.models import ModelHealth

Status = ModelHealth.Status

#: Seconds that a provider has for its sign of life.
PROBE_SECONDS = 10.0
#: Share of failed attempts above which a model is degraded.
DEGRADED_ABOVE = 0.1
#: The `upstream_id` of a row about a provider as a whole.
WHOLE_PROVIDER = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What came of asking a provider for a sign of life. `error` and `remedy` are empty when it gave one.

    `latency_ms`: None when there was no answer. `is_optional`: it needs no key, so perhaps nobody meant to use it.
    """

    provider: str
    is_configured: bool
    latency_ms: float | None = None
    error: str = ""
    remedy: str = ""
    is_optional: bool = False

    @property
    def is_reachable(self) -> bool:
        return self.is_configured and not self.error

    @property
    def is_failure(self) -> bool:
        """Whether something is wrong that somebody wanted right."""
        return self.is_configured and bool(self.error) and not self.is_optional


class RecentAttempts(Protocol):
    """How a provider's model has done lately: `error_rate` is failed ÷ all, 0 to 1; `average_response_ms` that of the
    successes, None when there was none."""

    @property
    def provider(self) -> str: ...
    @property
    def upstream_id(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def average_response_ms(self) -> float | None: ...
    @property
    def error_rate(self) -> float: ...


async def probe(slug: str, *, seconds: float = PROBE_SECONDS) -> Probe:
    """Asks one provider for a sign of life that costs no tokens. Never raises for a provider of the settings."""
    config = registry.config(slug)
    if not config.configured:
        return Probe(provider=slug, is_configured=False, remedy=f"Set {config.setting}_API_KEY to use it.")
    began = time.perf_counter()
    try:
        adapter = await registry.aadapter(slug)
        async with asyncio.timeout(seconds):
            await adapter.probe()
    except ProviderError as error:
        return _failed(config, error.message, _remedy(config, error), began, error)
    except TimeoutError as error:
        return _failed(config, f"No answer within {seconds:g} s.", _remedy(config, error), began, error)
    return Probe(provider=slug, is_configured=True, latency_ms=_ms_since(began))


async def probe_all(*, configured_only: bool = True, seconds: float = PROBE_SECONDS) -> list[Probe]:
    """Probes the providers of the settings at the same time, in their order."""
    slugs = [slug for slug, config in registry.configs().items() if config.configured or not configured_only]
    return await asyncio.gather(*(probe(slug, seconds=seconds) for slug in slugs))


def probe_now(*, configured_only: bool = True, seconds: float = PROBE_SECONDS) -> list[Probe]:
    """As `probe_all`, for commands and tasks that have no event loop; leaves no connection open."""

    async def probe_and_close() -> list[Probe]:
        try:
            return await probe_all(configured_only=configured_only, seconds=seconds)
        finally:
            await registry.aclose_all()

    return asyncio.run(probe_and_close())


def write_health(probes: Iterable[Probe], attempts: Iterable[RecentAttempts]) -> list[ModelHealth]:
    """Makes the rows say what is known now: one for each provider that was probed, one for each model that was called.

    Rows about others go: nothing is known of them any more. A configured provider's models without attempts are as
    their provider (`health_of`).
    """
    now = timezone.now()
    by_provider = {probe.provider: probe for probe in probes if probe.is_configured}
    rows = [
        ModelHealth(
            provider=probe.provider,
            upstream_id=WHOLE_PROVIDER,
            status=status_of(probe),
            last_error=probe.error[:500],
            checked_at=now,
        )
        for probe in by_provider.values()
    ]
    for recent in attempts:
        found = by_provider.get(recent.provider)
        rows.append(
            ModelHealth(
                provider=recent.provider,
                upstream_id=recent.upstream_id,
                status=status_of(found, recent),
                average_response_ms=recent.average_response_ms,
                error_rate=recent.error_rate,
                attempts=recent.attempts,
                last_error=found.error[:500] if found else "",
                checked_at=now,
            )
        )
    with transaction.atomic():
        ModelHealth.objects.bulk_create(
            rows,
            batch_size=500,
            update_conflicts=True,
            unique_fields=["provider", "upstream_id"],
            update_fields=["status", "average_response_ms", "error_rate", "attempts", "last_error", "checked_at"],
        )
        ModelHealth.objects.filter(checked_at__lt=now).delete()
    return rows


def status_of(probe: Probe | None, recent: RecentAttempts | None = None) -> Status:
    """Offline when the probe failed or every recent attempt did; degraded when more than one in ten did; unknown when
    there was neither probe nor attempt."""
    error_rate = recent.error_rate if recent is not None and recent.attempts else None
    if probe is None and error_rate is None:
        return Status.UNKNOWN
    if (probe is not None and probe.error) or error_rate == 1:
        return Status.OFFLINE
    return Status.DEGRADED if error_rate is not None and error_rate > DEGRADED_ABOVE else Status.ONLINE


def health_of(provider: str, upstream_id: str) -> ModelHealth | None:
    """The row about the model, else the one about its provider; None when neither was ever checked."""
    rows = ModelHealth.objects.filter(provider=provider, upstream_id__in=(upstream_id, WHOLE_PROVIDER))
    return rows.order_by("-upstream_id").first()


def _failed(config: ProviderConfig, message: str, remedy: str, began: float, error: Exception) -> Probe:
    answered = not isinstance(error, ConnectionFailed | NotConfigured | TimeoutError)
    return Probe(
        provider=config.slug,
        is_configured=True,
        latency_ms=_ms_since(began) if answered else None,
        error=message,
        remedy=remedy,
        is_optional=not config.needs_key and isinstance(error, ConnectionFailed | NotConfigured),
    )


def _remedy(config: ProviderConfig, error: Exception) -> str:
    match error:
        case NotConfigured():
            return ""  # its message says what to do
        case CredentialsRejected():
            return f"Check {config.setting}_API_KEY."
        case ConnectionFailed() if not config.needs_key:
            return f"Start it, or set {config.setting}_BASE_URL."
        case ConnectionFailed() | TimeoutError():
            return f"Check the network and {config.setting}_BASE_URL."
        case _:
            return "Try again later, or ask the provider."


def _ms_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
