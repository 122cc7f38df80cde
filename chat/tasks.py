"""Background work of the record; each task calls one service."""

from __future__ import annotations

from celery import shared_task

from chat import claims, partitions, services
from providers import health


@shared_task(name="chat.tasks.refresh_health", ignore_result=True)
def refresh_health() -> None:
    """Probes the configured providers and joins what the record knows of them; `/v1/models/{model}/status` shows it."""
    probes = health.probe_now()
    health.write_health(probes, services.recent_attempts())


@shared_task(name="chat.tasks.purge_idempotency", ignore_result=True)
def purge_idempotency() -> None:
    """Forgets request ids that have stood for their answers long enough."""
    claims.purge()


@shared_task(name="chat.tasks.make_partitions", ignore_result=True)
def make_partitions() -> None:
    """Makes the record's partitions ahead of time, on PostgreSQL."""
    partitions.make()
