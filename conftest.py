"""What every test stands on: no blocking of the event loop, an empty cache, real servers and a real browser.

Rows and people come from the factories in each app's tests.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from blockbuster import blockbuster_ctx
from django.core.cache import cache
from django.db import connections
from django.urls import get_resolver

from chat import durability
from llmchat.lib import redis_clients, steady
from llmchat.tests import furnished as furnished_databases
from llmchat.tests.environment import SERVICES, Services
from llmchat.tests.furnished import Furnished, Migrated
from llmchat.tests.needs import lacking
from llmchat.tests.servers import LiveServer
from providers import catalogue

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytest_plugins = ["accounts.tests.fixtures"]

_LIVE_SERVERS = pytest.StashKey[list[LiveServer]]()
_OURS = ["llmchat", "audit", "accounts", "providers", "chat", "analytics"]


class Serve(Protocol):
    def __call__(self, *arguments: str, environment: dict[str, str] | None = None) -> LiveServer: ...


@pytest.fixture(autouse=True)
def nothing_of_ours_blocks_the_event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """In asynchronous tests a call that blocks the loop (file, lock, socket, SQLite) beneath our code is an error."""
    if not inspect.iscoroutinefunction(request.function):
        yield
        return
    # The imports behind the URLs read files; a server has them done before its first request.
    get_resolver().url_patterns  # noqa: B018
    with blockbuster_ctx(_OURS, excluded_modules=[f"{package}.tests" for package in _OURS]) as guard:
        # By design: a journal record goes to the page cache on the loop, which is cheaper than a thread hop.
        guard.functions["os.write"].can_block_in("chat/journal.py", "_append")
        yield


@pytest.fixture(autouse=True)
def empty_cache() -> None:
    """Counters, cached keys and answers of one test never reach the next; nor does its catalogue or its clock."""
    cache.clear()
    steady.forget()
    catalogue.forget()


@pytest.fixture(autouse=True)
def no_connection_to_redis_is_left(request: pytest.FixtureRequest) -> None:
    """An asynchronous test's connections end with its event loop."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("closing_redis")


@pytest_asyncio.fixture
async def closing_redis() -> AsyncIterator[None]:
    yield
    await redis_clients.aclose_all()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """As pytest-django's; and no connection is left in the thread from which asynchronous tests use the database."""
    yield
    durability.close()
    asyncio.run(sync_to_async(connections.close_all)())


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Services | None:
    """The PostgreSQL and Redis of this run; None on the embedded default. Do not stop them: start your own."""
    return pytestconfig.stash.get(SERVICES, None)


@pytest.fixture(scope="session")
def migrated(services: Services | None, tmp_path_factory: pytest.TempPathFactory) -> Migrated:
    """Empty, for tests that fill it themselves."""
    return furnished_databases.migrated(tmp_path_factory.mktemp("migrated"), services)


@pytest.fixture(scope="session")
def furnished(migrated: Migrated, tmp_path_factory: pytest.TempPathFactory) -> Furnished:
    """What live servers begin with."""
    return furnished_databases.furnished(tmp_path_factory.mktemp("furnished"), migrated)


@pytest.fixture
def acme_key(furnished: Furnished) -> str:
    """The raw key of Acme, which every server of `serve` knows."""
    return furnished.key


@pytest.fixture
def metrics_key(furnished: Furnished) -> str:
    """Another one of Acme's, for nothing but metrics and health."""
    return furnished.metrics_key


@pytest.fixture
def serve(request: pytest.FixtureRequest, furnished: Furnished, tmp_path: Path) -> Iterator[Serve]:
    """Starts `manage.py serve` with a furnished database of its own, on what this run tests.

    Arguments go to `serve`, `environment` overrides its settings. Its log is shown when the test fails; it is ended
    with the test.
    """
    started: list[LiveServer] = request.node.stash.setdefault(_LIVE_SERVERS, [])
    with ExitStack() as ending:

        def start(*arguments: str, environment: dict[str, str] | None = None) -> LiveServer:
            server = LiveServer(tmp_path / f"server-{len(started)}", arguments=arguments)
            server.environment.update({**furnished.copy(server.data), **(environment or {})})
            started.append(server)
            return ending.enter_context(server)

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for server in item.stash.get(_LIVE_SERVERS, []):
            report.sections.append((f"log of the server at {server.base_url}", server.log_tail()))
    return report


@pytest_asyncio.fixture
async def chromium() -> AsyncIterator[Browser]:
    """A browser of the test's own, asynchronous: Playwright's other interface leaves a loop behind in the thread."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        lacking("Chromium was not found (remedy: apt install chromium)")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # Chromium's own sandbox refuses to run as root, as containers of CI do.
        browser = await playwright.chromium.launch(executable_path=program, chromium_sandbox=os.geteuid() != 0)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def fault_rounds() -> Callable[[int], int]:
    """How often a fault is injected: the full number, or one in ten (at least one) under `FAULTS=short`."""
    return lambda full: max(1, full // 10) if os.environ.get("FAULTS") == "short" else full
