"""O2: the database is stopped, blocked, slow or out of connections; the chat goes on, and every row lands later."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest

from chat.tests.faults.conftest import MAX_CONNECTIONS, SetStage
from chat.tests.faults.stage import Stage, resident_megabytes, wait_for_answers
from llmchat.tests.load import DIALECTS
from llmchat.tests.servers import PostgreSQL
from llmchat.tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

Trouble = Callable[[PostgreSQL], AbstractContextManager[None]]

DATABASE = "llmchat"
#: Answers that must come while the trouble lasts: more than were on their way when it began.
ANSWERS = 50
#: Bytes of a prompt that nobody can overlook in a process's memory.
LONG_PROMPT = 30_000
#: What a worker may weigh with all that it could not store.
MAX_MEGABYTES = 300
#: Impatient, so that a short trouble shows what a long one does.
IMPATIENT = {"COMMIT_PATIENCE_SECONDS": "1", "DATABASE_CONNECT_SECONDS": "1"}


@contextmanager
def stopped(postgresql: PostgreSQL) -> Iterator[None]:
    """As an operator stops it."""
    postgresql.stop()
    yield
    postgresql.start()


@contextmanager
def killed(postgresql: PostgreSQL) -> Iterator[None]:
    """As the machine's want of memory ends it."""
    postgresql.kill()
    yield
    postgresql.start()


