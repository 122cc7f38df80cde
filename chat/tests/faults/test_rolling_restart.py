"""O5: SIGTERM under load, to one worker after the other and to the whole server: no accepted request fails."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import Stage, wait_for_answers
from llmchat.tests import ledger
from llmchat.tests.load import MIXED, Load
from llmchat.tests.servers import PostgreSQL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_told_to_stop_fail_nobody(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int], workers: int
) -> None:
    stage = set_stage(workers=workers, postgresql=either_database)
    rounds = max(5, fault_rounds(40)) // workers + 1
    with stage.load(connections=16, **MIXED) as load:
        for _ in range(rounds):
            for worker in stage.web_workers():
                wait_for_answers(load, 10)
                stage.end_worker(worker, signal.SIGTERM)
        wait_for_answers(load, 20)
        load.stop()
    stage.tell(f"{workers * rounds} workers replaced; statuses: {load.statuses}")
    # Not even a connection that was just opened, or kept and just used again, is closed under a request.
    assert [call for call in load.calls if call.ending != "done" or call.tries > 1 or call.cut_on] == []
    stage.close_the_books(load.calls)


def test_server_that_is_told_to_stop_finishes_what_it_accepted(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int]
) -> None:
    stage = set_stage(workers=2, postgresql=either_database)
    rounds = max(5, fault_rounds(10))
    with stage.load(connections=16, **MIXED) as load:
        for _ in range(rounds):
            wait_for_answers(load, 40)
            assert stage.server.stop() == 0, stage.server.log_tail()
            assert stage.left_in_journal() == []
            stage.server.start()
        wait_for_answers(load, 40)
        load.stop()
    stage.tell(f"{rounds} restarts; statuses: {load.statuses}")
    assert unanswered_of_accepted(stage, load) == []
    # Whoever keeps a connection is told which answer is its last.
    assert [call for call in load.calls if "kept" in call.cut_on] == []
    stage.close_the_books(load.calls)


def test_server_that_ends_while_a_killed_worker_is_replaced_leaves_nothing_behind(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int]
) -> None:
    stage = set_stage(workers=2, postgresql=either_database)
    chance = random.Random(1)
    rounds = max(3, fault_rounds(20))
    with stage.load(connections=16, **MIXED) as load:
        for _ in range(rounds):
            wait_for_answers(load, 20)
            stage.end_worker(chance.choice(stage.web_workers()), signal.SIGKILL)
            # Its successor is forked, starts, or is at work already.
            time.sleep(chance.uniform(0.0, 0.3))
            assert stage.server.stop() == 0, stage.server.log_tail()
            assert stage.left_in_journal() == []
            stage.server.start()
        wait_for_answers(load, 20)
        load.stop()
    stage.tell(f"{rounds} times ended with one worker killed; statuses: {load.statuses}")
    stage.close_the_books(load.calls)


def unanswered_of_accepted(stage: Stage, load: Load) -> list[str]:
    """Calls without an answer of which the vendor or the record knows. A connection that is closed before anything is
    taken from it is nobody's failure: clients ask again."""
    known = {call.prompt for call in stage.upstream.calls()} | {row.prompt for row in ledger.interactions(stage.server)}
    return [
        f"{call.prompt}: {call.status} {call.ending} {call.code or ''}"
        for call in load.calls
        if call.ending != "done" and (call.prompt in known or call.status is not None)
    ]
