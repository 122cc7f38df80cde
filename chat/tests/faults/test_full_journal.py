"""O4: the journal has no space left, by its bound or by the disk's: new requests are refused before anything is spent,
those under way end and are recorded, and it goes on by itself once there is space again."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import Stage, wait_for_answers
from llmchat.tests.calls import Call
from llmchat.tests.load import Load
from llmchat.tests.needs import lacking
from llmchat.tests.servers import PostgreSQL
from llmchat.tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

#: Streams that begin before the journal is full, and end when the vendor lets them.
LONG = "openai/mock-10000?delay=0.1&held=1"
STREAMS = 4
REFUSALS = 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte where the first server of the test will have its journal."""
    where = tmp_path / "server-0" / "data" / "journal"
    where.mkdir(parents=True)
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size=1m,mode=0700,uid={os.geteuid()},gid={os.getegid()}"
    mounted = _succeeds([*sudo, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)])
    if not mounted:
        lacking("no right to mount a small disk (remedy: run as root, or allow sudo without a password)")
    yield where
    # Lazily: a server that a failed test left behind may still have files there.
    subprocess.run([*sudo, "umount", "--lazy", str(where)], check=True)


def test_journal_at_its_bound_refuses_before_anything_is_spent(set_stage: SetStage, postgresql: PostgreSQL) -> None:
    stage = set_stage(
        postgresql=postgresql,
        environment={"JOURNAL_MAX_BYTES": str(2**20), "COMMIT_PATIENCE_SECONDS": "1", "DATABASE_CONNECT_SECONDS": "1"},
    )
    with stage.load(model=LONG, connections=STREAMS, streamed=1.0, count=STREAMS, name="long") as long:
        eventually(lambda: len(stage.upstream_calls_of_name("long")) == STREAMS, wanted="all streams begun")
        postgresql.stop()
        with stage.load(connections=4, name="filling", padding=30_000) as filling:
            refused = _refusals(filling)
            assert long.calls == []
            filling.stop()
        stage.upstream.release()
        long.finish()
        postgresql.start()
    _expect_refusals_that_cost_nothing(stage, refused)
    assert [call.ending for call in long.calls] == ["done"] * STREAMS
    _expect_answers_again(stage, [*long.calls, *filling.calls])


def test_full_disk_refuses_before_anything_is_spent(set_stage: SetStage, small_disk: Path) -> None:
    stage = set_stage()
    assert stage.journal == small_disk
    ballast = small_disk / "ballast"
    with stage.load(model=LONG, connections=STREAMS, streamed=1.0, count=STREAMS, name="long") as long:
        eventually(lambda: len(stage.upstream_calls_of_name("long")) == STREAMS, wanted="all streams begun")
        _fill(ballast)
        with stage.load(connections=4, name="filling") as filling:
            refused = _refusals(filling)
            assert long.calls == []
            filling.stop()
        stage.upstream.release()
        long.finish()
    assert shutil.disk_usage(small_disk).free == 0
    _expect_refusals_that_cost_nothing(stage, refused)
    assert [call.ending for call in long.calls] == ["done"] * STREAMS
    ballast.unlink()
    _expect_answers_again(stage, [*long.calls, *filling.calls])


def _refusals(load: Load) -> list[Call]:
    """Waits for some, and returns them."""

    def refused() -> list[Call]:
        return [call for call in load.calls if call.status == 503]

    eventually(lambda: len(refused()) >= REFUSALS, wanted=f"{REFUSALS} refusals")
    return refused()


def _expect_refusals_that_cost_nothing(stage: Stage, refused: list[Call]) -> None:
    assert [call for call in refused if not (call.retry_after or "").isdigit()] == []
    assert stage.upstream_calls_of(refused) == []


def _expect_answers_again(stage: Stage, before: list[Call]) -> None:
    """Without a restart; and nothing of what was before is lost."""
    with stage.load(connections=4, name="again") as again:
        wait_for_answers(again, 20)
        again.stop()
    stage.tell(f"before: {len(before)} calls, then: {again.statuses}")
    stage.close_the_books([*before, *again.calls])


def _fill(ballast: Path) -> None:
    """Leaves not a byte on its disk."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1024)):
            pass


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
