"""`manage.py replay_journal`: brings the journals of dead processes into the database, now."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from chat import recovery
from chat.storing import UNUSABLE


class Command(BaseCommand):
    help = (
        "Stores what processes that died had in their journals: answers that had ended, and calls that had begun as "
        "interrupted. Journals of living processes are left alone; what is stored already stays as it is. "
        "A starting server does the same."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            report = recovery.replay(settings.JOURNAL_DIR)
        except UNUSABLE as error:
            raise CommandError(f"The database cannot be used; the journals stay as they are: {error}") from error
        for complaint in report.complaints:
            self.stderr.write(complaint)
        self.stdout.write(
            f"{report.journals} journals replayed: {report.ended} exchanges ended, {report.interrupted} interrupted."
        )
        if report.complaints:
            raise CommandError(f"{len(report.complaints)} records or files could not be replayed; see above.")
