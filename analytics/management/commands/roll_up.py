"""`manage.py roll_up`: brings the roll-ups in step with the record, now."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from analytics import rolling
from llmchat.lib.moments import utc_moment
from llmchat.lib.wording import counted


class Command(BaseCommand):
    help = (
        "Rolls up what has changed since the last time, and closes hours, days and months that are over. Background "
        "work does the same every few seconds; both may run at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--rebuild", action="store_true", help="roll up everything anew, from the rows; what is sealed stays"
        )
        parser.add_argument(
            "--since", metavar="MOMENT", help="with --rebuild: only from then on: 2026-05-31 or 2026-05-31T14:00, UTC"
        )
        parser.add_argument(
            "--seal",
            metavar="MOMENT",
            help="then keep the roll-ups of the days before as they are: for rows that are about to be deleted",
        )

    def handle(self, *args: Any, rebuild: bool, since: str | None, seal: str | None, **options: Any) -> None:
        if since is not None and not rebuild:
            raise CommandError("--since goes with --rebuild.")
        before, first = utc_moment("--seal", seal), utc_moment("--since", since)
        if rebuild:
            rolling.rebuild(since=first)
        report = rolling.roll_up()
        self.stdout.write(
            f"Rolled up: {counted(report.minutes, 'minute')}, {counted(report.hours, 'hour')}, "
            f"{counted(report.days, 'day')}, {counted(report.months, 'month')}."
        )
        if before is not None:
            self._seal(before)

    def _seal(self, before: dt.datetime) -> None:
        try:
            until = rolling.seal(before)
        except ValueError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Sealed: what is rolled up of before {until.isoformat()} stays as it is.")
