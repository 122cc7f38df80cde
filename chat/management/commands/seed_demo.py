"""`manage.py seed_demo`: believable demo data in bulk, to try llmchat with a full record."""

from __future__ import annotations

import datetime as dt
import shlex
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseTrouble
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from chat import changes, partitions
from chat.demo import bulk, months, story, world
from chat.demo.echoes import Echoes
from chat.demo.story import Plan, Teller
from chat.management.meter import Meter
from chat.models import Interaction
from llmchat.lib.wording import counted


class Command(BaseCommand):
    help = (
        "Fills the record with demo data: organizations on every plan, their people, conversations, failures, costs. "
        "The same --seed, --interactions, --days and --until give the same rows, and pass over what is there of them."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--interactions", type=int, required=True, metavar="N", help="how many")
        parser.add_argument("--days", type=int, default=90, metavar="D", help="over how many days (default: 90)")
        parser.add_argument("--seed", default="llmchat", help="what the data follow from (default: llmchat)")
        parser.add_argument("--until", metavar="MOMENT", help="when they end, such as 2026-05-31T14:00Z (default: now)")
        parser.add_argument("--into-existing", action="store_true", help="also where there are interactions already")

    def handle(self, *args: Any, **options: Any) -> None:
        plan = _plan(options)
        told_before = world.exists(seed=plan.seed, began=plan.began)
        if not told_before and not options["into_existing"] and Interaction.objects.exists():
            raise CommandError(
                "There are interactions on record already, and demo data are not told from real ones afterwards. Use "
                "an empty database; or go on with demo data that were not finished by their own --until and --seed; "
                "or, if a mixture is what you want, say --into-existing."
            )
        teller = Teller(plan, world.make(seed=plan.seed, began=plan.began, interactions=plan.interactions))
        began = time.monotonic()
        try:
            stored = self._seed(teller, begin=_first_missing(teller) if told_before else 0)
            partitions.make(plan.began, until=plan.ended)
        except (KeyboardInterrupt, DatabaseTrouble) as error:
            with suppress(DatabaseTrouble):
                changes.note_range(plan.began, plan.ended, now=timezone.now())
            again = ["manage.py", "seed_demo", f"--interactions={plan.interactions}", f"--days={options['days']}"]
            again += [f"--seed={plan.seed}", f"--until={plan.ended.isoformat()}"]
            reason = " ".join(str(error).split()) or "interrupted"
            raise CommandError(f"Not finished: {reason}. Go on with: {shlex.join(again)}") from error
        changes.note_range(plan.began, plan.ended, now=timezone.now())
        seconds = time.monotonic() - began
        partitions.analyze()
        self.stdout.write(
            f"{counted(stored, 'interaction')} of {counted(len(teller.world.tenants), 'organization')}, "
            f"{plan.began:%Y-%m-%d} to {plan.ended:%Y-%m-%d}, stored in {seconds:.1f} s "
            f"({stored / max(seconds, 0.001):,.0f} a second)."
        )

    def _seed(self, teller: Teller, *, begin: int) -> int:
        plan, echoes = teller.plan, Echoes(teller)
        fresh = months.fresh(plan.began, plan.ended)
        if fresh is not None and begin and teller.first_id(begin - 1) < fresh.first_id:
            # That chunk's end may be in the first month of these.
            begin -= 1
        elif fresh is not None and begin < plan.chunks and teller.first_id(begin) < fresh.first_id:
            # What is missing begins in a month that has rows.
            fresh = None
        if fresh is None:
            partitions.make(plan.began, until=plan.ended)
        before = min(begin * story.CHUNK, plan.interactions)
        meter = Meter(self.stderr, ("interaction", "interactions"), done=before)
        try:
            with bulk.writer(fresh) as writer:
                for number in range(begin, plan.chunks):
                    writer.write(echoes.tell(number))
                    done = min((number + 1) * story.CHUNK, plan.interactions)
                    meter.tell(done, done / plan.interactions)
        finally:
            meter.end()
        return plan.interactions - before


def _plan(options: dict[str, Any]) -> Plan:
    if options["interactions"] < 1:
        raise CommandError("--interactions must be at least 1.")
    if not 1 <= options["days"] <= 3650:
        raise CommandError("--days must be from 1 to 3650.")
    ended = timezone.now().replace(microsecond=0)
    if options["until"] is not None:
        try:
            moment = parse_datetime(options["until"])
        except ValueError:
            moment = None
        if moment is None:
            raise CommandError(f"--until {options['until']!r} is not a moment. Give one such as 2026-05-31T14:00Z.")
        ended = moment if timezone.is_aware(moment) else moment.replace(tzinfo=dt.UTC)
    began = ended - dt.timedelta(days=options["days"])
    return Plan(interactions=options["interactions"], began=began, ended=ended, seed=options["seed"])


def _first_missing(teller: Teller) -> int:
    """Chunks are stored in order, each as a whole."""
    low, high = 0, teller.plan.chunks
    while low < high:
        middle = (low + high) // 2
        if Interaction.objects.filter(id=UUID(int=teller.first_id(middle))).exists():
            low = middle + 1
        else:
            high = middle
    return low
