"""`manage.py verify_record`: proves that the record is right, or says which rows are wrong."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseTrouble

from chat import verification
from chat.verification import Breach, Checked, Window, invariants_on_record
from llmchat.lib.moments import utc_moment
from llmchat.lib.wording import counted

#: Exit code when the record could not be looked at, which says nothing about the record.
_NOT_VERIFIED = 2


class Command(BaseCommand):
    help = (
        "Checks every invariant of the record that data can show, and this host's journals. Names each row that breaks "
        "one, and changes nothing. Ends with 0 when all is right, with 1 when not, with 2 when it could not find out."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", metavar="MOMENT", help="only rows from then on: 2026-05-31 or 2026-05-31T14:00, UTC"
        )
        parser.add_argument("--until", metavar="MOMENT", help="only rows from before then")
        parser.add_argument(
            "--limit",
            type=int,
            default=20,
            metavar="N",
            help="rows named for each invariant (default: 20); all are counted",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        window = Window(since=utc_moment("--since", options["since"]), until=utc_moment("--until", options["until"]))
        began = time.monotonic()
        rows: Counter[str] = Counter()
        breaches: Counter[str] = Counter()
        named: list[Breach] = []
        try:
            for found in verification.verify(window):
                match found:
                    case Checked(subject, count):
                        rows[subject] += count
                    case Breach(invariant, row, what):
                        breaches[invariant] += 1
                        if breaches[invariant] > options["limit"]:
                            continue
                        if options["json"]:
                            named.append(found)
                        else:
                            self.stdout.write(f"{invariant}: {row}: {what}")
        except DatabaseTrouble as error:
            reason = " ".join(str(error).split())
            raise CommandError(f"The database cannot be read: {reason}", returncode=_NOT_VERIFIED) from error
        except OSError as error:
            raise CommandError(f"The journals cannot be read: {error}", returncode=_NOT_VERIFIED) from error
        seconds = time.monotonic() - began
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(rows, breaches, named, seconds=seconds, window=window), indent=2))
        else:
            self._sum_up(rows, breaches, seconds=seconds)
        if total := breaches.total():
            raise CommandError(f"The record is not right: {counted(total, 'breach', 'breaches')}.")

    def _sum_up(self, rows: Counter[str], breaches: Counter[str], *, seconds: float) -> None:
        self.stdout.write(f"{'invariant':<14}{'checked':>14}{'breaches':>10}")
        for invariant in invariants_on_record():
            counts = f"{rows[invariant.subject]:>14,}{breaches[invariant.name]:>10,}"
            self.stdout.write(f"{invariant.name:<14}{counts}  {invariant.says}")
        self.stdout.write(
            f"{counted(rows['interactions'], 'interaction')} with {counted(rows['attempts'], 'attempt')} "
            f"verified in {seconds:.1f} s."
        )


def _as_json(
    rows: Counter[str], breaches: Counter[str], named: list[Breach], *, seconds: float, window: Window
) -> dict[str, Any]:
    return {
        "since": window.since.isoformat() if window.since else None,
        "until": window.until.isoformat() if window.until else None,
        "seconds": round(seconds, 3),
        "invariants": [
            {
                "name": invariant.name,
                "says": invariant.says,
                "checked": rows[invariant.subject],
                "breaches": breaches[invariant.name],
            }
            for invariant in invariants_on_record()
        ],
        "breaches": [{"invariant": breach.invariant, "id": str(breach.row), "what": breach.what} for breach in named],
    }
