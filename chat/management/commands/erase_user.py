"""`manage.py erase_user`: erases one person's texts from the record, or only says how much there is of them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from accounts.management.naming import organization_named
from chat import erasure
from llmchat.lib.wording import counted


class Command(BaseCommand):
    help = (
        "Erases what one user of an organization said and was told: texts of interactions and attempts, conversations, "
        "exchanges in quarantine, exports in the admin. Tokens, costs and timings stay. May be repeated."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, metavar="NAME")
        parser.add_argument("--user", required=True, metavar="ID", help="as the organization's callers name it: userId")
        parser.add_argument("--dry-run", action="store_true", help="erase nothing, say what would be")

    def handle(self, *args: Any, organization: str, user: str, dry_run: bool, **options: Any) -> None:
        owner = organization_named(organization)
        erased = erasure.erase_person(owner, user, by="manage.py erase_user", dry_run=dry_run)
        removal = erased.removal
        verb = "Would be erased" if dry_run else "Erased"
        self.stdout.write(
            f"{verb} of {user} of {owner}: {counted(removal.interactions, 'interaction')}, "
            f"{counted(removal.conversations, 'conversation')}, "
            f"{counted(removal.quarantined, 'exchange')} in quarantine."
        )
        for export in erased.exports:
            self.stdout.write(
                f"{'Would be removed' if dry_run else 'Removed'}: the export {export.pk} of {export.owner}, which may "
                "hold their texts."
            )
        if waiting := erasure.in_journals(owner, user):
            self.stdout.write(
                f"Journals of running processes on this host hold {counted(waiting, 'exchange')} of theirs. Those go "
                "from the disk with the journals; to have them gone now, restart the server."
            )
