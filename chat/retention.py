"""Lets go of what plans keep no longer: exchanges, or their texts alone. Roll-ups and other numbers stay.

A month that nobody needs any more goes with its partition, the rest in small batches, each a transaction of its own,
so that nobody waits. The `Removal` that says what went is written with it. It may be ended at any moment: the next run
goes on.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
from django.db import OperationalError, transaction
from django.db.models import Exists, Max, Min, OuterRef, QuerySet
from django.utils import timezone

from accounts.models import Organization, Plan
from audit import entries
from audit.models import Action
from chat import partitions
from chat.models import Attempt, Change, Conversation, Interaction, QuarantinedExchange, Removal
from chat.partitions import Partition
from chat.privacy import ERASED, ERASED_ATTEMPT
from llmchat.lib.uuid7 import floor_at, moment_of

logger = logging.getLogger(__name__)

#: Interactions in one transaction: on SQLite, everybody else's writes wait for it.
BATCH: Final = 500
#: Seconds between two batches, in which others have the database to themselves.
PAUSE: Final = 0.02
#: Rows of an earlier moment may still come from a journal that was away: texts are looked for again from so far back.
LATE: Final = dt.timedelta(days=7)

BY: Final = "retention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Since when an organization's rows and texts are kept; None: from the first. Rows that roll-ups have yet to read
    are kept, too."""

    organization: Organization
    rows: dt.datetime | None
    texts: dt.datetime | None


def rules(now: dt.datetime) -> list[Rule]:
    """What the plans say of each organization."""
    waiting = waits_for_roll_ups(now)

    def since(days: int | None) -> dt.datetime | None:
        return None if days is None else now - dt.timedelta(days=days)

    def until_rolled_up(moment: dt.datetime | None) -> dt.datetime | None:
        return moment if moment is None or waiting is None else min(moment, waiting)

    return [
        Rule(
            organization=organization,
            rows=until_rolled_up(since(organization.plan.retention_days)),
            texts=since(organization.plan.texts_retention_days),
        )
        for organization in Organization.objects.select_related("plan").order_by("id")
    ]


def waits_for_roll_ups(now: dt.datetime) -> dt.datetime | None:
    """From when on exchanges stay although their time is over: the day of the oldest change that is not rolled up. None
    when nothing waits. What is removed is sealed by whole days, so what had not been added up would never be."""
    shortest = Plan.objects.aggregate(days=Min("retention_days"))["days"]
    if shortest is None:
        return None
    before = now - dt.timedelta(days=shortest)
    oldest = Change.objects.filter(minute__lt=before + dt.timedelta(days=1)).aggregate(oldest=Min("minute"))["oldest"]
    if oldest is None:
        return None
    day: dt.datetime = oldest.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day if day < before else None


def apply(*, dry_run: bool = False, seconds: float | None = None, by: str = BY) -> Iterator[Removal]:
    """Removes what is past its time, for about `seconds` at most, and says what went. With `dry_run` it removes
    nothing, and says what would go; the entries are not stored then."""
    deadline = None if seconds is None else time.monotonic() + seconds

    def is_over() -> bool:
        return deadline is not None and time.monotonic() > deadline

    now = timezone.now()
    if waiting := waits_for_roll_ups(now):
        logger.warning("Exchanges from %s on stay until they are rolled up: run manage.py roll_up.", waiting.date())
    found = rules(now)
    yield from _partitions(found, dry_run=dry_run, by=by)
    yield from _exchanges(found, dry_run=dry_run, by=by, is_over=is_over)
    yield from _texts(found, dry_run=dry_run, by=by, is_over=is_over)


# --- Whole months -----------------------------------------------------------------------------------------------------


def _partitions(found: Sequence[Rule], *, dry_run: bool, by: str) -> Iterator[Removal]:
    if not partitions.is_partitioned():
        return
    for partition in partitions.partitions("chat_interaction"):
        needing = [rule.organization.pk for rule in found if rule.rows is None or floor_at(rule.rows) < partition.until]
        rows = _rows_in(partition)
        if len(needing) == len(found) or rows.filter(organization_id__in=needing).exists():
            continue
        removal = Removal(
            kind=Removal.Kind.EXCHANGES,
            before=moment_of(partition.until),
            interactions=rows.count(),
            partition=partition.name,
            by=by,
        )
        if not removal.interactions and partition.until > floor_at(timezone.now()):
            # Made ahead.
            continue
        if not dry_run and not _drop(partition, removal):
            continue
        yield removal


def _drop(partition: Partition, removal: Removal) -> bool:
    try:
        with transaction.atomic():
            partitions.drop(partition)
            removal.save()
            _enter(removal)
    except OperationalError as error:
        if "lock timeout" not in str(error):
            raise
        logger.warning("The partition %s stays for now: the record is busy.", partition.name)
        return False
    return True


def _rows_in(partition: Partition) -> QuerySet[Interaction]:
    rows = Interaction.objects.filter(id__lt=partition.until)
    return rows if partition.since is None else rows.filter(id__gte=partition.since)


# --- Exchanges --------------------------------------------------------------------------------------------------------


