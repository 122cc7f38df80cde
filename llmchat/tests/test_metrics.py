"""`/metrics`: who may read it; the directory that several processes count in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from accounts.models import APIKey
from accounts.tests.factories import APIKeyFactory
from accounts.tests.fixtures import Person
from llmchat.lib import metrics
from llmchat.tests.servers import PROJECT

ELSEWHERE = "203.0.113.9"


@pytest.mark.django_db
async def test_allowed_address_needs_no_key_and_no_database(async_client: AsyncClient) -> None:
    response = await async_client.get("/metrics", headers={"Authorization": "Bearer wrong"})
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")
    assert b"# TYPE llm_active_requests gauge" in response.content


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0", "text/html", "*/*"])
async def test_scraper_gets_text_whatever_it_prefers(accept: str, async_client: AsyncClient) -> None:
    response = await async_client.get("/metrics", headers={"Accept": accept})
    assert (response.status_code, response["Content-Type"].partition(";")[0]) == (200, "text/plain")


async def test_other_address_needs_a_key(client_elsewhere: AsyncClient) -> None:
    response = await client_elsewhere.get("/metrics")
    assert (response.status_code, response.json()["error"]["code"]) == (401, "missing_api_key")


@pytest.mark.django_db(transaction=True)
async def test_key_needs_the_scope(client_elsewhere: AsyncClient, member: Person) -> None:
    response = await client_elsewhere.get("/metrics", headers=member.headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "insufficient_scope")


@pytest.mark.django_db(transaction=True)
async def test_key_with_the_scope_may_read(client_elsewhere: AsyncClient, scraper: str) -> None:
    response = await client_elsewhere.get("/metrics", headers={"Authorization": f"Bearer {scraper}"})
    assert (response.status_code, response["Content-Type"].partition(";")[0]) == (200, "text/plain")


@pytest.mark.parametrize(
    ("allowed", "address", "status"),
    [
        ("203.0.113.0/24", "203.0.113.9", 200),
        ("203.0.113.0/24", "203.0.114.9", 401),
        ("203.0.113.9", "203.0.113.9", 200),
        ("2001:db8::/32", "2001:db8::1", 200),
        ("2001:db8::/32", "203.0.113.9", 401),
    ],
)
async def test_networks_are_allowed(
    settings: Settings, async_client: AsyncClient, allowed: str, address: str, status: int
) -> None:
    settings.METRICS_ALLOWED_ADDRESSES = [allowed]
    settings.TRUSTED_PROXIES = 1
    response = await async_client.get("/metrics", headers={"X-Forwarded-For": address})
    assert response.status_code == status


async def test_header_of_a_client_does_not_make_its_address(client_elsewhere: AsyncClient) -> None:
    response = await client_elsewhere.get("/metrics", headers={"X-Forwarded-For": ELSEWHERE})
    assert response.status_code == 401


@pytest.fixture
def client_elsewhere(async_client: AsyncClient, settings: Settings) -> AsyncClient:
    """A client whose address, 127.0.0.1, is not allowed to."""
    settings.METRICS_ALLOWED_ADDRESSES = [ELSEWHERE]
    return async_client


@pytest.fixture
def scraper(member: Person) -> str:
    key = APIKeyFactory.create(organization=member.organization, scopes=[APIKey.Scope.METRICS])
    raw: str = key.raw
    return raw


def run(script: str, directory: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_directory_is_fresh_and_those_of_the_dead_are_cleared_away(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    alive = str(os.getpid())
    for name in (str(ended.pid), alive):
        (tmp_path / name).mkdir()
        (tmp_path / name / "counter_1.db").touch()
    script = (
        "import os, sys, pathlib; from llmchat.lib import metrics; base = pathlib.Path(sys.argv[1]);"
        "directory = metrics.begin(base); from prometheus_client import Counter; Counter('x', 'x').inc();"
        "print(sorted(path.name.replace(str(os.getpid()), 'own') for path in base.rglob('*')));"
        "metrics.end(directory); print(sorted(path.name for path in base.iterdir()))"
    )
    assert run(script, tmp_path).splitlines() == [
        str(sorted(["counter_1.db", "counter_own.db", alive, "own"])),
        str([alive]),
    ]


def test_counting_cannot_begin_once_the_library_has_chosen(tmp_path: Path) -> None:
    import prometheus_client  # noqa: F401

    with pytest.raises(RuntimeError, match="imported already"):
        metrics.begin(tmp_path)


def test_counters_of_a_process_that_is_gone_stay_and_its_gauges_go(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from llmchat.lib import metrics; metrics.begin(pathlib.Path(sys.argv[1]));"
        "from prometheus_client import Counter, Gauge; c = Counter('c', 'c');"
        "g = Gauge('g', 'g', multiprocess_mode='livesum');"
        "pid = os.fork();\n"
        "if pid == 0: c.inc(2); g.set(5); os._exit(0)\n"
        "os.waitpid(pid, 0); c.inc(); g.set(1); metrics.forget(pid); print(metrics.exposition()[0].decode())"
    )
    values = [line for line in run(script, tmp_path).splitlines() if line and not line.startswith("#")]
    assert sorted(values) == ["c_total 3.0", "g 1.0"]


def test_files_have_all_their_room_before_they_are_written_to(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from llmchat.lib import metrics; metrics.begin(pathlib.Path(sys.argv[1]));"
        "from prometheus_client import Counter; c = Counter('c', 'c', ['name']);\n"
        "for number in range(2000): c.labels(f'{number:0100}').inc()\n"
        "print(metrics.exposition()[0].decode().count('c_total{'))"
    )
    assert run(script, tmp_path) == "2000\n"
    [file] = tmp_path.rglob("counter_*.db")
    assert file.stat().st_size > 2000 * 100
    assert file.stat().st_blocks * 512 >= file.stat().st_size


@pytest.mark.parametrize("room", [1000, 100_000], ids=["at the beginning", "later"])
def test_a_full_disk_stops_no_counting_process(tmp_path: Path, room: int) -> None:
    script = (
        "import resource, sys, pathlib; from llmchat.lib import metrics; metrics.begin(pathlib.Path(sys.argv[1]));"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}));"
        "from prometheus_client import Counter; c = Counter('c', 'c', ['name']);\n"
        "for number in range(2000): c.labels(f'{number:0100}').inc(2)\n"
        "print(sum(child._value.get() for child in c._metrics.values()), type(metrics.exposition()[0]).__name__)"
    )
    assert run(script, tmp_path) == "4000.0 bytes\n"


def test_metrics_lie_in_memory_in_a_private_place_for_each_data_directory(tmp_path: Path) -> None:
    if not metrics.SHARED_MEMORY.is_dir():
        pytest.skip("there is no /dev/shm")
    places = [metrics.place(tmp_path / name) for name in ("one", "two", "one")]
    try:
        assert places[0] == places[2] != places[1]
        assert {place.parent for place in places} == {metrics.SHARED_MEMORY}
        assert [place.stat().st_mode & 0o777 for place in places] == [0o700] * 3
    finally:
        for place in {*places}:
            place.rmdir()


def test_a_place_that_is_not_ours_alone_is_not_used(tmp_path: Path) -> None:
    if not metrics.SHARED_MEMORY.is_dir():
        pytest.skip("there is no /dev/shm")
    wanted = tmp_path / "metrics"
    place = metrics.place(wanted)
    try:
        place.chmod(0o755)
        assert metrics.place(wanted) == wanted
        place.rmdir()
        place.symlink_to(tmp_path)
        assert metrics.place(wanted) == wanted
    finally:
        if place.is_symlink():
            place.unlink()
        else:
            place.rmdir()


def test_without_memory_to_write_to_metrics_lie_on_the_disk(tmp_path: Path) -> None:
    assert metrics.place(tmp_path, memory=tmp_path) == tmp_path


def test_a_server_counts_in_memory_and_leaves_nothing_there(serve: Any) -> None:
    if not metrics.SHARED_MEMORY.is_dir():
        pytest.skip("there is no /dev/shm")
    server = serve("--no-background")
    place = metrics.place(server.data.resolve() / "run" / "metrics")
    assert [directory.name for directory in place.iterdir()] == [str(server.pid)]
    assert list(place.rglob("gauge_livesum_*.db"))
    server.stop()
    assert not place.exists()


def test_setting_django_up_imports_nothing_that_counts() -> None:
    """The admin is imported then, and `serve` says only later in which directory its processes count."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys, django; django.setup(); print('prometheus_client' in sys.modules)"],
        cwd=PROJECT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "llmchat.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout == "False\n"
