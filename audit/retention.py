"""Lets go of entries of the audit trail that are older than the setting AUDIT_RETENTION_DAYS; without it all stay."""

from __future__ import annotations

import datetime as dt
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from audit import entries
from audit.models import Action, Entry
from llmchat.lib.uuid7 import floor_at

_BATCH: Final = 5000


def purge() -> int:
    """Deletes what is past its time, in batches; how many entries. That it did so is an entry itself."""
    if not settings.AUDIT_RETENTION_DAYS:
        return 0
    before = timezone.now() - dt.timedelta(days=settings.AUDIT_RETENTION_DAYS)
    past = Entry.objects.filter(id__lt=floor_at(before)).order_by("id")
    gone = 0
    while batch := list(past.values_list("id", flat=True)[:_BATCH]):
        with transaction.atomic():
            count = Entry.objects.filter(id__in=batch).delete()[0]
            details = {"entries": count, "before": before}
            entries.record(Action.REMOVED, object_type=Entry._meta.label_lower, details=details)
        gone += count
    return gone
