"""A web worker that is told to end, as its clients and its parent see it: real processes and raw connections."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from conftest import Serve
from llmchat.serve.protocol import DRAIN_SECONDS
from llmchat.tests.processes import children, is_running
from llmchat.tests.servers import PROJECT, LiveServer

LEAN = {"DEFAULT_MODEL": "simulated/echo"}
LIVE = b"GET /v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def head_of_answer(connection: socket.socket) -> bytes:
    """The head of the next answer; its body, a short one, is read as well."""
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, f"the connection was closed after {received!r}"
        received += piece
    return received.partition(b"\r\n\r\n")[0]


def eventually(happens: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (value := happens()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def workers(server: LiveServer) -> list[int]:
    return [pid for pid in children(server.pid) if is_running(pid)]


def leave(server: LiveServer) -> int:
    """Tells the only worker to end; returns once another one is at work beside or instead of it."""
    (worker,) = workers(server)
    os.kill(worker, signal.SIGTERM)
    eventually(lambda: any(pid != worker for pid in workers(server)))
    return worker


#: SIGTERM before there is a loop: where uvicorn asks what makes one.
EARLY = """
import os, signal, socket, uvicorn
import django; django.setup()
from llmchat.lib import supervisor
from llmchat.serve.web import WebServer

class Config(uvicorn.Config):
    def get_loop_factory(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().get_loop_factory()

async def application(scope, receive, send):
    pass

class Parent:
    def ready(self): print("ready")
    def leaving(self): print("leaving")

signal.signal(signal.SIGTERM, supervisor._leave)
config = Config(application, loop="asyncio", lifespan="off", log_config=None)
WebServer(config, parent=Parent()).run(sockets=[socket.create_server(("127.0.0.1", 0))])
"""


def test_worker_that_is_told_to_end_in_its_first_moments_does_so_without_a_complaint() -> None:
    environment = {**os.environ, **LEAN, "DJANGO_SETTINGS_MODULE": "llmchat.settings"}
    ended = subprocess.run(
        [sys.executable, "-c", EARLY], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ready\nleaving\n", "")


@pytest.mark.parametrize("asked_before", [True, False], ids=["kept", "new"])
def test_request_on_an_idle_connection_is_answered_and_told_to_be_the_last(serve: Serve, asked_before: bool) -> None:
    server = serve("--no-background", environment=LEAN)
    with closing(connect(server)) as connection:
        if asked_before:
            connection.sendall(LIVE)
            assert b"connection: close" not in head_of_answer(connection)
        else:
            # The worker has accepted it once it has answered a later one.
            with closing(connect(server)) as later:
                later.sendall(LIVE)
                head_of_answer(later)
        leave(server)
        time.sleep(DRAIN_SECONDS / 6)
        connection.sendall(LIVE)
        assert b"connection: close" in head_of_answer(connection)
        assert connection.recv(1) == b""


def test_requests_that_were_sent_together_are_all_answered(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    with closing(connect(server)) as connection:
        connection.sendall(LIVE)
        head_of_answer(connection)
        leave(server)
        connection.sendall(LIVE * 3)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.count(b'"status":"ok"') == 3
    assert received.count(b"connection: close") == 1


def test_idle_connection_is_closed_in_the_end(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    with closing(connect(server)) as connection:
        connection.sendall(LIVE)
        head_of_answer(connection)
        worker = leave(server)
        assert connection.recv(1) == b""
    eventually(lambda: worker not in workers(server))


def test_another_worker_takes_the_place_of_one_that_still_has_work(serve: Serve) -> None:
    server = serve("--no-background", environment=LEAN)
    with closing(connect(server)) as half_sent:
        half_sent.sendall(LIVE[:20])
        with closing(connect(server)) as later:
            later.sendall(LIVE)
            head_of_answer(later)
        worker = leave(server)
        with closing(connect(server)) as fresh:
            fresh.sendall(LIVE)
            assert b"connection: close" not in head_of_answer(fresh)
        assert worker in workers(server)
        half_sent.sendall(LIVE[20:])
        assert b"connection: close" in head_of_answer(half_sent)
    eventually(lambda: worker not in workers(server))
    assert server.stop() == 0
    assert '"level":"error"' not in server.log.read_text()
