"""Callers that mean harm, or whose network does, against a real server by raw sockets. Each gets what it deserves, and
after each the process is the one that it was before, and well.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, parse_headers
from pathlib import Path
from typing import Any

import pytest

from conftest import Serve
from llmchat.tests.furnished import Furnished
from llmchat.tests.servers import LiveServer
from llmchat.tests.waiting import eventually

LIMIT = 64 * 1024
_PATIENCE = 30.0
_HARMLESS = re.compile(r"[A-Za-z0-9._:-]{1,128}")

GOOD = {"userId": "u1", "prompt": "Hello.", "model": "simulated/ok"}


@dataclass(slots=True)
class Target:
    """A running server and a key that it knows."""

    server: LiveServer
    key: str
    workers: list[int] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=_PATIENCE)

    def head(self, method: str, path: str, *headers: bytes, authorized: bool = True) -> bytes:
        """A request's head, as bytes, with nothing made safe."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: 127.0.0.1", *headers]
        if authorized:
            lines.append(f"Authorization: Bearer {self.key}".encode())
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def post(self, body: dict[str, Any], *headers: bytes, path: str = "/v1/chat") -> bytes:
        raw = json.dumps(body).encode()
        return (
            self.head("POST", path, b"Content-Type: application/json", b"Content-Length: %d" % len(raw), *headers) + raw
        )

    def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        """A well-behaved request: its status and JSON."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=_PATIENCE)
        try:
            connection.request(
                method,
                path,
                body=None if body is None else json.dumps(body),
                headers={"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"},
            )
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()


def answer(connection: socket.socket, method: str = "GET") -> tuple[HTTPResponse, Any]:
    """The next response on the connection, and its JSON, if it has a body."""
    response = HTTPResponse(connection, method=method)
    response.begin()
    raw = response.read()
    return response, json.loads(raw) if raw else None


def answers_in_a_row(connection: socket.socket, *methods: str) -> list[tuple[int, HTTPMessage, Any]]:
    """Status, headers and JSON of the next responses. One reader for all: what it has buffered is not lost."""
    found = []
    with connection.makefile("rb") as stream:
        for method in methods:
            status = int(stream.readline().split()[1])
            headers = parse_headers(stream)
            raw = stream.read(int(headers["Content-Length"])) if method != "HEAD" else b""
            found.append((status, headers, json.loads(raw) if raw else None))
    return found


def is_closed(connection: socket.socket) -> bool:
    """Waits for the other side to close."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def children_of(pid: int) -> list[int]:
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def memory_of(pid: int) -> int:
    """Resident bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def target_of(server: LiveServer, key: str) -> Target:
    target = Target(server, key, workers=children_of(server.pid))
    assert target.ask("GET", "/v1/models")[0] == 200
    return target


@pytest.fixture(scope="module")
def shared(furnished: Furnished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    server = LiveServer(tmp_path_factory.mktemp("hostile"))
    server.environment |= {
        **furnished.copy(server.data),
        "DEFAULT_MODEL": "simulated/ok",
        "MAX_BODY_BYTES": str(LIMIT),
        "BODY_READ_SECONDS": "1",
        "HEADER_READ_SECONDS": "1",
    }
    with server:
        yield target_of(server, furnished.key)


@pytest.fixture
def target(shared: Target) -> Iterator[Target]:
    """The server that these tests share; after each it has the same processes, has logged no error, and answers."""
    begins = shared.server.log.stat().st_size
    yield shared
    assert shared.ask("POST", "/v1/chat", GOOD)[0] == 200
    assert children_of(shared.server.pid) == shared.workers
    with shared.server.log.open("rb") as log:
        log.seek(begins)
        assert [line for line in log.read().splitlines() if b'"level":"error"' in line or b"Traceback" in line] == []


# --- Bodies and time --------------------------------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_large_is_refused_unread(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(target.head("POST", "/v1/chat", b"Content-Length: 1000000000"))
        response, body = answer(connection)
        assert (response.status, body["error"]["code"]) == (413, "request_too_large")
        assert is_closed(connection)


def test_a_body_that_grows_too_large_is_refused_on_its_way(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(
            target.head("POST", "/v1/chat", b"Content-Type: application/json", b"Transfer-Encoding: chunked")
        )
        piece = b"x" * (LIMIT // 2)
        for _ in range(3):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        response, body = answer(connection)
        assert (response.status, body["error"]["code"]) == (413, "request_too_large")


def test_a_body_that_does_not_come_is_given_up(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(
            target.head("POST", "/v1/chat", b"Content-Type: application/json", b"Content-Length: 100") + b'{"user'
        )
        response, body = answer(connection)
        assert (response.status, body["error"]["code"]) == (408, "request_timeout")
        assert is_closed(connection)


def test_headers_that_do_not_come_are_given_up(target: Target) -> None:
    with target.connect() as silent, target.connect() as slow:
        slow.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow:")
        assert is_closed(slow)
        assert is_closed(silent)


def test_two_hundred_silent_connections_keep_nobody_else_out(target: Target) -> None:
    with ExitStack() as opened:
        silent = [opened.enter_context(target.connect()) for _ in range(200)]
        assert target.ask("POST", "/v1/chat", GOOD)[0] == 200
        assert all(is_closed(connection) for connection in silent)


def test_whoever_waits_to_be_asked_is_asked_to_continue(target: Target) -> None:
    raw = json.dumps(GOOD).encode()
    with target.connect() as connection:
        connection.sendall(
            target.head(
                "POST",
                "/v1/chat",
                b"Content-Type: application/json",
                b"Content-Length: %d" % len(raw),
                b"Expect: 100-continue",
            )
        )
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(raw)
        response, body = answer(connection)
        assert (response.status, body["userId"]) == (200, "u1")


def test_whoever_waits_to_be_asked_for_too_much_is_refused(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(target.head("POST", "/v1/chat", b"Content-Length: 1000000000", b"Expect: 100-continue"))
        response, body = answer(connection)
        assert (response.status, body["error"]["code"]) == (413, "request_too_large")


# --- Heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"a\r\n Evil: 1",
        b"a\rEvil: 1",
        b"a\nEvil: 1",
        b"a\x00b",
        b"a\x7fb",
        b"\xff\xfe",
        b"a b",
        b"<script>",
        b"x" * 129,
        b"",
    ],
)
def test_a_request_id_cannot_break_a_header(target: Target, value: bytes) -> None:
    with target.connect() as connection:
        connection.sendall(target.post(GOOD, b"X-Request-Id: " + value))
        response, _ = answer(connection)
        # Some never get past the parser; whatever does is answered under an id of ours.
        assert response.status in {200, 400}
        assert response.getheader("Evil") is None
        if response.status == 200:
            identifier = response.getheader("X-Request-Id", "")
            assert _HARMLESS.fullmatch(identifier)
            assert identifier.encode() != value


@pytest.mark.parametrize("value", [b"a\r\n Evil: 1", b"a\rEvil: 1", b"a\nEvil: 1", b"a\x00b", b"a\x7fb", b"x" * 129])
def test_an_idempotency_key_cannot_break_a_header(target: Target, value: bytes) -> None:
    with target.connect() as connection:
        connection.sendall(target.post(GOOD, b"Idempotency-Key: " + value))
        response, _ = answer(connection)
        assert response.getheader("Evil") is None
        assert response.status == 400 or b"\n" in value


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/chat HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nnot-a-size\r\n",
        b"GET /v1/health HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nNo colon\r\n\r\n",
    ],
)
def test_what_is_no_request_is_400(target: Target, head: bytes) -> None:
    with target.connect() as connection:
        connection.sendall(head)
        response, body = answer(connection)
        assert (response.status, body["error"]["type"]) == (400, "invalid_request_error")
        assert body["error"]["request_id"] == response.getheader("X-Request-Id")


@pytest.mark.parametrize("path", ["/v1/%ff%fe", "/v1/models/%00", "/%2e%2e/%2e%2e/etc/passwd", "/static/../manage.py"])
def test_a_path_that_leads_nowhere_is_404(target: Target, path: str) -> None:
    with target.connect() as connection:
        connection.sendall(target.head("GET", path))
        response, body = answer(connection)
        assert (response.status, body["error"]["type"]) == (404, "not_found_error")


def test_a_header_without_an_end_is_not_read(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ")
        for _ in range(65):
            connection.sendall(b"x" * 1024)
        response, body = answer(connection)
        assert (response.status, body["error"]["code"]) == (431, "headers_too_large")


def test_garbage_behind_a_good_request_harms_nobody(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(target.head("GET", "/v1/health/live") + b"\x00\x01garbage\r\n\r\n")
        assert connection.recv(9) == b"HTTP/1.1 "
        assert is_closed(connection)


def test_requests_in_a_row_are_answered_in_their_order(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(
            b"".join(target.head("GET", "/v1/health/live", b"X-Request-Id: n%d" % number) for number in range(20))
        )
        answers = answers_in_a_row(connection, *["GET"] * 20)
        assert [headers["X-Request-Id"] for _, headers, _ in answers] == [f"n{n}" for n in range(20)]


def test_head_is_get_without_a_body(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(target.head("HEAD", "/v1/models") + target.head("GET", "/v1/health/live"))
        # Had the first a body, the second could not be read.
        head, live = answers_in_a_row(connection, "HEAD", "GET")
        assert (head[0], live[2]["status"]) == (200, "ok")


@pytest.mark.parametrize(
    ("method", "path"),
    [("HEAD", "/v1/chat"), ("OPTIONS", "/v1/chat"), ("OPTIONS", "/v1/models"), ("TRACE", "/v1/chat")],
)
def test_other_methods_are_405(target: Target, method: str, path: str) -> None:
    with target.connect() as connection:
        connection.sendall(target.head(method, path))
        assert answer(connection, method)[0].status == 405


# --- Exchanges --------------------------------------------------------------------------------------------------------


def test_one_request_id_on_two_requests_is_two_exchanges(target: Target) -> None:
    ids = set()
    for _ in range(2):
        with target.connect() as connection:
            connection.sendall(target.post(GOOD, b"X-Request-Id: the-same"))
            response, body = answer(connection)
            assert (response.status, response.getheader("X-Request-Id")) == (200, "the-same")
            ids.add(body["id"])
    assert len(ids) == 2


def interaction_when(target: Target, user: str) -> dict[str, Any]:
    """The user's only interaction, once it is on record."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        _, page = target.ask("GET", f"/v1/interactions?userId={user}")
        if page["data"]:
            return page["data"][0]
        time.sleep(0.05)
    raise AssertionError(f"nothing of {user} is on record")


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/completions"])
def test_a_reader_that_leaves_in_mid_stream_is_recorded_with_what_it_had(target: Target, path: str) -> None:
    user = f"leaver-{path[-4:]}"
    asked = {"model": "simulated/slow?tokens=5000&delay=0.02", "stream": True}
    if path == "/v1/chat":
        asked |= {"userId": user, "prompt": "Tell me a story."}
    else:
        asked |= {"user": user, "messages": [{"role": "user", "content": "Tell me a story."}]}
    with target.connect() as connection:
        connection.sendall(target.post(asked, path=path))
        seen = b""
        while seen.count(b"data: ") < 4:
            seen += connection.recv(4096)
    row = interaction_when(target, user)
    assert (row["status"], row["error"], row["usage"]["estimated"]) == ("cancelled", None, True)
    assert row["response"].startswith("The harbour ")
    assert len(row["response"].split()) < 5000


