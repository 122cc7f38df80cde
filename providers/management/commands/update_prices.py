"""Fills the catalogue with the models and prices that are known without asking anyone."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llmchat.lib.wording import counted
from providers import services
from providers.price_list import SOURCE


class Command(BaseCommand):
    help = (
        f"Adds the models and prices of the installed price list ({SOURCE}), the local and the simulated models. Run "
        "again, it changes nothing; a price that has changed becomes a new version. Of tiers the base tier is taken."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="change nothing, tell what would be changed")
        parser.add_argument(
            "--overwrite-manual", action="store_true", help="also replace prices that people have set in the admin"
        )
        parser.add_argument("--quiet", action="store_true", help="say nothing when nothing has changed")

    def handle(self, *args: Any, dry_run: bool, overwrite_manual: bool, quiet: bool, **options: Any) -> None:
        filled = services.fill_catalogue(overwrite_manual=overwrite_manual, dry_run=dry_run)
        if quiet and not filled.changed:
            return
        parts = [
            f"{counted(filled.models_known, 'model')} known",
            f"{filled.models_added} added",
            f"{filled.models_completed} completed",
            f"{counted(filled.prices_added, 'price')} added",
        ]
        if filled.prices_withdrawn:
            parts.append(f"{counted(filled.prices_withdrawn, 'planned price')} withdrawn")
        if filled.manual_kept:
            parts.append(f"{filled.manual_kept} kept that people set (--overwrite-manual replaces them)")
        for line in filled.news:
            self.stdout.write(line)
        self.stdout.write(("Would be: " if dry_run else "") + ", ".join(parts) + ".")
