"""`manage.py price_unpriced` is killed in the middle; what it did stands, and it goes on from there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import dropwhile, islice
from pathlib import Path

import pytest

from llmchat.tests.furnished import Migrated
from llmchat.tests.processes import ended
from llmchat.tests.servers import PROJECT, LiveServer

pytestmark = pytest.mark.timeout(600)

_ROWS = 2000
#: Fills a record whose rows lack their price, and sets it. A real process's own: it shares no transaction with a test.
_FILL = f"""
import datetime as dt, json
from decimal import Decimal
from django.utils import timezone
from analytics import rolling
from analytics.tests.test_repricing import a_model, used
from accounts.tests.factories import OrganizationFactory
from chat import rows
from providers import services
organization, model, now = OrganizationFactory.create(), a_model(), timezone.now()
for begin in range(0, {_ROWS}, 1000):
    rows.store([used(organization, now - dt.timedelta(seconds=60 + n)) for n in range(begin, begin + 1000)])
rolling.roll_up()
services.set_price(model, input_per_million=Decimal(2), output_per_million=Decimal(8),
                   effective_from=now - dt.timedelta(days=30), reason="the invoice came")
"""
#: The command with small batches, each of which it tells: it is killed in the middle of them on the slowest machine.
_TELLING = """
import time
from django.core.management import call_command
from chat import repricing
repricing.BATCH, repricing.PAUSE = 100, 0.05
do = repricing._do
def told(*arguments):
    done = do(*arguments)
    print("a batch", flush=True)
    return done
repricing._do = told
call_command("price_unpriced", model="acme-1")
"""
#: Rolls up, proves the record and tells how far the run is.
_STATE = """
import json
from django.core.management import call_command
from django.db.models import Sum
from chat.models import Attempt, Interaction, Repricing
call_command("roll_up")
call_command("verify_record")
run = Repricing.objects.get()
print(json.dumps([run.state, run.filled_interactions, Interaction.objects.exclude(cost=None).count(),
                  Attempt.objects.exclude(cost=None).exclude(price=None).count(),
                  f"{Interaction.objects.aggregate(all=Sum('cost'))['all'] or 0:.6f}"]))
"""


def test_a_killed_run_goes_on_and_the_books_are_right_all_along(tmp_path: Path, migrated: Migrated) -> None:
    place = LiveServer(tmp_path)
    place.environment |= migrated.copy(place.data)
    place.manage("shell", "-v", "0", "-c", _FILL, seconds=240)
    telling = subprocess.Popen(
        [sys.executable, "manage.py", "shell", "-v", "0", "-c", _TELLING],
        env=place.environment,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with ended(telling) as child:
        assert child.stdout is not None
        # It counts in batches too; only then it says what there is to do, and does it.
        lines = dropwhile(lambda line: not line.startswith(f"To be priced: {_ROWS:,} interactions"), child.stdout)
        assert [*islice(lines, 3)][1:] == ["a batch\n"] * 2
        child.send_signal(signal.SIGKILL)
    state, filled, interactions, attempts, _ = _state(place)
    assert state == "filling"
    assert 0 < filled == interactions == attempts < _ROWS

    said = place.manage("price_unpriced", "--model", "acme-1", seconds=240)
    assert said.splitlines() == [
        f"Going on after {filled:,} interactions.",
        f"Priced: {_ROWS:,} interactions with {_ROWS:,} attempts, $12.",
    ]
    assert _state(place) == ["done", _ROWS, _ROWS, _ROWS, "12.000000"]


def _state(place: LiveServer) -> list[object]:
    found: list[object] = json.loads(place.manage("shell", "-v", "0", "-c", _STATE, seconds=240).splitlines()[-1])
    return found
