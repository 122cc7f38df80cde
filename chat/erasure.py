"""Erases what one person said and was told, wherever it is kept; tokens, costs and timings stay, and an entry says so.

Rows lose their texts, conversations go; exchanges in quarantine and journals of dead processes are no way around it.
What is on its way at that moment is stored later, and found by `sweep`.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.models import Organization
from audit import entries
from audit.models import Action
from chat import journal, recovery, services
from chat.exports import jobs
from chat.models import Conversation, Export, Interaction, QuarantinedExchange, Removal
from chat.privacy import ERASED, ERASED_ATTEMPT
from chat.retention import BATCH, BY, LATE, erase, in_batches
from llmchat.lib.uuid7 import floor_at

logger = logging.getLogger(__name__)

_WHY = "Why the database refused it was erased with its texts."


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """`is_whole`: nothing is left for the next `sweep`. `exports`: files that may hold the person's texts; they go."""

    removal: Removal
    is_whole: bool
    exports: tuple[Export, ...] = ()


def erase_person(
    organization: Organization, user_id: str, *, by: str, dry_run: bool = False, seconds: float | None = None
) -> Erasure:
    """Erases the texts of an organization's user, for about `seconds` at most; with `dry_run` it only counts.

    Raises Django's database errors; what was erased by then stays erased.
    """
    if not dry_run:
        # What dead processes left would come back as rows.
        for complaint in recovery.replay(settings.JOURNAL_DIR).complaints:
            logger.error("Journal: %s", complaint)
    removal = Removal(
        kind=Removal.Kind.PERSON, organization=organization, user_id=user_id, before=timezone.now(), by=by
    )
    if dry_run:
        removal.interactions = _rows(removal).count()
        removal.conversations = _conversations(removal).count()
        removal.quarantined = len(_quarantined(removal))
        return Erasure(removal=removal, is_whole=True, exports=tuple(jobs.those_with(organization, user_id)))
    # Before anything goes: whoever is on the way when this process dies is found by `sweep` all the same.
    with transaction.atomic():
        removal.save()
        entries.about(removal, Action.ERASED, user=user_id, before=removal.before, by=by)
    is_whole = _erase(removal, is_over=_deadline(seconds))
    # Last: one that is asked for meanwhile may still read a text.
    exports = jobs.withdraw(organization, user_id)
    return Erasure(removal=removal, is_whole=is_whole, exports=tuple(exports))


def sweep(*, seconds: float | None = None) -> list[Removal]:
    """Erases what has come since of people who were erased lately, and what was left over. Returns what it found."""
    is_over = _deadline(seconds)
    found = []
    lately = Removal.objects.filter(kind=Removal.Kind.PERSON, created_at__gte=timezone.now() - LATE).exclude(by=BY)
    for earlier in lately.select_related("organization").order_by("id"):
        removal = Removal(
            kind=Removal.Kind.PERSON,
            organization=earlier.organization,
            user_id=earlier.user_id,
            before=earlier.before,
            by=BY,
        )
        _erase(removal, is_over=is_over)
        if removal.pk is not None and removal.organization is not None:
            jobs.withdraw(removal.organization, removal.user_id)
        if removal.pk is not None:
            found.append(removal)
    return found


def in_journals(organization: Organization, user_id: str) -> int:
    """Exchanges of the person in the journals of this host's running processes: they go from the disk when their
    process has filled its journal, or ended."""
    found: set[UUID] = set()
    with suppress(FileNotFoundError):
        for path in settings.JOURNAL_DIR.iterdir():
            if not (path.is_dir() and recovery.is_journal(path)):
                continue
            for segment in journal.segments(path):
                # A process removes its segments when all in them is settled.
                with suppress(FileNotFoundError):
                    for record in journal.read(segment, on_damage=lambda _: None):
                        if _is_of(record.facts, organization.pk, user_id):
                            found.add(record.exchange)
    return len(found)


def _erase(removal: Removal, *, is_over: Callable[[], bool]) -> bool:
    """Erases what the entry says and counts on it; whether that was all."""
    while threads := list(_conversations(removal)[:BATCH]):
        for conversation in threads:
            with transaction.atomic():
                removal.interactions += services.delete_conversation(conversation)
                removal.conversations += 1
                removal.save()
            if is_over():
                return False
    for batch in in_batches(_rows(removal), is_over=is_over):
        with transaction.atomic():
            removal.interactions += erase(batch)
            removal.save()
    for kept in _quarantined(removal):
        with transaction.atomic():
            kept.facts, kept.reason = orjson.dumps(_without_texts(orjson.loads(kept.facts))).decode(), _WHY
            kept.save(update_fields=["facts", "reason"])
            removal.quarantined += 1
            removal.save()
    return not _rows(removal).exists()


def _rows(removal: Removal) -> Any:
    return Interaction.objects.filter(
        organization=removal.organization,
        user_id=removal.user_id,
        id__lt=floor_at(removal.before),
        erased_at=None,
    )


def _conversations(removal: Removal) -> Any:
    return Conversation.objects.filter(
        organization=removal.organization, user_id=removal.user_id, id__lt=floor_at(removal.before)
    )


def _quarantined(removal: Removal) -> list[QuarantinedExchange]:
    """Of the few exchanges that the database refused, those of the person that still hold texts."""
    found = []
    for kept in QuarantinedExchange.objects.filter(id__lt=floor_at(removal.before)).exclude(reason=_WHY):
        with suppress(ValueError):
            if kept.reason != _WHY and _is_of(orjson.loads(kept.facts), removal.organization_id, removal.user_id):
                found.append(kept)
    return found


def _is_of(facts: Any, organization: UUID | None, user_id: str) -> bool:
    try:
        row = facts["interaction"]
        return bool(str(row["organization_id"]) == str(organization) and row["user_id"] == user_id)
    except (KeyError, TypeError):
        return False


def _without_texts(facts: dict[str, Any]) -> dict[str, Any]:
    row = {**facts["interaction"], **ERASED, "conversation_id": None, "erased_at": dt.datetime.now(dt.UTC)}
    return {"interaction": row, "attempts": [{**attempt, **ERASED_ATTEMPT} for attempt in facts["attempts"]]}


def _deadline(seconds: float | None) -> Callable[[], bool]:
    until = None if seconds is None else time.monotonic() + seconds
    return lambda: until is not None and time.monotonic() > until
