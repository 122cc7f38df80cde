"""The stage of the fault tests. They start servers of their own in every run, since they stop and starve them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from chat.tests.faults.stage import Stage
from conftest import Serve
from llmchat.tests.environment import Services
from llmchat.tests.furnished import Furnished, furnish
from llmchat.tests.mock_upstream import MockUpstream
from llmchat.tests.needs import need
from llmchat.tests.servers import LiveServer, PostgreSQL, Redis, missing_programs

_TOLD = pytest.StashKey[list[tuple[str, str]]]()

#: Connections that the throw-away PostgreSQL allows: few, so that they can be used up.
MAX_CONNECTIONS = 24
_DATABASE = "llmchat"


class SetStage(Protocol):
    def __call__(
        self,
        *,
        workers: int = 1,
        postgresql: PostgreSQL | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Stage: ...


@pytest.fixture
def fault_seconds() -> Callable[[float], float]:
    """How long a fault lasts at least: the full time, or no longer than it takes under `FAULTS=short`."""
    return lambda full: 0.0 if os.environ.get("FAULTS") == "short" else full


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[MockUpstream]:
    with MockUpstream(tmp_path / "upstream") as running:
        yield running


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the data of a PostgreSQL lie that has Acme in it, and Acme's raw keys: each test takes a copy."""

    place: Path
    key: str
    metrics_key: str


@pytest.fixture(scope="session")
def furnished_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    need(missing_programs())
    place = tmp_path_factory.mktemp("furnished-postgresql")
    with PostgreSQL() as cluster:
        server = LiveServer(place, environment={"DATABASE_URL": cluster.create_database(_DATABASE)})
        server.manage("migrate", "--verbosity", "0")
        key, metrics_key = furnish(server)
        cluster.keep(place / "cluster")
    return Cluster(place=place / "cluster", key=key, metrics_key=metrics_key)


@pytest.fixture
def postgresql(furnished_postgresql: Cluster) -> Iterator[PostgreSQL]:
    """A PostgreSQL that the test may stop, starve and slow down."""
    # What it has committed must survive its own end, or nobody could tell who lost a row.
    with PostgreSQL(
        durable=True, settings={"max_connections": str(MAX_CONNECTIONS)}, origin=furnished_postgresql.place
    ) as running:
        yield running


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis that the test may stop, freeze and flush."""
    need(missing_programs())
    with Redis() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def either_database(request: pytest.FixtureRequest) -> PostgreSQL | None:
    """None for SQLite."""
    if request.param == "sqlite":
        return None
    running: PostgreSQL = request.getfixturevalue("postgresql")
    return running


@pytest.fixture
def set_stage(
    request: pytest.FixtureRequest,
    serve: Serve,
    furnished: Furnished,
    upstream: MockUpstream,
    services: Services | None,
) -> Iterator[SetStage]:
    """Starts llmchat between the vendor and the database, without PostgreSQL on SQLite.

    `environment` goes over the settings; several workers get a Redis, if that names none.
    """
    if services is not None:
        pytest.skip("the fault tests start servers of their own: run them without --services")
    told = request.config.stash.setdefault(_TOLD, [])

    def tell(line: str) -> None:
        told.append((request.node.name, line))

    with ExitStack() as ending:

        def start(
            *, workers: int = 1, postgresql: PostgreSQL | None = None, environment: Mapping[str, str] | None = None
        ) -> Stage:
            settings = {
                **upstream.environment,
                "DEFAULT_MODEL": "openai/mock-1",
                "LOG_LEVEL": "WARNING",
                **(environment or {}),
            }
            if workers > 1 and "REDIS_URL" not in settings:
                need(missing_programs())
                settings["REDIS_URL"] = ending.enter_context(Redis()).url
            if postgresql is not None:
                settings["DATABASE_URL"] = postgresql.database_url(_DATABASE)
            known: Furnished | Cluster = furnished
            if postgresql is not None:
                known = request.getfixturevalue("furnished_postgresql")
            server = serve("--workers", str(workers), "--no-background", environment=settings)
            return Stage(
                server=server,
                upstream=upstream,
                key=known.key,
                metrics_key=known.metrics_key,
                workers=workers,
                tell=tell,
            )

        yield start


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was counted: the suite's result is not only that nothing failed."""
    if told := config.stash.get(_TOLD, []):
        terminalreporter.section("faults")
        for test, line in told:
            terminalreporter.line(f"{test}: {line}")
