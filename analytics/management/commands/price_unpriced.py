"""`manage.py price_unpriced`: prices what was used before its price was known, or says what that would be."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from analytics import unpriced
from audit import actors
from chat import repricing
from chat.models import Repricing
from llmchat.lib.wording import counted
from providers.models import LanguageModel


class Command(BaseCommand):
    help = (
        "Prices interactions and attempts of a model that have no price, by the versions of its price that are on "
        "record now: each by the one in force when it began. What has a price keeps it. May be ended at any moment; "
        "the background worker goes on with it, or the command does when it is called again. To set a price that "
        "begins in the past, use Unpriced use in the admin."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--model", required=True, metavar="NAME", help="as the catalogue calls it")
        parser.add_argument("--reason", default="manage.py price_unpriced", help="goes into the audit trail")
        parser.add_argument("--dry-run", action="store_true", help="price nothing, say what would be")

    def handle(self, *args: Any, model: str, reason: str, dry_run: bool, **options: Any) -> None:
        row = LanguageModel.objects.filter(name=model).first()
        if row is None:
            raise CommandError(f"There is no model {model!r}. The admin lists them under Models.")
        if not row.prices.exists():
            raise CommandError(f"No price of {model} is known. Set one in the admin, or run update_prices.")
        run = _filling(row)
        if run is None:
            run = self._count(row, reason)
            self.stdout.write(
                f"{'Would be priced' if dry_run else 'To be priced'}: "
                f"{counted(run.counted_interactions, 'interaction')} with "
                f"{counted(run.counted_attempts, 'attempt')}, ${run.counted_cost.normalize():f}."
            )
            if dry_run or not run.counted_attempts:
                repricing.cancel(run)
                return
            run = repricing.agree(run)
        elif dry_run:
            so_far = counted(run.filled_interactions, "interaction")
            raise CommandError(f"{model} is being priced already: {so_far} so far.")
        else:
            self.stdout.write(f"Going on after {counted(run.filled_interactions, 'interaction')}.")
        run = self._work(run)
        self.stdout.write(
            f"{run.get_state_display()}: {counted(run.filled_interactions, 'interaction')} with "
            f"{counted(run.filled_attempts, 'attempt')}, ${run.filled_cost.normalize():f}."
        )

    def _count(self, model: LanguageModel, reason: str) -> Repricing:
        run = repricing.begin(model, draft=None, reason=reason, by=actors.current().name[:150])
        return self._work(run)

    def _work(self, run: Repricing) -> Repricing:
        state, before = run.state, None
        # A server's worker may go on with the same run: then this one only looks on.
        while run.state == state and (run.turn, run.position) != before:
            before = run.turn, run.position
            run = unpriced.work(run)
        return run


def _filling(model: LanguageModel) -> Repricing | None:
    return repricing.under_way().filter(model=model, state=Repricing.State.FILLING).first()
