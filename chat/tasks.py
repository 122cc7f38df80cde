"""Background work of the record; each task calls one service."""

from __future__ import annotations

import logging

from celery import shared_task

from chat import claims, erasure, partitions, retention, services
from providers import health

logger = logging.getLogger(__name__)

#: Well within the time that a task has.
_RETENTION_SECONDS, _SWEEP_SECONDS = 150.0, 30.0


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


@shared_task(name="chat.tasks.apply_retention", ignore_result=True)
def apply_retention() -> None:
    """Removes what plans keep no longer, and what has come since of people who were erased; what is left of it when the
    time is over goes with the next run."""
    for removal in erasure.sweep(seconds=_SWEEP_SECONDS):
        logger.info("Removed: %s, %d interactions.", removal, removal.interactions)
    for removal in retention.apply(seconds=_RETENTION_SECONDS):
        logger.info("Removed: %s, %d interactions.", removal, removal.interactions)
