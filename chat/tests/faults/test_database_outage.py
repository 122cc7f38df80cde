"""O2: the database is stopped, blocked, slow or out of connections; the chat goes on, and every row lands later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count

import psycopg
import pytest

from chat.tests.faults.conftest import MAX_CONNECTIONS, SetStage
from chat.tests.faults.stage import Stage, resident_megabytes, wait_for_answers
from llmchat.tests.servers import PostgreSQL
from llmchat.tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

Trouble = Callable[[PostgreSQL], AbstractContextManager[None]]

DATABASE = "llmchat"
#: Answers that must come while the trouble lasts: more than were on their way when it began.
ANSWERS = 50
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


@pytest.mark.parametrize(
    ("trouble", "rounds"),
    [
        pytest.param(trouble, rounds, id=trouble.__name__)
        for trouble, rounds in [(stopped, 10), (killed, 10), (locked, 5), (slow, 5), (read_only, 5), (starved, 5)]
    ],
)
def test_answers_keep_coming_and_every_row_lands(
    set_stage: SetStage, postgresql: PostgreSQL, fault_rounds: Callable[[int], int], trouble: Trouble, rounds: int
) -> None:
    stage = set_stage(workers=2, postgresql=postgresql, environment=IMPATIENT)
    rounds = max(rounds // 5, fault_rounds(rounds))
    heaviest = 0.0
    during = []
    with stage.load(connections=16) as load:
        wait_for_answers(load, ANSWERS)
        for _ in range(rounds):
            with trouble(postgresql):
                before = len(load.answered)
                wait_for_answers(load, ANSWERS)
                during.append(len(load.answered) - before)
                heaviest = max(heaviest, *_weights(stage))
            wait_for_answers(load, ANSWERS)
        load.stop()
    stage.tell(f"{rounds} times {trouble.__name__}; answered meanwhile: {during}; heaviest worker: {heaviest:.0f} MB")
    assert load.statuses == {200: len(load.calls)}
    assert heaviest < MAX_MEGABYTES
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


def _weights(stage: Stage) -> list[float]:
    return [resident_megabytes(pid) for pid in stage.web_workers()]
