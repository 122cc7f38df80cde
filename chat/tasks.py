"""Background work of the record; each task calls one service."""

from __future__ import annotations

import logging
import threading

from celery import shared_task

from audit import actors
from audit import retention as audit_retention
from chat import claims, erasure, partitions, retention, search_index, services
from chat.exports import jobs
from providers import health

logger = logging.getLogger(__name__)

#: Well within the time that a task has.
_RETENTION_SECONDS, _SWEEP_SECONDS, _INDEX_SECONDS = 150.0, 30.0, 30.0


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


@shared_task(name="chat.tasks.work_on_exports", ignore_result=True)
def work_on_exports() -> None:
    """Gives one export its turn, and asks for the next one."""
    if jobs.work() and jobs.is_waiting():
        work_on_exports.delay()


@shared_task(name="chat.tasks.expire_exports", ignore_result=True)
def expire_exports() -> None:
    """Removes the files of exports whose time is over."""
    jobs.expire()


@shared_task(name="chat.tasks.apply_retention", ignore_result=True)
def apply_retention() -> None:
    """Removes what plans keep no longer, and what has come since of people who were erased; what is left of it when the
    time is over goes with the next run."""
    with actors.acting("retention"):
        for removal in erasure.sweep(seconds=_SWEEP_SECONDS):
            logger.info("Removed: %s, %d interactions.", removal, removal.interactions)
        for removal in retention.apply(seconds=_RETENTION_SECONDS):
            logger.info("Removed: %s, %d interactions.", removal, removal.interactions)
        if gone := audit_retention.purge():
            logger.info("Removed: %d entries of the audit trail.", gone)


#: One thread of a process at most: after a rush all of them would be at it, and roll-ups would wait for minutes.
_indexing = threading.Lock()


@shared_task(name="chat.tasks.index_words", ignore_result=True)
def index_words() -> None:
    """Makes the words of new interactions findable, on PostgreSQL."""
    if _indexing.acquire(blocking=False):
        try:
            search_index.fill(seconds=_INDEX_SECONDS)
        finally:
            _indexing.release()