def active_requests(target: Target) -> float:
    connection = HTTPConnection("127.0.0.1", target.server.port, timeout=_PATIENCE)
    with closing(connection):
        connection.request("GET", "/metrics")
        told = connection.getresponse().read().decode()
    found = re.search(r"^llm_active_requests (\S+)$", told, flags=re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_a_reader_that_leaves_before_the_answer_is_recorded_too(target: Target) -> None:
    with target.connect() as connection:
        connection.sendall(
            target.post({**GOOD, "userId": "early-leaver", "model": "simulated/slow-first-token?wait=60"})
        )
        eventually(lambda: active_requests(target) == 1, wanted="its call under way")
    row = interaction_when(target, "early-leaver")
    assert (row["status"], row["response"]) == ("cancelled", "")


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_two_thousand_wrong_keys_are_stopped_and_cost_no_memory(serve: Serve, acme_key: str) -> None:
    server = serve(environment={"DEFAULT_MODEL": "simulated/ok", "LOG_LEVEL": "WARNING"})
    target = target_of(server, acme_key)
    statuses: list[int] = []
    memory: list[int] = []
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)
    for number in range(2_000):
        # By the way of chat, which most of them take, and by Django's.
        method, path = ("GET", "/v1/models") if number % 4 == 0 else ("POST", "/v1/chat")
        connection.request(method, path, headers={"Authorization": f"Bearer llmc_{number:043d}"})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
        assert (response.getheader("Retry-After") is not None) == (response.status == 429)
        if number in {500, 1_999}:
            memory.append(sum(map(memory_of, target.workers)))
    connection.close()
    assert statuses[0] == 401
    assert set(statuses) == {401, 429}
    # A minute holds 60; a second one may have begun.
    assert 60 <= statuses.count(401) <= 120
    before, after = memory
    assert after - before < 8 * 1024 * 1024
    # The address is not the key: whoever has a good one goes on.
    assert target.ask("POST", "/v1/chat", GOOD)[0] == 200
    assert children_of(server.pid) == target.workers