def _exchanges(found: Sequence[Rule], *, dry_run: bool, by: str, is_over: Callable[[], bool]) -> Iterator[Removal]:
    for rule in found:
        if rule.rows is None or is_over():
            continue
        removal = Removal(kind=Removal.Kind.EXCHANGES, organization=rule.organization, before=rule.rows, by=by)
        until = floor_at(rule.rows)
        rows = Interaction.objects.filter(organization=rule.organization, id__lt=until)
        left = Interaction.objects.filter(conversation=OuterRef("pk"))
        threads = Conversation.objects.filter(
            ~Exists(left.filter(id__gte=until) if dry_run else left),
            organization=rule.organization,
            id__lt=until,
            updated_at__lt=rule.rows,
        )
        kept = _quarantined(rule.organization.pk, until)
        if dry_run:
            removal.interactions, removal.conversations = rows.count(), threads.count()
            removal.quarantined = len(kept)
        else:
            for batch in in_batches(rows, is_over=is_over):
                with transaction.atomic():
                    Attempt.objects.filter(interaction_id__in=batch).delete()
                    # Nothing else refers to them: the ORM would read each row whole to make sure.
                    removal.interactions += Interaction.objects.filter(id__in=batch)._raw_delete("default")  # noqa: SLF001
                    removal.save()
            with transaction.atomic():
                removal.conversations = threads.delete()[0]
                removal.quarantined = QuarantinedExchange.objects.filter(id__in=kept).delete()[0]
                _save(removal)
        if _is_worth_saying(removal):
            yield removal


def _quarantined(organization: UUID, until: UUID) -> list[UUID]:
    """Exchanges of the organization that the database refused before: few, if any at all."""
    return [
        kept.id
        for kept in QuarantinedExchange.objects.filter(id__lt=until)
        if organization_of(kept) == str(organization)
    ]


def organization_of(kept: QuarantinedExchange) -> str:
    """The id of the organization as the facts have it; empty when they cannot be read."""
    try:
        return str(orjson.loads(kept.facts)["interaction"]["organization_id"])
    except (ValueError, KeyError, TypeError):
        return ""


# --- Texts ------------------------------------------------------------------------------------------------------------


def _texts(found: Sequence[Rule], *, dry_run: bool, by: str, is_over: Callable[[], bool]) -> Iterator[Removal]:
    for rule in found:
        if rule.texts is None or is_over():
            continue
        removal = Removal(kind=Removal.Kind.TEXTS, organization=rule.organization, before=rule.texts, by=by)
        until = floor_at(rule.texts)
        rows = Interaction.objects.filter(organization=rule.organization, id__lt=until, erased_at=None)
        done = Removal.objects.filter(kind=Removal.Kind.TEXTS, organization=rule.organization)
        if (last := done.aggregate(last=Max("before"))["last"]) is not None:
            rows = rows.filter(id__gte=floor_at(last - LATE))
        titled = Conversation.objects.filter(
            organization=rule.organization, id__lt=until, updated_at__lt=rule.texts
        ).exclude(title="")
        kept = _quarantined(rule.organization.pk, until)
        if dry_run:
            removal.interactions, removal.conversations = rows.count(), titled.count()
            removal.quarantined = len(kept)
        else:
            for batch in in_batches(rows, is_over=is_over):
                with transaction.atomic():
                    removal.interactions += erase(batch)
                    # The next run begins there, should this one end here.
                    removal.before = moment_of(batch[-1])
                    removal.save()
            with transaction.atomic():
                removal.conversations = titled.update(title="")
                removal.quarantined = QuarantinedExchange.objects.filter(id__in=kept).delete()[0]
                if not is_over():
                    removal.before = rule.texts
                _save(removal)
        if _is_worth_saying(removal):
            yield removal


def _save(removal: Removal) -> None:
    """Stores the entry, unless nothing went."""
    if _is_worth_saying(removal):
        removal.save()
        _enter(removal)


def _enter(removal: Removal) -> None:
    entries.about(
        removal,
        Action.REMOVED,
        interactions=removal.interactions,
        conversations=removal.conversations,
        before=removal.before,
        by=removal.by,
    )


def _is_worth_saying(removal: Removal) -> bool:
    return bool(removal.interactions or removal.conversations or removal.quarantined)


def erase(identifiers: Sequence[UUID]) -> int:
    """Takes the texts out of these interactions and their attempts; how many interactions there were."""
    with transaction.atomic():
        Attempt.objects.filter(interaction_id__in=identifiers).update(**ERASED_ATTEMPT)
        return Interaction.objects.filter(id__in=identifiers).update(erased_at=timezone.now(), **ERASED)


def in_batches(rows: QuerySet[Interaction], *, is_over: Callable[[], bool]) -> Iterator[list[UUID]]:
    """The ids of the rows in their order, by batches, until `is_over`."""
    batch = list(rows.order_by("id").values_list("id", flat=True)[:BATCH])
    while batch:
        yield batch
        if is_over():
            return
        time.sleep(PAUSE)
        batch = list(rows.filter(id__gt=batch[-1]).order_by("id").values_list("id", flat=True)[:BATCH])
