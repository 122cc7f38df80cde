"""Throw-away servers for tests: PostgreSQL, Redis and llmchat itself, as real processes on free loopback ports.

They are seen from outside only: nothing here may import Django or the product. Only processes started here are ever
ended, by their own id, and all of them are ended when the interpreter exits.
"""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

PROJECT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 8192


class ServerFailed(RuntimeError):
    """A throw-away server did not start or stop as told. The message ends with the last lines of its log."""


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def missing_programs() -> list[str]:
    """One line for each program that the PostgreSQL and Redis servers need and this machine lacks, with the remedy."""
    lines = []
    if _postgres_directory() is None:
        lines.append("PostgreSQL's initdb and postgres were not found (remedy: apt install postgresql)")
    if shutil.which("redis-server") is None:
        lines.append("redis-server was not found (remedy: apt install redis-server)")
    return lines


class Child:
    """One process in a session of its own, so that what it starts can be ended together with it.

    Args of `start`: the command, its whole environment, its working directory, the file its output is appended to, and
    the user it runs as (our own without one).
    """

    _running: set[Child] = set()

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerFailed("the server was not started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        user: pwd.struct_passwd | None = None,
    ) -> None:
        if self.alive:
            raise ServerFailed(f"{command[0]} is running already, as process {self.pid}")
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=directory,
                start_new_session=True,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        Child._running.add(self)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`.

        Raises:
            ServerFailed: the process ended first or the time is up; nothing is left of it then.
        """
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if not self.alive:
                code = self.kill()
                raise ServerFailed(f"the server ended with {code} while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(f"the server was not ready within {START_SECONDS:.0f} s\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def stop(self, sign: signal.Signals = signal.SIGTERM) -> int | None:
        """Send `sign` and wait for the end. Returns the exit code, negative for a signal; None if it never ran.

        Raises:
            ServerFailed: it did not end in time; it is killed then.
        """
        if self._process is None:
            return None
        if self.alive:
            self._process.send_signal(sign)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed(
                f"the server did not end within {STOP_SECONDS:.0f} s of {sign.name}\n{self.log_tail()}"
            ) from None
        return self.kill()

    def kill(self) -> int | None:
        """`kill -9` for the process and whatever is left of its group. Returns the exit code; None if it never ran."""
        if self._process is None:
            return None
        # The group outlives its leader while a member lives, and its id cannot be given to others until then; but once
        # all are gone it can.
        if self in Child._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        Child._running.discard(self)
        return code

    def log_tail(self) -> str:
        """The last lines of what the process wrote."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")

    @classmethod
    def kill_all(cls) -> None:
        for child in list(cls._running):
            child.kill()


atexit.register(Child.kill_all)


class PostgreSQL:
    """A PostgreSQL cluster of our own. Data survives `stop`, `kill` and `restart`; leaving the context removes it.

    Args:
        durable: commits reach the disk (fsync). Off by default: most tests need speed, not the truth after a power cut.
        settings: further server settings, such as `{"max_connections": "10"}`.
        origin: what `keep` has kept of another cluster, to begin with a copy of; an empty cluster otherwise.
    """

    def __init__(
        self, *, durable: bool = False, settings: Mapping[str, str] | None = None, origin: Path | None = None
    ) -> None:
        self.port = free_port()
        self._origin = origin
        self._settings = {
            "timezone": "UTC",
            "log_min_messages": "warning",
            **({} if durable else {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}),
            **(settings or {}),
        }
        self._user = _unprivileged_user()
        self._home = _private_directory("llmchat-postgresql-", self._user)
        self._child = Child(self._home / "log")
        atexit.register(self.close)

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        return f"postgresql://llmchat@127.0.0.1:{self.port}/{name}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Make a database, as a copy of `template` (to which nobody may be connected). Returns its address."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
            )
        return self.database_url(name)

    def start(self) -> None:
        programs = _postgres_directory()
        if programs is None:
            raise ServerFailed("; ".join(missing_programs()))
        data = self._home / "data"
        if not data.exists() and self._origin is not None:
            self._copy(self._origin, data)
        elif not data.exists():
            self._run(
                [
                    f"{programs}/initdb",
                    f"--pgdata={data}",
                    "--no-sync",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--auth=trust",
                    "--username=llmchat",
                ]
            )
        command = [f"{programs}/postgres", "-D", str(data), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + START_SECONDS
        while True:
            self._child.start(command, environment=_plain(), directory=self._home, user=self._user)
            try:
                return self._child.wait_until(self._answers)
            except ServerFailed as failure:
                # After `kill -9` the old server's children notice within moments; until then the data are refused.
                if "shared memory block" not in str(failure) or time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def stop(self) -> int | None:
        """End it as an operator would ("fast"): open transactions are rolled back, the data are written out."""
        return self._child.stop(signal.SIGINT)

    def kill(self) -> None:
        self._child.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def keep(self, place: Path) -> None:
        """End it, and leave its data at `place`, as the `origin` of others."""
        self.stop()
        shutil.copytree(self._home / "data", place)

    def _copy(self, origin: Path, data: Path) -> None:
        shutil.copytree(origin, data)
        if self._user is not None:
            for path in (data, *data.rglob("*")):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(
            command,
            env=_plain(),
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=self._user.pw_uid if self._user else None,
            group=self._user.pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"{command[0]} ended with {done.returncode}\n{done.stderr}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # "Immediate": nothing is written out, but unlike after `kill -9` its children are gone before the data are.
        self._child.stop(signal.SIGQUIT)
        shutil.rmtree(self._home, ignore_errors=True)
        atexit.unregister(self.close)


class Redis:
    """A Redis server of our own that keeps nothing on disk: `restart` is as good as a flush."""

    def __init__(self, *, databases: int = 1024) -> None:
        self.port = free_port()
        self._databases = databases
        self._home = _private_directory("llmchat-redis-", None)
        self._child = Child(self._home / "log")
        atexit.register(self.close)

    @property
    def url(self) -> str:
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        return f"redis://127.0.0.1:{self.port}/{number}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def start(self) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ServerFailed("; ".join(missing_programs()))
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "databases": self._databases,
            "appendonly": "no",
            "dir": self._home,
        }
        command = [program, "--save", ""]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self._child.start(command, environment=_plain(), directory=self._home)
        self._child.wait_until(self._answers)

    def stop(self) -> int | None:
        return self._child.stop()

    def kill(self) -> None:
        self._child.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._child.kill()
        shutil.rmtree(self._home, ignore_errors=True)
        atexit.unregister(self.close)


class LiveServer:
    """`manage.py serve` as its users run it, with a data directory of its own.

    Args:
        directory: an empty directory for its data and its log.
        environment: settings for this server; without `DATABASE_URL` it keeps its SQLite file in `directory`.
        arguments: more arguments for `serve`, such as `["--workers", "2"]`.
    """

    def __init__(
        self, directory: Path, *, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        self.data = directory / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self._arguments = list(arguments)
        self.environment = {
            **_plain(),
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(self.data),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self._child = Child(directory / "serve.log")

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.alive

    @property
    def log(self) -> Path:
        return self._child.log

    def log_tail(self) -> str:
        return self._child.log_tail() if self.log.exists() else ""

    def manage(self, *arguments: str, seconds: float = START_SECONDS) -> str:
        """Run one management command on this server's data, for `seconds` at most. Returns its standard output.

        Raises:
            ServerFailed: it ended with anything but 0; the message holds what it wrote on standard error.
        """
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self.environment,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            raise ServerFailed(f"manage.py {' '.join(arguments)} ended with {done.returncode}\n{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start and wait for the first answer. The database must have been migrated."""
        self._child.start(
            [sys.executable, "manage.py", "serve", *self._arguments], environment=self.environment, directory=PROJECT
        )
        self._child.wait_until(self._answers)

    def stop(self) -> int | None:
        """SIGTERM, and wait: running requests are finished first. Returns the exit code."""
        return self._child.stop()

    def kill(self) -> None:
        """`kill -9`, workers included."""
        self._child.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/v1/health/live")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()


def _plain() -> dict[str, str]:
    """What a program needs of our environment, and no setting of llmchat, no proxy, no key."""
    kept = {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "SYSTEMROOT",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
    }
    return {name: value for name, value in os.environ.items() if name in kept}


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom to become for PostgreSQL, which refuses to run as root; None where we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerFailed(
        "PostgreSQL refuses to run as root, and there is neither a user 'postgres' nor 'nobody' to run it"
    )


def _private_directory(prefix: str, owner: pwd.struct_passwd | None) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    if owner is not None:
        os.chown(directory, owner.pw_uid, owner.pw_gid)
    return directory


def _postgres_directory() -> Path | None:
    """Where the newest PostgreSQL server's programs are: Debian does not put them on the PATH."""
    candidates = []
    if (pg_config := shutil.which("pg_config")) is not None:
        asked = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(asked.stdout.strip()))
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    if (on_path := shutil.which("postgres")) is not None:
        candidates.append(Path(on_path).resolve().parent)
    return next(
        (
            directory
            for directory in candidates
            if (directory / "initdb").exists() and (directory / "postgres").exists()
        ),
        None,
    )


def _version(programs: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in programs.parent.name.split(".") if part.isdigit())