@contextmanager
def locked(postgresql: PostgreSQL) -> Iterator[None]:
    """Another connection holds the table: statements hang."""
    with psycopg.connect(postgresql.database_url(DATABASE)) as other:
        other.execute("LOCK TABLE chat_interaction IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def slow(postgresql: PostgreSQL) -> Iterator[None]:
    """Every statement that stores interactions takes two seconds."""
    with psycopg.connect(postgresql.database_url(DATABASE), autocommit=True) as other:
        other.execute(
            "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$"
        )
        other.execute("CREATE TRIGGER dawdle AFTER INSERT ON chat_interaction EXECUTE FUNCTION dawdle()")
        yield
        other.execute("DROP FUNCTION dawdle CASCADE")


@contextmanager
def read_only(postgresql: PostgreSQL) -> Iterator[None]:
    """As after a failover to a standby: what reads works, what writes is refused."""
    with psycopg.connect(postgresql.database_url(DATABASE), autocommit=True) as other:
        other.execute(f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
        _hang_up_on_others(other)
        yield
        other.execute("SET default_transaction_read_only = off")
        other.execute(f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")
        _hang_up_on_others(other)


@contextmanager
def starved(postgresql: PostgreSQL) -> Iterator[None]:
    """Others hold all its connections."""
    url = postgresql.database_url(DATABASE)
    with ExitStack() as held:

        def grab() -> int:
            try:
                while True:
                    held.enter_context(psycopg.connect(url, application_name="others", autocommit=True))
                    taken.append(next(numbers))
            except psycopg.OperationalError:
                _hang_up_on_others(first)
                return len(taken) >= MAX_CONNECTIONS

        numbers = count()
        taken: list[int] = []
        first = held.enter_context(psycopg.connect(url, application_name="others", autocommit=True))
        taken.append(next(numbers))
        eventually(grab, wanted="all connections in other hands")
        yield


def _hang_up_on_others(connection: psycopg.Connection) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND application_name <> 'others' AND pid <> pg_backend_pid()"
    )


#: How often, for how many seconds at least, and what health has to say of it.
TROUBLES: list[tuple[Trouble, int, float, tuple[str, str]]] = [
    (stopped, 10, 60.0, ("database", "unreachable")),
    (killed, 10, 5.0, ("database", "unreachable")),
    (locked, 5, 5.0, ("record", "behind")),
    (slow, 5, 10.0, ("record", "behind")),
    (read_only, 5, 5.0, ("record", "behind")),
    (starved, 5, 5.0, ("database", "unreachable")),
]


@pytest.mark.parametrize(
    ("trouble", "rounds", "seconds", "finding"), [pytest.param(*case, id=case[0].__name__) for case in TROUBLES]
)
def test_answers_keep_coming_and_every_row_lands(
    set_stage: SetStage,
    postgresql: PostgreSQL,
    fault_rounds: Callable[[int], int],
    fault_seconds: Callable[[float], float],
    trouble: Trouble,
    rounds: int,
    seconds: float,
    finding: tuple[str, str],
) -> None:
    stage = set_stage(workers=2, postgresql=postgresql, environment=IMPATIENT)
    health = Health(stage)
    rounds = max(rounds // 5, fault_rounds(rounds))
    heaviest = 0.0
    during = []
    # A request id is answered once for all processes, which is for the database to say: who sends one waits for it.
    with (
        stage.load(connections=16, dialects=DIALECTS) as load,
        stage.load(connections=2, dialects=DIALECTS, keyed=1.0, name="keyed") as keyed,
    ):
        wait_for_answers(load, ANSWERS)
        for _ in range(rounds):
            health.expect("ok")
            with trouble(postgresql):
                before, until = len(load.answered), time.monotonic() + fault_seconds(seconds)
                wait_for_answers(load, ANSWERS)
                health.expect("degraded", finding)
                time.sleep(max(0.0, until - time.monotonic()))
                during.append(len(load.answered) - before)
                heaviest = max(heaviest, *_weights(stage))
            wait_for_answers(load, ANSWERS)
            wait_for_answers(keyed, 1)
        load.stop()
    stage.tell(f"{rounds} times {trouble.__name__}; answered meanwhile: {during}; heaviest worker: {heaviest:.0f} MB")
    calls = [*load.calls, *keyed.calls]
    unwell = [call.told for call in calls if call.ending != "done"]
    if unwell:
        stage.tell(f"not answered: {unwell}")
    assert unwell == []
    assert heaviest < MAX_MEGABYTES
    stage.close_the_books(calls)


def test_memory_does_not_grow_with_the_outage(
    set_stage: SetStage, postgresql: PostgreSQL, fault_rounds: Callable[[int], int]
) -> None:
    count = max(500, fault_rounds(2000))
    stage = set_stage(postgresql=postgresql, environment=IMPATIENT)
    [worker] = stage.web_workers()
    weights = []
    with stage.load(connections=8, padding=LONG_PROMPT) as load:
        wait_for_answers(load, ANSWERS)
        with stopped(postgresql):
            for _ in range(3):
                wait_for_answers(load, count)
                weights.append(resident_megabytes(worker))
        load.stop()
    texts = count * LONG_PROMPT / 2**20
    told = ", ".join(f"{weight:.0f}" for weight in weights)
    stage.tell(f"the worker's MB after {count}, {2 * count} and {3 * count} prompts of {LONG_PROMPT} bytes: {told}")
    assert load.statuses == {200: len(load.calls)}
    # What was begun with grows caches and pools; from then on nothing of what was said may stay.
    assert weights[2] - weights[1] < texts / 2
    stage.close_the_books(load.calls)


def test_keys_stay_valid_while_the_database_is_away(set_stage: SetStage, postgresql: PostgreSQL) -> None:
    stage = set_stage(workers=1, postgresql=postgresql, environment={**IMPATIENT, "API_KEY_CACHE_SECONDS": "0.5"})
    with stage.load(connections=4) as load:
        wait_for_answers(load, 20)
        with stopped(postgresql):
            # Longer than a key is kept without asking.
            wait_for_answers(load, 3 * ANSWERS)
        load.stop()
    assert load.statuses == {200: len(load.calls)}
    stage.close_the_books(load.calls)


class Health:
    """What `/v1/health` says, with details for a key that may see them and is known to both workers."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def expect(self, status: str, finding: tuple[str, str] | None = None) -> None:
        """Returns once it says that, each worker having been asked."""
        name, what = finding or ("database", "ok")

        def says_so() -> bool:
            said = self._ask()
            return said["status"] == status and said.get("dependencies", {}).get(name, {}).get("status") == what

        for _ in range(8):
            eventually(says_so, wanted=f"health {status}, {name} {what}")

    def _ask(self) -> dict[str, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._stage.server.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/v1/health", headers={"X-API-Key": self._stage.metrics_key})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer


def _weights(stage: Stage) -> list[float]:
    return [resident_megabytes(pid) for pid in stage.web_workers()]
