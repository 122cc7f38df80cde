"""`manage.py erase_user`: erases one person's texts from the record, or only says how much there is of them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from accounts.management.naming import organization_named
from chat import erasure


class Command(BaseCommand):
    help = (
        "Erases what one user of an organization said and was told: texts of interactions and attempts, conversations, "
        "exchanges in quarantine. Tokens, costs and timings stay. May be repeated."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, metavar="NAME")
        parser.add_argument("--user", required=True, metavar="ID", help="as the organization's callers name it: userId")
        parser.add_argument("--dry-run", action="store_true", help="erase nothing, say what would be")

    def handle(self, *args: Any, organization: str, user: str, dry_run: bool, **options: Any) -> None:
        owner = organization_named(organization)
        removal = erasure.erase_person(owner, user, by="manage.py erase_user", dry_run=dry_run).removal
        verb = "Would be erased" if dry_run else "Erased"
        self.stdout.write(
            f"{verb} of {user} of {owner}: {removal.interactions:,} interactions, "
            f"{removal.conversations:,} conversations, {removal.quarantined:,} exchanges in quarantine."
        )
        if waiting := erasure.in_journals(owner, user):
            self.stdout.write(
                f"Journals of running processes on this host hold {waiting:,} exchanges of theirs. These go from "
                "the disk with the journals; to have them gone now, restart the server."
            )
