"""Background work of the roll-ups; each task calls one service."""

from __future__ import annotations

from celery import shared_task

from analytics import rolling

#: A round begins nothing new after this; the next one goes on. Well below the time limit of tasks.
_ROUND_SECONDS = 120.0


@shared_task(name="analytics.tasks.roll_up", ignore_result=True)
def roll_up() -> None:
    """Brings the roll-ups in step with the record."""
    rolling.roll_up(seconds=_ROUND_SECONDS)
