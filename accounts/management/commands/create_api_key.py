"""`manage.py create_api_key --organization NAME ...` prints the raw key, and nothing else. It is not shown again."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.management.naming import one_line, organization_named
from accounts.models import APIKey
from accounts.services import DEFAULT_SCOPES, create_api_key

_LONGEST_DAYS = 36_500


class Command(BaseCommand):
    help = "Creates an API key and prints it. It cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, metavar="NAME")
        parser.add_argument("--name", default="default", help="What people call the key.")
        parser.add_argument("--budget", metavar="USD", help="How much the key may spend (default: no limit).")
        parser.add_argument(
            "--scopes",
            nargs="+",
            default=sorted(DEFAULT_SCOPES),
            metavar="SCOPE",
            help=f"Any of {', '.join(APIKey.Scope.values)} (default: {' '.join(sorted(DEFAULT_SCOPES))}).",
        )
        parser.add_argument("--expires-days", metavar="N", help="Days until the key ends (default: never).")

    def handle(
        self,
        *args: Any,
        organization: str,
        name: str,
        budget: str | None,
        scopes: list[str],
        expires_days: str | int | None,
        **options: Any,
    ) -> None:
        chosen = organization_named(organization)
        if unknown := sorted(set(scopes) - set(APIKey.Scope.values)):
            raise CommandError(f"There is no scope {unknown[0]!r}. There are: {', '.join(APIKey.Scope.values)}.")
        try:
            _, raw = create_api_key(
                chosen,
                name=name,
                scopes=set(scopes),
                budget_usd=_dollars(budget),
                expires_at=timezone.now() + timedelta(days=_days(expires_days)) if expires_days is not None else None,
            )
        except ValidationError as error:
            raise CommandError(f"This key cannot be created. {one_line(error)}") from error
        self.stdout.write(raw)


def _dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise CommandError(f"--budget {text!r} is not an amount of US dollars. Give a number such as 25 or 0.50.")
    return amount


def _days(text: str | int) -> int:
    try:
        days = int(text)
    except ValueError:
        days = 0
    if not 1 <= days <= _LONGEST_DAYS:
        raise CommandError(f"--expires-days {text!r} is not a number of days. Give one from 1 to {_LONGEST_DAYS}.")
    return days
