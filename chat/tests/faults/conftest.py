"""The stage of the fault tests. They start servers of their own in every run, since they stop and starve them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from chat.tests.faults.stage import Stage
from conftest import Serve
from llmchat.tests.environment import Services
from llmchat.tests.mock_upstream import MockUpstream
from llmchat.tests.servers import LiveServer, PostgreSQL, Redis, missing_programs

_TOLD = pytest.StashKey[list[tuple[str, str]]]()

#: Connections that the throw-away PostgreSQL allows: few, so that they can be used up.
MAX_CONNECTIONS = 24


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


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL that the test may stop, starve and slow down."""
    _require_programs()
    # What it has committed must survive its own end, or nobody could tell who lost a row.
    with PostgreSQL(durable=True, settings={"max_connections": str(MAX_CONNECTIONS)}) as running:
        yield running


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis that the test may stop, freeze and flush."""
    _require_programs()
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
    request: pytest.FixtureRequest, serve: Serve, upstream: MockUpstream, services: Services | None, tmp_path: Path
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
                _require_programs()
                settings["REDIS_URL"] = ending.enter_context(Redis()).url
            if postgresql is not None:
                settings["DATABASE_URL"] = postgresql.create_database("llmchat")
                LiveServer(tmp_path / "migrating", environment=settings).manage("migrate", "--verbosity", "0")
            server = serve("--workers", str(workers), "--no-background", environment=settings)
            server.manage("create_organization", "Acme", "--plan", "unlimited")
            key = server.manage("create_api_key", "--organization", "Acme").strip()
            return Stage(server=server, upstream=upstream, key=key, workers=workers, tell=tell)

        yield start


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was counted: the suite's result is not only that nothing failed."""
    if told := config.stash.get(_TOLD, []):
        terminalreporter.section("faults")
        for test, line in told:
            terminalreporter.line(f"{test}: {line}")


def _require_programs() -> None:
    if missing := missing_programs():
        if os.environ.get("CI") == "true":
            pytest.fail("; ".join(missing))
        pytest.skip("; ".join(missing))
