"""`manage.py replay_journal`: brings the journals of dead processes into the database, now."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from chat import recovery
from chat.storing import UNUSABLE
from llmchat.lib.wording import counted


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
            f"{counted(report.journals, 'journal')} replayed: {counted(report.ended, 'exchange')} ended, "
            f"{report.interrupted:,} interrupted."
        )
        if report.complaints:
            left = counted(len(report.complaints), "record or file", "records or files")
            raise CommandError(f"Not replayed: {left}; see above.")
