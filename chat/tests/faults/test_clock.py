"""O8: the clock steps back by an hour under a running server: ids stay unique and in order."""

from __future__ import annotations

import http.client
import os
import time
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import Stage, wait_for_answers
from llmchat.tests import ledger
from llmchat.tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

CALLS = 20


@pytest.fixture
def faketime() -> Path:
    """libfaketime, which tells a process another time than its machine has."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if found:
        return found[0]
    reason = "libfaketime was not found (remedy: apt install faketime)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def test_ids_stay_unique_and_in_order_when_the_clock_steps_back(
    set_stage: SetStage, faketime: Path, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    stage = set_stage(
        environment={
            "LD_PRELOAD": str(faketime),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            # A machine's clock is set, its uptime is not.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    )
    with stage.load(connections=1, name="in order") as load:
        wait_for_answers(load, CALLS)
        _step_back(clock, stage, hours=1)
        wait_for_answers(load, CALLS)
        load.stop()
    with stage.load(connections=16, name="at once") as crowd:
        wait_for_answers(crowd, CALLS)
        _step_back(clock, stage, hours=2)
        wait_for_answers(crowd, CALLS)
        crowd.stop()
    ids = [call.id or "" for call in load.calls]
    assert ids == sorted(ids)
    everybody = [*load.calls, *crowd.calls]
    assert len({call.id for call in everybody}) == len(everybody)
    assert {call.status for call in everybody} == {200}
    # In the order of their ids, the rows are in the order in which they were asked for.
    rows = [row.prompt for row in ledger.interactions(stage.server) if row.prompt.startswith("in order")]
    assert rows == [call.prompt for call in load.calls]
    stage.close_the_books(everybody)


def _step_back(clock: Path, stage: Stage, *, hours: int) -> None:
    """Returns when the server's clock is that much behind ours."""
    draft = clock.with_suffix(".new")
    draft.write_text(f"-{hours}h")
    # Whole at once: half a file would be another time.
    draft.replace(clock)
    eventually(lambda: _seconds_behind(stage) > hours * 3600 - 60, wanted=f"a clock {hours} h behind")


def _seconds_behind(stage: Stage) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", stage.server.port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/v1/health/live")
        return time.time() - parsedate_to_datetime(connection.getresponse().headers["Date"]).timestamp()
