"""Sends scheduled reports: which are due, who sends them, and what becomes of what did not arrive.

A run is claimed by one UPDATE that only one worker wins, and its deliveries are written with it. Each delivery is
claimed in the same way before it is sent and marked after. A worker that dies in between leaves it claimed; it is sent
again after `STALE`, and may then arrive twice, with the same id: at least once is all that mail and HTTP allow.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from analytics.reports import sending
from analytics.reports.asking import Scope
from analytics.reports.models import ReportDelivery, ReportSchedule
from analytics.reports.registry import REPORTS
from analytics.reports.sending import DeliveryError, Letter

logger = logging.getLogger(__name__)

State, Channel = ReportDelivery.State, ReportDelivery.Channel

#: Pauses before the second try and those after it; then it has failed.
PAUSES: Final = tuple(dt.timedelta(minutes=minutes) for minutes in (1, 5, 30, 120))
#: A delivery claimed so long ago has lost its worker: tasks end well before.
STALE: Final = dt.timedelta(minutes=15)
#: Deliveries of a schedule that are kept.
_HISTORY: Final = 200

_SENDERS: Final[dict[str, Callable[[ReportDelivery, Letter], None]]] = {
    Channel.EMAIL: sending.by_mail,
    Channel.WEBHOOK: sending.by_webhook,
}


def run_due(*, now: dt.datetime | None = None, seconds: float = float("inf")) -> int:
    """Claims what is due and sends what is waiting, until there is nothing more or the time is over. Returns how many
    deliveries were sent."""
    began = time.monotonic()
    moment = now or timezone.now()
    for schedule in ReportSchedule.objects.filter(is_active=True, next_due_at__lte=moment).order_by("next_due_at"):
        claim(schedule, now=moment)
    sent = 0
    while time.monotonic() - began < seconds and (delivery := _take(moment)) is not None:
        sent += _send(delivery, now=moment)
    return sent


def plan(schedule: ReportSchedule, *, now: dt.datetime | None = None) -> None:
    """Sets the next run, after the clock or whether it goes at all was changed."""
    schedule.next_due_at = schedule.due_after(now or timezone.now()) if schedule.is_active else None
    schedule.save(update_fields=["next_due_at"])


def claim(schedule: ReportSchedule, *, now: dt.datetime) -> bool:
    """Takes the run that is due; False when another worker was first. Runs that were missed are not made up for: what
    is sent is of the time when it was due."""
    due = schedule.next_due_at
    with transaction.atomic():
        won = ReportSchedule.objects.filter(pk=schedule.pk, is_active=True, next_due_at=due).update(
            next_due_at=schedule.due_after(now), last_run_at=now
        )
        if won != 1 or due is None:
            return False
        _write(schedule, due)
    return True


def send_now(schedule: ReportSchedule) -> list[ReportDelivery]:
    """Sends it at once, whatever the clock says; the next run stays as it is."""
    now = timezone.now()
    with transaction.atomic():
        deliveries = _write(schedule, now)
        ReportSchedule.objects.filter(pk=schedule.pk).update(last_run_at=now)
    for delivery in deliveries:
        if _claimed(delivery, now=now):
            _send(delivery, now=now)
    return deliveries


def letter_of(schedule: ReportSchedule, *, due: dt.datetime) -> Letter:
    """What is sent: the report of that moment, as far as the schedule's owner may see it. Raises DeliveryError."""
    report = REPORTS.get(schedule.report)
    if report is None:
        raise DeliveryError(f"There is no report {schedule.report!r} any more. Choose another one.", is_permanent=True)
    scope = Scope.of(schedule.owner)
    wanted = schedule.organization_id
    if not (scope.sees_all if wanted is None else scope.organizations.filter(pk=wanted).exists()):
        owner = schedule.owner.get_username() if schedule.owner else "Its owner, who is gone,"
        raise DeliveryError(
            f"{owner} may not see these figures any more. Let somebody who may save the schedule again.",
            is_permanent=True,
        )
    said = {**schedule.parameters, "organization": str(schedule.organization_id or "")}
    form = report.form_class(said, scope=scope, now=due)
    if not form.is_valid():
        faults = "; ".join(f"{name}: {' '.join(map(str, errors))}" for name, errors in form.errors.items())
        raise DeliveryError(f"The report cannot be made of its parameters. {faults}", is_permanent=True)
    asked = form.asked()
    return sending.letter(schedule, report=report, asked=asked, outcome=report.make(asked), form=form)


