"""The throw-away servers that other tests trust."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from llmchat.tests.needs import need
from llmchat.tests.processes import ended
from llmchat.tests.servers import PROJECT, Child, PostgreSQL, Redis, ServerFailed, missing_programs

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def _programs() -> None:
    need(missing_programs())


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


def rows(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT note FROM kept ORDER BY note").fetchall()


def write(url: str, note: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (note text)")
        connection.execute("INSERT INTO kept VALUES (%s)", [note])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_postgresql_keeps_its_data_through_stop_kill_and_restart() -> None:
    with PostgreSQL(durable=True) as server:
        write(server.url, "before the stop")
        server.stop()
        assert not listens(server.port)
        server.start()
        write(server.url, "before the kill")
        first = server.pid
        server.kill()
        assert not listens(server.port)
        server.start()
        write(server.url, "before the restart")
        server.restart()
        assert server.pid != first
        assert rows(server.url) == [("before the kill",), ("before the restart",), ("before the stop",)]
    assert not listens(server.port)


def test_two_postgresql_servers_share_nothing(postgresql: PostgreSQL) -> None:
    with PostgreSQL() as other:
        write(postgresql.url, "first")
        write(other.url, "second")
        assert (rows(postgresql.url), rows(other.url)) == ([("first",)], [("second",)])


def test_database_is_made_as_a_copy_of_its_template(postgresql: PostgreSQL) -> None:
    write(postgresql.create_database("origin"), "in the template")
    copy = postgresql.create_database("copy", template="origin")
    write(copy, "in the copy")
    assert rows(postgresql.database_url("origin")) == [("in the template",)]
    assert rows(copy) == [("in the copy",), ("in the template",)]


@pytest.mark.parametrize(("durable", "expected"), [(True, "on"), (False, "off")])
def test_durable_server_syncs_and_the_quick_one_does_not(*, durable: bool, expected: str) -> None:
    with (
        PostgreSQL(durable=durable, settings={"max_connections": "7"}) as server,
        psycopg.connect(server.url) as connection,
    ):
        shown = [
            connection.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit", "max_connections")
        ]
    assert shown == [(expected,), (expected,), ("7",)]


def test_postgresql_never_runs_as_root(postgresql: PostgreSQL) -> None:
    assert os.stat(f"/proc/{postgresql.pid}").st_uid != 0  # noqa: PTH116


def test_wrong_server_setting_fails_with_the_servers_own_words() -> None:
    with (
        pytest.raises(ServerFailed, match='unrecognized configuration parameter "no_such_setting"'),
        PostgreSQL(settings={"no_such_setting": "1"}),
    ):
        pass


def test_redis_answers_and_forgets_at_restart() -> None:
    with Redis() as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
            assert client.get("key") == b"value"
        with redis.Redis.from_url(server.database_url(1023)) as client:
            assert client.get("key") is None
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") is None
        server.kill()
        assert not listens(server.port)


def test_two_redis_servers_share_nothing() -> None:
    with (
        Redis() as one,
        Redis() as other,
        redis.Redis.from_url(one.url) as writer,
        redis.Redis.from_url(other.url) as reader,
    ):
        writer.set("key", "value")
        assert reader.dbsize() == 0


def test_child_that_ends_while_starting_fails_with_its_log(tmp_path: Path) -> None:
    child = Child(tmp_path / "log")
    child.start([sys.executable, "-c", "print('no room'); raise SystemExit(3)"], environment={}, directory=tmp_path)
    with pytest.raises(ServerFailed, match=r"(?s)ended with 3 while starting.*no room"):
        child.wait_until(lambda: False)


def test_kill_ends_what_the_child_started(tmp_path: Path) -> None:
    program = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    child = Child(tmp_path / "log")
    child.start([sys.executable, "-c", program], environment={"PATH": os.environ["PATH"]}, directory=tmp_path)
    child.wait_until(lambda: child.log_tail().endswith("\n"))
    grandchild = int(child.log_tail())
    assert child.kill() == -signal.SIGKILL
    # The signal is sent; the kernel takes its moment. One that was not sent is a test that hangs, and fails for it.
    while state(grandchild) not in {"gone", "Z"}:
        time.sleep(0.01)


def state(pid: int) -> str:
    """The letter of the process's state, or "gone"."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def test_nothing_is_left_when_the_interpreter_is_interrupted(tmp_path: Path) -> None:
    program = (
        "import time\n"
        "from llmchat.tests.servers import PostgreSQL, Redis\n"
        "database, cache = PostgreSQL(), Redis()\n"
        "database.start(); cache.start()\n"
        "print(database.port, cache.port, flush=True)\n"
        "time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    started = subprocess.Popen(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with ended(started) as run:
        assert run.stdout is not None
        ports = [int(word) for word in run.stdout.readline().split()]
        assert [listens(port) for port in ports] == [True, True]
        run.send_signal(signal.SIGINT)
        run.wait(60)
    assert [listens(port) for port in ports] == [False, False]
    assert list(tmp_path.iterdir()) == []
