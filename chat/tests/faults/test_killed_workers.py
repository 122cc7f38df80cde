"""O1: workers die by `kill -9` at random moments, and the books are right all the same."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable

import pytest

from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import wait_for_answers
from llmchat.tests.load import MIXED
from llmchat.tests.servers import PostgreSQL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]


def test_killed_workers_leave_every_call_on_record_once(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int]
) -> None:
    stage = set_stage(workers=2, postgresql=either_database)
    chance = random.Random(1)
    kills = fault_rounds(50)
    with stage.load(connections=16, **MIXED) as load:
        for _ in range(kills):
            wait_for_answers(load, chance.randint(1, 60))
            stage.end_worker(chance.choice(stage.web_workers()), signal.SIGKILL)
        wait_for_answers(load, 20)
        load.stop()
    stage.tell(f"{kills} workers killed; statuses: {load.statuses}")
    assert {call.ending for call in load.calls} == {"done", "cut"}
    stage.close_the_books(load.calls)


def test_killed_server_leaves_every_call_on_record_once(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int]
) -> None:
    stage = set_stage(workers=2, postgresql=either_database)
    kills = max(2, fault_rounds(10))
    with stage.load(connections=16, **MIXED) as load:
        for _ in range(kills):
            wait_for_answers(load, 20)
            stage.server.kill()
            stage.server.start()
        wait_for_answers(load, 20)
        load.stop()
    stage.tell(f"the whole server killed {kills} times; statuses: {load.statuses}")
    stage.close_the_books(load.calls)
