"""`manage.py apply_retention`: removes what plans keep no longer, as a task does every hour, or says what would go."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from chat import retention
from chat.models import Removal
from llmchat.lib.wording import counted


class Command(BaseCommand):
    help = (
        "Removes exchanges, and texts of exchanges, that are older than their organization's plan keeps them. May run "
        "beside a server at work, and be ended and begun again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="remove nothing, say what would go")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        waiting = retention.waits_for_roll_ups(timezone.now())
        found = False
        for removal in retention.apply(dry_run=dry_run, by="manage.py apply_retention"):
            found = True
            self.stdout.write(f"{'Would go: ' if dry_run else ''}{_said(removal)}")
        if waiting is not None:
            self.stdout.write(
                f"Exchanges from {waiting:%Y-%m-%d} on stay: what changed on that day is not rolled up yet. Background "
                "work rolls up; `manage.py roll_up` does it now."
            )
        elif not found:
            self.stdout.write("Nothing is past its retention.")


def _said(removal: Removal) -> str:
    where = f"partition {removal.partition}" if removal.partition else str(removal.organization)
    if removal.kind == Removal.Kind.TEXTS:
        parts = [f"texts of {counted(removal.interactions, 'interaction')}"]
    else:
        parts = [counted(removal.interactions, "exchange")]
    if removal.conversations:
        what = "title" if removal.kind == Removal.Kind.TEXTS else "conversation"
        parts.append(counted(removal.conversations, what))
    if removal.quarantined:
        parts.append(f"{removal.quarantined:,} in quarantine")
    return f"{where}: {', '.join(parts)}, from before {removal.before:%Y-%m-%d %H:%M}"
