"""Background work of the roll-ups; each task calls one service."""

from __future__ import annotations

from celery import shared_task

from analytics import rolling, unpriced
from analytics.reports import schedules
from audit import actors

#: A round begins nothing new after this; the next one goes on. Well below the time limit of tasks.
_ROUND_SECONDS = 120.0


#: Nor does it send anything new.
_SENDING_SECONDS = 120.0


@shared_task(name="analytics.tasks.roll_up", ignore_result=True)
def roll_up() -> None:
    """Brings the roll-ups in step with the record."""
    rolling.roll_up(seconds=_ROUND_SECONDS)


@shared_task(name="analytics.tasks.send_reports", ignore_result=True)
def send_reports() -> None:
    """Sends the scheduled reports that are due, and those that did not arrive before."""
    schedules.run_due(seconds=_SENDING_SECONDS)


@shared_task(name="analytics.tasks.price_unpriced", ignore_result=True)
def price_unpriced() -> None:
    """Goes on with what is being priced later, or counted for it."""
    with actors.acting("pricing of old rows"):
        unpriced.work_all(seconds=_ROUND_SECONDS)