def _write(schedule: ReportSchedule, due: dt.datetime) -> list[ReportDelivery]:
    targets = {}
    if schedule.recipients:
        targets[Channel.EMAIL] = ", ".join(schedule.recipients)[:500]
    if schedule.webhook_url:
        targets[Channel.WEBHOOK] = sending.shown_address(schedule.webhook_url)[:500]
    deliveries = [
        ReportDelivery(schedule=schedule, due_at=due, channel=channel, target=target, not_before=due)
        for channel, target in targets.items()
    ]
    ReportDelivery.objects.bulk_create(deliveries)
    old = schedule.deliveries.order_by("-id").values_list("pk", flat=True)[_HISTORY : _HISTORY + 1].first()
    if old is not None:
        schedule.deliveries.filter(pk__lte=old).delete()
    return deliveries


def _take(now: dt.datetime) -> ReportDelivery | None:
    """A delivery that is to be sent, claimed for this worker."""
    waiting = Q(state=State.PENDING, not_before__lte=now) | Q(state=State.SENDING, claimed_at__lt=now - STALE)
    for delivery in ReportDelivery.objects.filter(waiting).select_related("schedule__owner").order_by("not_before"):
        if _claimed(delivery, now=now):
            return delivery
    return None


def _claimed(delivery: ReportDelivery, *, now: dt.datetime) -> bool:
    """Whether this worker, of all that want it, may send the delivery."""
    as_seen = ReportDelivery.objects.filter(
        pk=delivery.pk, state=delivery.state, claimed_at=delivery.claimed_at, tries=delivery.tries
    )
    return as_seen.update(state=State.SENDING, claimed_at=now, tries=delivery.tries + 1) == 1


def _send(delivery: ReportDelivery, *, now: dt.datetime) -> bool:
    """Sends a claimed delivery and marks what became of it."""
    delivery.refresh_from_db()
    schedule = delivery.schedule
    try:
        _SENDERS[delivery.channel](delivery, letter_of(schedule, due=delivery.due_at))
    except DeliveryError as error:
        _note_failure(delivery, str(error), is_permanent=error.is_permanent, now=now)
    except Exception as error:
        # Whatever it is, it must not hold up the others, nor be forgotten.
        logger.exception("A scheduled report could not be made.")
        _note_failure(delivery, f"The report could not be made: {type(error).__name__}.", is_permanent=False, now=now)
    else:
        _mark(delivery, state=State.SENT, error="", finished_at=timezone.now())
        _note(schedule, "")
        return True
    return False


def _note_failure(delivery: ReportDelivery, error: str, *, is_permanent: bool, now: dt.datetime) -> None:
    if is_permanent or delivery.tries > len(PAUSES):
        _mark(delivery, state=State.FAILED, error=error, finished_at=timezone.now())
        logger.warning("A scheduled report was not delivered: %s", error)
    else:
        pause = PAUSES[delivery.tries - 1]
        _mark(delivery, state=State.PENDING, error=error, not_before=now + pause)
    _note(delivery.schedule, error)


def _mark(delivery: ReportDelivery, **values: Any) -> None:
    # Only who still holds the claim may say what became of it.
    held = ReportDelivery.objects.filter(pk=delivery.pk, state=State.SENDING, tries=delivery.tries)
    held.update(claimed_at=None, **values)
    for name, value in values.items():
        setattr(delivery, name, value)


def _note(schedule: ReportSchedule, error: str) -> None:
    ReportSchedule.objects.filter(pk=schedule.pk).update(last_error=error)
