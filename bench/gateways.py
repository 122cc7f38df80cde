"""The vendor that all gateways have, and ours in front of it: started, asked, and what it wrote down."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import psycopg

from bench import machine
from bench.gateway import MODEL, WORDS, Gateway
from bench.starting import answers, started
from llmchat.tests.servers import PROJECT, LiveServer, PostgreSQL, free_port


@dataclass(frozen=True, slots=True)
class Upstream:
    """The vendor, running. `log` holds its calls when it was told to keep one."""

    port: int
    process: int
    log: Path | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self) -> int:
        """How many came so far."""
        return self._said("GET", "/calls")["calls"]

    def open_calls(self) -> int:
        """How many of them have not ended."""
        return self._said("GET", "/calls")["open"]

    def release(self) -> None:
        """Lets the streams end that are held."""
        self._said("POST", "/release")

    def _said(self, method: str, path: str) -> dict[str, int]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request(method, path)
            return dict(json.load(connection.getresponse()))

    def direct(self) -> Gateway:
        """Itself, to be asked like a gateway."""
        return Gateway("direct", "the vendor, asked directly", "", [], self.port, None)


@contextmanager
def upstream(directory: Path, *, cores: Sequence[int] = (), log: bool = False) -> Iterator[Upstream]:
    """The vendor of `bench/upstream.py`, on `cores` when some are given."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    calls = directory / "calls.jsonl" if log else None
    command = [sys.executable, "bench/upstream.py", "--port", str(port), *(["--log", str(calls)] if calls else [])]
    with started("upstream", command, directory, cores=cores, directory_of=PROJECT) as child:
        vendor = Upstream(port, child.pid, calls)
        child.wait_until(lambda: answers(vendor.direct()))
        yield vendor


@contextmanager
def ours(
    directory: Path,
    vendor: Upstream,
    *,
    name: str = "llmchat_sqlite",
    title: str = "llmchat, record on SQLite",
    cores: Sequence[int] = (),
    postgresql: PostgreSQL | None = None,
    redis_url: str | None = None,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
) -> Iterator[tuple[Gateway, LiveServer]]:
    """`manage.py serve` on fresh data, with the key of an organization on the plan `unlimited`.

    Every setting is the default, but for where the vendor, the database and Redis are, and `settings`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    environment = {"OPENAI_API_KEY": "mock", "OPENAI_BASE_URL": f"{vendor.url}/v1", "DEFAULT_MODEL": f"openai/{MODEL}"}
    if postgresql is not None:
        environment["DATABASE_URL"] = postgresql.create_database(name)
    if redis_url is not None:
        environment["REDIS_URL"] = redis_url
    environment |= settings or {}
    server = LiveServer(directory, environment=environment, arguments=["--workers", str(workers)])
    server.manage("migrate", "--verbosity", "0")
    server.manage("create_organization", "bench", "--plan", "unlimited")
    key = server.manage("create_api_key", "--organization", "bench").strip()
    with machine.pinned(cores or os.sched_getaffinity(0)):
        server.start()
    try:
        yield (
            Gateway(
                name=name,
                title=title,
                version=machine.commit(),
                command=[".venv/bin/python", "manage.py", "serve", "--workers", str(workers)],
                port=server.port,
                process=server.pid,
                headers={"Authorization": f"Bearer {key}"},
                models={model: f"openai/{model}" for model in WORDS},
                workers=workers,
                database=postgresql.pid if postgresql is not None else None,
                counted=lambda: counted(server),
            ),
            server,
        )
    finally:
        # It may stand still.
        for pid in machine.tree(server.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        server.stop()


def counted(server: LiveServer) -> tuple[int, int]:
    """Attempts and interactions on record, read from outside."""
    attempts, interactions = "SELECT COUNT(*) FROM chat_attempt", "SELECT COUNT(*) FROM chat_interaction"
    url = server.environment.get("DATABASE_URL")
    if url is None:
        with closing(sqlite3.connect(server.data / "llmchat.sqlite3", timeout=60)) as embedded:
            return embedded.execute(attempts).fetchone()[0], embedded.execute(interactions).fetchone()[0]
    with psycopg.connect(url) as connection:
        first, second = connection.execute(attempts).fetchone(), connection.execute(interactions).fetchone()
        assert first is not None
        assert second is not None
        return first[0], second[0]
