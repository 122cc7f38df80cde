"""`manage.py apply_retention`: removes what plans keep no longer, as a task does every hour, or says what would go."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from chat import retention
from chat.models import Removal


class Command(BaseCommand):
    help = (
        "Removes exchanges, and texts of exchanges, that are older than their organization's plan keeps them. May run "
        "beside a server at work, and be ended and begun again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="remove nothing, say what would go")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        found = False
        for removal in retention.apply(dry_run=dry_run, by="manage.py apply_retention"):
            found = True
            self.stdout.write(f"{'Would go: ' if dry_run else ''}{_said(removal)}")
        if not found:
            self.stdout.write("Nothing is past its retention.")


def _said(removal: Removal) -> str:
    where = f"partition {removal.partition}" if removal.partition else str(removal.organization)
    what = "texts" if removal.kind == Removal.Kind.TEXTS else "exchanges"
    parts = (
        [f"{what} of {removal.interactions:,} interactions"]
        if what == "texts"
        else [f"{removal.interactions:,} {what}"]
    )
    if removal.conversations:
        parts.append(f"{removal.conversations:,} {'titles' if what == 'texts' else 'conversations'}")
    if removal.quarantined:
        parts.append(f"{removal.quarantined:,} in quarantine")
    return f"{where}: {', '.join(parts)}, from before {removal.before:%Y-%m-%d %H:%M}"
