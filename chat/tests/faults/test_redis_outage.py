"""O3: Redis is stopped, frozen or flushed under load: no request is lost, no limit is waived, and all goes on by itself
once Redis is back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import Stage, wait_for_answers
from llmchat.tests.load import MIXED, Load
from llmchat.tests.servers import Redis
from llmchat.tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

Trouble = Callable[[Redis], AbstractContextManager[None]]

#: Calls of each customer that must end while the trouble lasts.
CALLS = 30


@contextmanager
def stopped(redis: Redis) -> Iterator[None]:
    redis.stop()
    yield
    redis.start()


@contextmanager
def frozen(redis: Redis) -> Iterator[None]:
    """It takes connections and answers nothing."""
    os.kill(redis.pid, signal.SIGSTOP)
    yield
    os.kill(redis.pid, signal.SIGCONT)


@contextmanager
def flushed(redis: Redis) -> Iterator[None]:
    """It comes back with nothing of what it knew."""
    redis.restart()
    yield


@pytest.mark.parametrize(
    ("trouble", "seconds"),
    [
        pytest.param(stopped, 10.0, id="stopped"),
        pytest.param(frozen, 90.0, id="frozen"),
        pytest.param(flushed, 0.0, id="flushed"),
    ],
)
def test_no_request_is_lost_and_no_limit_waived(
    set_stage: SetStage,
    redis: Redis,
    fault_rounds: Callable[[int], int],
    fault_seconds: Callable[[float], float],
    trouble: Trouble,
    seconds: float,
) -> None:
    stage = set_stage(workers=2, environment={"REDIS_URL": redis.url})
    key, url = _customer_with_a_limit(stage), stage.server.base_url
    with (
        stage.load(connections=8, name="unlimited", **MIXED) as unlimited,
        Load(url, key=key, model="openai/mock-1", connections=2, name="limited") as limited,
    ):
        for _ in range(max(1, fault_rounds(3))):
            wait_for_answers(unlimited, CALLS)
            wait_for_answers(limited, 1)
            with trouble(redis):
                until = time.monotonic() + fault_seconds(seconds)
                wait_for_answers(unlimited, CALLS)
                if trouble is not flushed:
                    _wait_for_refusals(limited, 2)
                time.sleep(max(0.0, until - time.monotonic()))
        wait_for_answers(unlimited, CALLS)
        wait_for_answers(limited, CALLS)
        unlimited.stop()
        limited.stop()
    stage.tell(f"Redis {trouble.__name__}; without a limit: {unlimited.statuses}, with one: {limited.statuses}")
    assert set(unlimited.statuses) == {200}
    refused = [call for call in limited.calls if call.status != 200]
    # Nobody can tell then how much of the hour is left: 503, before anything is spent.
    assert {(call.status, call.code) for call in refused} <= {(503, "limits_unavailable")}
    assert [call for call in refused if not (call.retry_after or "").isdigit()] == []
    assert stage.upstream_calls_of(refused) == []
    stage.close_the_books([*unlimited.calls, *limited.calls])


def _customer_with_a_limit(stage: Stage) -> str:
    stage.server.manage("create_organization", "Limited", "--plan", "enterprise")
    return stage.server.manage("create_api_key", "--organization", "Limited").strip()


def _wait_for_refusals(load: Load, count: int) -> None:
    """Returns when `count` more calls have been refused."""

    def refused() -> int:
        return sum(call.status == 503 for call in load.calls)

    aim = refused() + count
    eventually(lambda: refused() >= aim, wanted=f"{count} more refusals")
