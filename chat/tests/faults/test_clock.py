"""O8: the clock steps back by an hour under a running server: ids stay unique and in order,
and an hour that is used up is not granted again."""

from __future__ import annotations

import http.client
import json
import time
from collections import Counter
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import Stage, wait_for_answers
from llmchat.tests import ledger
from llmchat.tests.needs import lacking
from llmchat.tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

CALLS = 20
#: Requests an hour of the plan Free.
HOURLY = 50


@pytest.fixture
def faketime() -> Path:
    """libfaketime, which tells a process another time than its machine has."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        lacking("libfaketime was not found (remedy: apt install faketime)")
    return found[0]


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """What the server's clock is told to show."""
    path = tmp_path / "clock"
    path.write_text("+0")
    return path


def _with_clock(clock: Path, faketime: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(faketime),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        # A machine's clock is set, its uptime is not.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def test_ids_stay_unique_and_in_order_when_the_clock_steps_back(
    set_stage: SetStage, faketime: Path, clock: Path
) -> None:
    stage = set_stage(environment=_with_clock(clock, faketime))
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


@pytest.mark.parametrize("workers", [1, 2])
def test_an_hour_that_is_used_up_is_not_granted_again_when_the_clock_steps_back(
    set_stage: SetStage, faketime: Path, clock: Path, workers: int
) -> None:
    stage = set_stage(workers=workers, environment=_with_clock(clock, faketime))
    limited = Limited(stage)
    # Not within the last minutes of the hour: the next one would be granted by right.
    of_the_hour_before = 0
    if limited.ask()[1] < 600:
        of_the_hour_before = 1
        _set(clock, "+15m")
        eventually(lambda: _seconds_behind(stage) < -600, wanted="a clock 15 min ahead")
    _, reset = limited.ask()
    assert reset >= 600
    while limited.ask()[0] == 200:
        pass
    granted = limited.statuses[200]
    assert granted - of_the_hour_before == HOURLY
    _step_back(clock, stage, hours=1)
    after = [limited.ask() for _ in range(20)]
    stage.tell(f"{workers} workers; an hour's {granted} requests, then the clock stepped back: {limited.statuses}")
    assert {status for status, _ in after} == {429}
    assert all(0 < reset <= 3600 for _, reset in after)
    assert len(ledger.interactions(stage.server)) == granted


class Limited:
    """A customer whose plan allows `HOURLY` requests, asking again and again, each time on a new connection."""

    def __init__(self, stage: Stage) -> None:
        self.statuses: Counter[int] = Counter()
        self._stage = stage
        stage.server.manage("create_organization", "Limited", "--plan", "free")
        self._key = stage.server.manage("create_api_key", "--organization", "Limited").strip()

    def ask(self) -> tuple[int, int]:
        """The status, and the seconds until the hour ends."""
        body = {"userId": "u", "prompt": "Hello", "model": "simulated/echo"}
        headers = {"X-API-Key": self._key, "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", self._stage.server.port, timeout=PATIENCE)) as connection:
            connection.request("POST", "/v1/chat", json.dumps(body), headers)
            response = connection.getresponse()
            response.read()
        self.statuses[response.status] += 1
        return response.status, int(response.headers["X-RateLimit-Reset"])


def _step_back(clock: Path, stage: Stage, *, hours: int) -> None:
    """Returns when the server's clock is that much behind ours."""
    _set(clock, f"-{hours}h")
    eventually(lambda: _seconds_behind(stage) > hours * 3600 - 60, wanted=f"a clock {hours} h behind")


def _set(clock: Path, to: str) -> None:
    draft = clock.with_suffix(".new")
    draft.write_text(to)
    # Whole at once: half a file would be another time.
    draft.replace(clock)


def _seconds_behind(stage: Stage) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", stage.server.port, timeout=PATIENCE)) as connection:
        connection.request("GET", "/v1/health/live")
        return time.time() - parsedate_to_datetime(connection.getresponse().headers["Date"]).timestamp()
