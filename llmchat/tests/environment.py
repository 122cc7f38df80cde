"""The world the tests run in, settled before Django reads its settings: nobody's `.env`, keys, proxies or data; with
`--services` also a PostgreSQL and a Redis of the run's own.

A pytest plugin, named in pytest.ini, since a conftest would come too late. It must not import Django or the product.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmchat.tests.servers import PROJECT, PostgreSQL, Redis, missing_programs


@dataclass(frozen=True, slots=True)
class Services:
    """The servers that the whole run shares. A test that stops a server starts one of its own."""

    postgresql: PostgreSQL
    redis: Redis


SERVICES = pytest.StashKey[Services]()
_CLOSING = pytest.StashKey[ExitStack]()

_USES_SERVICES = {"db", "transactional_db", "serve", "migrated", "furnished", "services"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--services", action="store_true", help="run on PostgreSQL and Redis, started for this run and ended with it"
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    # A run that is told to end (`timeout`, CI) cleans up as after Ctrl-C. A shell lets what it starts in the background
    # ignore Ctrl-C, and so would every program of the tests, for which it is meant.
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, signal.default_int_handler)
    closing = early_config.stash[_CLOSING] = ExitStack()
    early_config.add_cleanup(closing.close)
    isolate()
    data = tempfile.mkdtemp(prefix="llmchat-tests-")
    closing.callback(shutil.rmtree, data, ignore_errors=True)
    os.environ["DATA_DIR"] = data
    if early_config.known_args_namespace.services and not missing_programs():
        services = Services(postgresql=closing.enter_context(PostgreSQL()), redis=closing.enter_context(Redis()))
        early_config.stash[SERVICES] = services
        os.environ.update(DATABASE_URL=services.postgresql.url, REDIS_URL=services.redis.url)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> pytest.ExitCode | None:
    """Without the programs there is nothing to run: said as the run's last line, and in CI a failure."""
    if not config.getoption("services") or SERVICES in config.stash:
        return None
    sys.stderr.write(f"NOT tested on PostgreSQL and Redis: {'; '.join(missing_programs())}.\n")
    return pytest.ExitCode.USAGE_ERROR if os.environ.get("CI") == "true" else pytest.ExitCode.OK


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is the same with PostgreSQL and Redis need not be run again with them.

    Raises:
        pytest.UsageError: a test claims to be of that kind, and asks for a database.
    """
    once = [item for item in items if item.get_closest_marker("once")]
    for item in once:
        if _USES_SERVICES.intersection(getattr(item, "fixturenames", ())) or item.get_closest_marker("django_db"):
            raise pytest.UsageError(f"{item.nodeid} uses a database: it cannot be marked `once`")
    if SERVICES in config.stash and once:
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item.get_closest_marker("once") is None]


def pytest_report_header(config: pytest.Config) -> str:
    return (
        "services: PostgreSQL and Redis of this run"
        if SERVICES in config.stash
        else "services: none (SQLite, in process)"
    )


def isolate() -> None:
    """Take llmchat's settings, vendors' keys and addresses, and proxies out of this process's environment."""
    documented = documented_settings()
    for name in list(os.environ):
        if name in documented or name.upper().endswith(("_API_KEY", "_AUTH_TOKEN", "_BASE_URL", "_PROXY")):
            del os.environ[name]
    os.environ["ENV_FILE"] = os.devnull


def documented_settings(example: Path = PROJECT / ".env.example") -> set[str]:
    """The names that `.env.example` explains, whether set there or commented out."""
    return set(re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", example.read_text(encoding="utf-8"), flags=re.MULTILINE))
