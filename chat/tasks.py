"""Background work of the record; each task calls one service."""

from __future__ import annotations

from celery import shared_task

from chat import services
from providers import health


@shared_task(name="chat.tasks.refresh_health", ignore_result=True)
def refresh_health() -> None:
    """Probes the configured providers and joins what the record knows of them; `/v1/models/{model}/status` shows it."""
    probes = health.probe_now()
    health.write_health(probes, services.recent_attempts())
