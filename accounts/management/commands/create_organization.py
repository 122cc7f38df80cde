"""`manage.py create_organization NAME [--plan PLAN]` prints the new organization's id, and nothing else."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser

from accounts.management.naming import one_line, plan_named
from accounts.models import Organization
from accounts.services import DEFAULT_PLAN, create_organization


class Command(BaseCommand):
    help = "Creates an organization and prints its id."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--plan", default=DEFAULT_PLAN, help=f"The plan's slug (default: {DEFAULT_PLAN}).")

    def handle(self, *args: Any, name: str, plan: str, **options: Any) -> None:
        chosen = plan_named(plan)
        if Organization.objects.filter(name=name.strip()).exists():
            raise CommandError(
                f"There is an organization {name.strip()!r} already. Choose another name, or give it a key with: "
                f"manage.py create_api_key --organization {name.strip()!r}"
            )
        try:
            organization = create_organization(name, plan=chosen)
        except ValidationError as error:
            raise CommandError(f"This organization cannot be created. {one_line(error)}") from error
        self.stdout.write(str(organization.id))
