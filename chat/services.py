"""Verbs across rows of the record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Avg, Count, Q
from django.utils import timezone

from chat.models import Attempt, Conversation, Status
from chat.privacy import ERASED, ERASED_ATTEMPT
from llmchat.lib.uuid7 import floor_at


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentAttempts:
    """How a provider's model has done lately: mean latency of successes in milliseconds, failed ÷ ended (0 to 1)."""

    provider: str
    upstream_id: str
    attempts: int
    average_response_ms: float | None
    error_rate: float


def delete_conversation(conversation: Conversation) -> int:
    """Deletes a thread and erases the texts of its interactions; tokens, cost and timings stay. Returns how many
    interactions were erased. An answer that is on its way is erased when it is stored."""
    with transaction.atomic():
        # Whoever stores a row of it at this moment has locked it: that row is seen from here on.
        Conversation.objects.select_for_update().filter(id=conversation.id).first()
        Attempt.objects.filter(interaction__conversation=conversation).update(**ERASED_ATTEMPT)
        erased = conversation.interactions.update(erased_at=timezone.now(), conversation=None, **ERASED)
        conversation.delete()
    return erased


def recent_attempts(*, window: dt.timedelta = dt.timedelta(hours=1)) -> Iterable[RecentAttempts]:
    """Attempts for the interactions of the last `window` by provider and model. The caller's own faults and
    cancellations are no failures of the provider's."""
    succeeded = Q(status=Status.SUCCEEDED)
    failed = Q(status=Status.FAILED) & ~Q(upstream_status__in=(400, 404, 413, 422))
    rows = (
        Attempt.objects.filter(interaction_id__gte=floor_at(timezone.now() - window))
        .values("provider", "model")
        .annotate(
            good=Count("id", filter=succeeded),
            bad=Count("id", filter=failed),
            latency=Avg("latency_ms", filter=succeeded),
        )
        .order_by()
    )
    return [
        RecentAttempts(
            provider=row["provider"],
            upstream_id=row["model"],
            attempts=row["good"] + row["bad"],
            average_response_ms=row["latency"],
            error_rate=row["bad"] / (row["good"] + row["bad"]),
        )
        for row in rows
        if row["good"] + row["bad"]
    ]
