"""The guards of the test run themselves: what conftest and the environment plugin promise must really fail."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from blockbuster import BlockingError
from django.conf import settings
from django.core.cache import cache
from pytest_socket import SocketConnectBlockedError

from llmchat.tests.environment import SERVICES, documented_settings, isolate, pytest_collection_modifyitems
from llmchat.tests.servers import PROJECT

#: Beneath a file of the product, as far as the guard can see, whatever this file is.
PRODUCT_FILE = str(PROJECT / "llmchat" / "made_up.py")


def blocking_call_of_the_product() -> None:
    exec(compile("import time; time.sleep(0.01)", PRODUCT_FILE, "exec"), {})


async def test_blocking_call_beneath_the_product_fails_on_the_loop() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        blocking_call_of_the_product()


async def test_blocking_call_beneath_the_product_is_free_to_run_in_a_thread() -> None:
    await asyncio.to_thread(blocking_call_of_the_product)


async def test_blocking_call_of_a_test_is_its_own_affair() -> None:
    time.sleep(0.01)  # noqa: ASYNC251


def test_blocking_call_without_a_loop_is_free() -> None:
    blocking_call_of_the_product()


def test_no_test_reaches_another_machine() -> None:
    with (
        pytest.warns(UserWarning, match=r"192\.0\.2\.1"),
        pytest.raises(SocketConnectBlockedError, match=r"192\.0\.2\.1"),
        socket.create_connection(("192.0.2.1", 443), timeout=1),
    ):
        pass


async def test_no_asynchronous_test_reaches_another_machine() -> None:
    with (
        pytest.warns(UserWarning, match=r"192\.0\.2\.1"),
        pytest.raises(SocketConnectBlockedError, match=r"192\.0\.2\.1"),
    ):
        await asyncio.open_connection("192.0.2.1", 443)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_loopback_is_open(host: str) -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(host, server.sockets[0].getsockname()[1])
        assert await reader.read() == b"here"
        writer.close()
        await writer.wait_closed()


def test_cache_is_empty_at_the_start_and_stays_in_this_run() -> None:
    assert cache.get("left-behind") is None
    cache.set("left-behind", "value")


test_cache_is_empty_again_in_the_next_test = test_cache_is_empty_at_the_start_and_stays_in_this_run


def test_settings_of_the_machine_do_not_reach_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "DATABASE_URL": "x",
        "PORT": "1",
        "SOME_VENDOR_API_KEY": "x",
        "https_proxy": "x",
        "OPENAI_BASE_URL": "x",
        "UNRELATED": "kept",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    isolate()
    assert {name: os.environ.get(name) for name in given} == {**dict.fromkeys(given), "UNRELATED": "kept"}
    assert os.environ["ENV_FILE"] == os.devnull


def test_documented_settings_are_read_set_or_commented_out(tmp_path: Path) -> None:
    example = tmp_path / ".env.example"
    example.write_text(
        "# SECRET_KEY is not this line.\n# SECRET_KEY=\n#DEBUG=true\nPORT=8000\n\n# HOST = no\n", encoding="utf-8"
    )
    assert documented_settings(example) == {"SECRET_KEY", "DEBUG", "PORT"}


def test_data_directory_is_the_runs_own() -> None:
    assert PROJECT not in settings.DATA_DIR.parents


def test_what_has_nothing_to_do_with_services_is_run_without_them(request: pytest.FixtureRequest) -> None:
    request.node.add_marker(pytest.mark.once)
    items = [request.node]
    pytest_collection_modifyitems(request.config, items)
    assert items == ([] if SERVICES in request.config.stash else [request.node])


@pytest.mark.django_db
def test_test_with_a_database_cannot_be_marked_as_one_that_has_nothing_to_do_with_it(
    request: pytest.FixtureRequest,
) -> None:
    request.node.add_marker(pytest.mark.once)
    with pytest.raises(pytest.UsageError, match="uses a database"):
        pytest_collection_modifyitems(request.config, [request.node])


@pytest.mark.once
def test_programs_of_tests_mind_ctrl_c_although_the_run_was_started_to_ignore_it(tmp_path: Path) -> None:
    path = tmp_path / "test_it.py"
    path.write_text(
        "import signal, subprocess\n"
        "def test_it():\n"
        "    child = subprocess.Popen(['sleep', '100'])\n"
        "    child.send_signal(signal.SIGINT)\n"
        "    try: assert child.wait(20) == -signal.SIGINT\n"
        "    finally: child.kill()\n"
    )
    plugin = "--override-ini=addopts=-p llmchat.tests.environment -p no:cacheprovider"
    command = [sys.executable, "-m", "pytest", "--noconftest", "-c", str(PROJECT / "pytest.ini"), plugin, str(path)]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.once
@pytest.mark.parametrize(("ci", "code"), [("true", 4), ("", 0)])
def test_missing_services_are_said_in_the_last_line_and_fail_only_in_ci(ci: str, code: int, tmp_path: Path) -> None:
    environment = {**os.environ, "CI": ci, "PATH": str(tmp_path)}
    hide = "from llmchat.tests import servers; servers.missing_programs = lambda: ['no Redis (remedy: buy one)']"
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{hide}; import pytest; raise SystemExit(pytest.main(['--services', '--collect-only', '-q']))",
        ],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr.splitlines()[-1]) == (
        code,
        "NOT tested on PostgreSQL and Redis: no Redis (remedy: buy one).",
    )
