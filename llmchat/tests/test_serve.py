"""`manage.py serve` as its operators meet it: real processes, real signals, real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from conftest import Serve
from llmchat.tests.environment import Services
from llmchat.tests.needs import lacking
from llmchat.tests.processes import children, is_running
from llmchat.tests.servers import PROJECT, LiveServer, Redis, ServerFailed, missing_programs

#: Without the local model, whose library is large: what is tested here has nothing to do with it.
LEAN = {"DEFAULT_MODEL": "simulated/echo"}
PATIENCE = 30.0


@pytest.fixture
def redis_url(services: Services | None) -> Iterator[str]:
    """A Redis for several workers, the run's own or one for this test."""
    if services is not None:
        yield services.redis.url
    elif missing := [line for line in missing_programs() if "redis" in line]:
        lacking(missing[0])
    else:
        with Redis() as redis:
            yield redis.url


def eventually(happens: Callable[[], Any]) -> Any:
    """The first true value of `happens()`; fails when patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while not (value := happens()):
        assert time.monotonic() < deadline, f"{happens} has not happened"
        time.sleep(0.02)
    return value


def get(server: LiveServer, path: str, *, key: str | None = None) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def ask(
    server: LiveServer, key: str, model: str, *, stream: bool = False
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    body = json.dumps({"userId": "u", "prompt": "Hello", "model": model, "stream": stream})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat", body, headers)
    return connection, connection.getresponse()


def lines_of(server: LiveServer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def active_requests(server: LiveServer) -> float:
    found = re.search(r"^llm_active_requests (\S+)$", get(server, "/metrics")[1], flags=re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_ready_line_is_written_once_requests_are_answered(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    eventually(lambda: server.base_url in server.log.read_text())
    ready = [line["event"] for line in lines_of(server) if "ready" in line["event"]]
    assert ready == [f"llmchat is ready on {server.base_url}"]


def test_every_line_of_the_log_is_a_json_object(serve: Serve) -> None:
    server = serve(environment=LEAN)
    get(server, "/v1/health?key=llmc_in-the-query")
    server.stop()
    requests = [line for line in lines_of(server) if line["event"] == "request"]
    assert [(line["method"], line["path"], line["status"]) for line in requests] == [("GET", "/v1/health", 200)]
    assert set(requests[0]) == {
        "event", "level", "logger", "timestamp", "request_id", "method", "path", "status", "duration_ms",
    }  # fmt: skip


@pytest.mark.parametrize("to_all", [False, True], ids=["SIGTERM", "Ctrl-C"])
def test_stopping_finishes_a_running_stream_and_leaves_nobody(serve: Serve, to_all: bool, acme_key: str) -> None:
    server = serve(environment=LEAN)
    everybody = [server.pid, *children(server.pid)]
    connection, response = ask(server, acme_key, "simulated/slow?delay=0.1&tokens=10", stream=True)
    with closing(connection):
        assert response.readline() == b"event: delta\n"
        if to_all:
            os.killpg(server.pid, signal.SIGINT)
        else:
            os.kill(server.pid, signal.SIGTERM)
        rest = response.read().decode()
    assert rest.count("event: delta") >= 8
    assert rest.count("event: done") == 1
    assert server.stop() == 0
    assert [pid for pid in everybody if is_running(pid)] == []
    assert [line for line in lines_of(server) if line["level"] in {"error", "critical"} or "exception" in line] == []


def test_stopping_gives_up_on_a_stream_after_the_grace(serve: Serve, acme_key: str) -> None:
    server = serve("--no-background", environment={**LEAN, "SHUTDOWN_GRACE_SECONDS": "1"})
    connection, response = ask(server, acme_key, "simulated/slow?delay=1&tokens=1000", stream=True)
    with closing(connection):
        assert response.readline() == b"event: delta\n"
        assert server.stop() == 0
    status = server.manage(
        "shell", "-c", "from chat.models import Interaction; print(Interaction.objects.get().status)"
    )
    assert status.splitlines()[-1] == "cancelled"


def test_second_ctrl_c_ends_at_once(serve: Serve, acme_key: str) -> None:
    server = serve("--no-background", environment=LEAN)
    everybody = [server.pid, *children(server.pid)]
    connection, response = ask(server, acme_key, "simulated/slow?delay=1&tokens=1000", stream=True)
    with closing(connection):
        response.readline()
        os.killpg(server.pid, signal.SIGINT)
        # The same key pressed again, not one press that was delivered twice.
        time.sleep(1.2)
        os.killpg(server.pid, signal.SIGINT)
        eventually(lambda: not server.alive)
    assert [pid for pid in everybody if is_running(pid)] == []


def test_killed_worker_is_replaced(serve: Serve, redis_url: str) -> None:
    server = serve("--workers", "2", "--no-background", environment={**LEAN, "REDIS_URL": redis_url})
    # Said once all workers are ready: one that ends before that is another story, told in other words.
    eventually(lambda: any("llmchat is ready" in line["event"] for line in lines_of(server)))
    before = eventually(lambda: len(children(server.pid)) == 2 and children(server.pid))
    for victim in before:
        os.kill(victim, signal.SIGKILL)
        assert get(server, "/v1/health/live")[0] == 200
    eventually(
        lambda: len(set(children(server.pid)) - set(before)) == 2 and not set(children(server.pid)) & set(before)
    )
    replaced = [line["event"] for line in lines_of(server) if "replaced" in line["event"]]
    assert sorted(replaced) == [f"web worker {number} ended with SIGKILL; it is replaced" for number in (1, 2)]


def test_nobody_outlives_a_killed_parent(serve: Serve) -> None:
    server = serve(environment={**LEAN, "REDIS_URL": ""})
    offspring = children(server.pid)
    assert len(offspring) == 2
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in offspring))


def test_metrics_are_the_sum_of_all_workers(serve: Serve, redis_url: str, acme_key: str) -> None:
    server = serve("--workers", "2", "--no-background", environment={**LEAN, "REDIS_URL": redis_url})
    workers = eventually(lambda: len(children(server.pid)) == 2 and children(server.pid))
    for asleep in workers:
        os.kill(asleep, signal.SIGSTOP)
        connection, response = ask(server, acme_key, "simulated/echo")
        with closing(connection):
            assert response.status == 200
        os.kill(asleep, signal.SIGCONT)
    series = 'llm_requests_total{model="simulated/echo",provider="simulated",status="succeeded",tier="unlimited"} 2.0'

    def is_told() -> bool:
        return series in get(server, "/metrics")[1].splitlines()

    # A worker that is not asked itself tells what it has counted a moment later.
    assert eventually(is_told)
    assert all(is_told() for _ in range(4))


def test_killed_worker_keeps_its_counts_but_nothing_in_flight(serve: Serve, acme_key: str) -> None:
    server = serve("--no-background", environment=LEAN)
    ask(server, acme_key, "simulated/echo")[0].close()
    connection, response = ask(server, acme_key, "simulated/slow?delay=1&tokens=1000", stream=True)
    with closing(connection):
        response.readline()
        assert active_requests(server) == 1.0
        (victim,) = children(server.pid)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: children(server.pid) not in ([], [victim]))
    assert eventually(lambda: active_requests(server) == 0.0)
    assert 'status="succeeded",tier="unlimited"} 1.0' in get(server, "/metrics")[1]


def test_background_work_is_done_without_a_broker(serve: Serve, metrics_key: str) -> None:
    server = serve(environment={**LEAN, "REDIS_URL": ""})
    found = eventually(
        lambda: (
            (body := json.loads(get(server, "/v1/health", key=metrics_key)[1]))["dependencies"]["background"][
                "lastRefresh"
            ]
            and body
        )
    )
    assert found["status"] == "ok"
    assert found["dependencies"]["providers"]["simulated"]["configured"] is True


def test_killed_background_worker_is_replaced(serve: Serve, metrics_key: str) -> None:
    server = serve(environment={**LEAN, "REDIS_URL": "", "HEALTH_REFRESH_SECONDS": "5"})

    def refreshed() -> str | None:
        moment: str | None = json.loads(get(server, "/v1/health", key=metrics_key)[1])["dependencies"]["background"][
            "lastRefresh"
        ]
        return moment

    eventually(refreshed)
    os.kill(children(server.pid)[-1], signal.SIGKILL)
    killed = refreshed()
    eventually(lambda: refreshed() != killed)
    assert server.stop() == 0


def test_worker_and_beat_of_their_own_do_the_work_with_redis(serve: Serve, redis_url: str, metrics_key: str) -> None:
    server = serve(environment={**LEAN, "REDIS_URL": redis_url, "HEALTH_REFRESH_SECONDS": "5"})
    assert len(children(server.pid)) == 1
    command = ["-m", "celery", "--app", "llmchat.celery", "worker", "--beat", "--pool", "solo", "--schedule"]
    worker = subprocess.Popen(
        [sys.executable, *command, str(server.data / "beat")],
        cwd=PROJECT,
        env=server.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(
            lambda: (
                json.loads(get(server, "/v1/health", key=metrics_key)[1])["dependencies"]["background"]["status"]
                == "ok"
            )
        )
    finally:
        worker.terminate()
        assert worker.wait(PATIENCE) == 0


def test_port_in_use_is_said_in_one_line(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    with pytest.raises(ServerFailed) as failure:
        server.manage("serve", "--port", str(server.port))
    assert str(failure.value).splitlines()[1:] == [
        f"CommandError: PORT={server.port} is in use on 127.0.0.1. Stop what uses it, or choose another with --port."
    ]


def test_wrong_host_is_said_in_one_line(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    with pytest.raises(ServerFailed) as failure:
        server.manage("serve", "--host", "192.0.2.1")
    assert str(failure.value).splitlines()[1:] == [
        "CommandError: HOST=192.0.2.1 is not an address of this machine. Set it to one, such as 127.0.0.1."
    ]


def test_several_workers_without_redis_are_refused(serve: Serve) -> None:
    server = serve("--no-background", environment={**LEAN, "REDIS_URL": ""})
    with pytest.raises(ServerFailed) as failure:
        server.manage("serve", "--port", "0", "--workers", "2")
    line = "2 web workers cannot count limits together without Redis. Set REDIS_URL, or WEB_WORKERS=1."
    assert str(failure.value).splitlines()[1:] == [f"CommandError: llmchat.E001: {line}"]


def test_database_without_migrations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed) as failure:
        LiveServer(tmp_path).manage("serve")
    assert re.fullmatch(
        r"CommandError: \d+ migrations are not applied to the database. Run `python manage.py migrate` first.",
        "\n".join(str(failure.value).splitlines()[1:]),
    )


def test_database_that_cannot_be_reached_is_said_in_one_line(tmp_path: Path) -> None:
    url = "postgres://nobody@127.0.0.1:1/nothing"
    with pytest.raises(ServerFailed) as failure:
        LiveServer(tmp_path, environment={"DATABASE_URL": url, "DATABASE_CONNECT_SECONDS": "1"}).manage("serve")
    said = str(failure.value).splitlines()[1:]
    assert len(said) == 1
    assert said[0].startswith("CommandError: The database of DATABASE_URL cannot be used: ")


def test_idle_worker_is_small_and_carries_no_vendors_library(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    (worker,) = children(server.pid)
    status = Path(f"/proc/{worker}/status").read_text()
    assert int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) < 160_000
    modules = "import sys; from llmchat.serve import web; web.preload(); print(sorted({'openai', 'anthropic', "
    modules += "'google.genai', 'xllamacpp', 'numpy'} & set(sys.modules)))"
    assert server.manage("shell", "--no-imports", "-c", modules).splitlines()[-1] == "[]"


def test_body_too_large_is_refused_before_it_is_sent(serve: Serve) -> None:
    server = serve("--no-background", environment={**LEAN, "MAX_BODY_BYTES": "2048"})
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as connection:
        connection.sendall(b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2049\r\n\r\n")
        answer = connection.makefile("rb").read().decode()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 413 ")
    assert "x-request-id: " in head
    assert json.loads(body)["error"]["code"] == "request_too_large"


def test_body_that_comes_too_slowly_is_given_up(serve: Serve) -> None:
    server = serve("--no-background", environment={**LEAN, "BODY_READ_SECONDS": "0.3"})
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as connection:
        connection.sendall(b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"], ids=["nothing", "half a header"])
def test_connection_without_a_request_is_closed(serve: Serve, sent: bytes) -> None:
    server = serve("--no-background", environment={**LEAN, "HEADER_READ_SECONDS": "0.3"})
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_connection_on_which_only_line_breaks_come_is_closed(serve: Serve) -> None:
    server = serve("--no-background", environment={**LEAN, "HEADER_READ_SECONDS": "0.3"})
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)) as connection:
        connection.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        closed = time.monotonic() + PATIENCE
        with contextlib.suppress(ConnectionError):
            connection.settimeout(0.1)
            while time.monotonic() < closed:
                connection.sendall(b"\r\n")
                with contextlib.suppress(TimeoutError):
                    if connection.recv(65536) == b"":
                        break
        assert time.monotonic() < closed


def test_static_files_of_the_admin_are_served_without_collecting(serve: Serve) -> None:
    status, body = get(serve("--no-background", environment=LEAN), "/static/admin/css/base.css")
    assert (status, "DJANGO Admin styles" in body) == (200, True)


def test_collected_static_files_have_hashed_names_and_stay_cached(serve: Serve, tmp_path: Path) -> None:
    server = serve("--no-background", environment={**LEAN, "STATIC_ROOT": str(tmp_path / "static")})
    server.stop()
    server.manage("collectstatic", "--no-input", "--verbosity", "0")
    server.start()
    link = re.search(r'href="(/static/[^"]+\.[0-9a-f]{12}\.css)"', get(server, "/admin/login/")[1])
    assert link
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("GET", link[1], headers={"Accept-Encoding": "gzip"})
        response = connection.getresponse()
        response.read()
    assert (response.status, response.headers["Content-Encoding"]) == (200, "gzip")
    assert response.headers["Cache-Control"] == "max-age=315360000, public, immutable"
