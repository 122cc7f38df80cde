"""The lean handler against Django's own, which it stands before: what a caller sees must be the same, header by header.

Two real servers on one database, one of them without the lean handler, are asked the same by raw sockets.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.lib.lean import LeanRequest
from llmchat.tests.furnished import Furnished
from llmchat.tests.servers import PROJECT, Child, LiveServer, free_port

_WITHOUT_LEAN = """
import sys, uvicorn
from llmchat import asgi
from llmchat.serve.protocol import BoundedHeads
uvicorn.run(asgi.without_lean, port=int(sys.argv[1]), http=BoundedHeads, ws="none", log_config=None, access_log=False,
            server_header=False, proxy_headers=False)
"""
LIMIT = 4096
GOOD = {"userId": "u1", "prompt": "Hello.", "model": "simulated/echo"}
OPENAI = {"model": "simulated/echo", "messages": [{"role": "user", "content": "Hello."}]}
#: What differs from one answer to the next, whoever gives it.
_OF_ITS_OWN = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>"),
    (r'"timestamp":"[^"]*"', '"timestamp":"<time>"'),
    (r'"created":\d+', '"created":<time>'),
    (r"csrftoken=\w{32}; expires=[^;]*", "csrftoken=<token>"),
    (r'(Ms":)[\d.]+', r"\1<time>"),
)


@dataclass(frozen=True, slots=True)
class Pair:
    """The ports of the server as it is and of the one without the lean handler; and a key for both."""

    ports: dict[str, int]
    key: str


@pytest.fixture(scope="module")
def pair(furnished: Furnished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    server = LiveServer(tmp_path_factory.mktemp("lean"), arguments=("--no-background",))
    server.environment |= {
        **furnished.copy(server.data),
        "DEFAULT_MODEL": "simulated/echo",
        "MAX_BODY_BYTES": str(LIMIT),
        "BODY_READ_SECONDS": "1",
        "DJANGO_SETTINGS_MODULE": "llmchat.settings",
    }
    without, port = Child(server.data / "without.log"), free_port()

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError:
            return False
        return True

    with server:
        without.start(
            [sys.executable, "-c", _WITHOUT_LEAN, str(port)], environment=server.environment, directory=PROJECT
        )
        try:
            without.wait_until(answers)
            yield Pair({"lean": server.port, "django": port}, furnished.key)
        finally:
            without.stop()


def raw(method: str, path: str, *headers: str, body: bytes | None = None, host: str = "127.0.0.1") -> bytes:
    """A request with no more than what is given; `KEY` stands for the key."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body is not None:
        lines += ["Content-Type: application/json"] * (not any("content-type" in line.lower() for line in headers))
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


AUTH = "Authorization: Bearer KEY"


def post(path: str, value: Any, *headers: str, **options: Any) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return raw("POST", path, AUTH, *headers, body=body, **options)


CASES: dict[str, bytes] = {
    "native": post("/v1/chat", GOOD),
    "native, streamed": post("/v1/chat", {**GOOD, "stream": True}),
    "always streamed": post("/v1/chat/stream", GOOD),
    "OpenAI's": post("/v1/chat/completions", OPENAI),
    "OpenAI's, streamed": post("/v1/chat/completions", {**OPENAI, "stream": True}),
    "completions, unknown fields": post("/v1/chat/completions", {**OPENAI, "extra": 1, "logit_bias": {"1": 2}}),
    "a body of two kinds of text": post("/v1/chat", {**GOOD, "prompt": "é💡"}),
    "broken JSON": post("/v1/chat", b'{"userId": '),
    "JSON of another shape": post("/v1/chat", b"[1]"),
    "not UTF-8": post("/v1/chat", b'{"userId": "\xff"}'),
    "an empty body": post("/v1/chat", b""),
    "a blank body": post("/v1/chat", b"  "),
    "no body": raw("POST", "/v1/chat", AUTH),
    "wrong fields": post("/v1/chat", {"userId": "", "unknown": 1}),
    "wrong messages": post("/v1/chat/completions", {"messages": [{"role": "x"}, 1]}),
    "no such model": post("/v1/chat", {**GOOD, "model": "none/such"}),
    "a provider that fails": post("/v1/chat", {**GOOD, "model": "simulated/bad-request"}),
    "a body too large": post("/v1/chat", b"x" * (LIMIT + 1)),
    "a length that is absurd": raw("POST", "/v1/chat", AUTH, "Content-Length: 99999999999999999"),
    "a body that does not come": raw("POST", "/v1/chat", AUTH, "Content-Length: 10"),
    "a body in chunks": raw(
        "POST", "/v1/chat", AUTH, "Content-Type: application/json", "Transfer-Encoding: chunked"
    ) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(json.dumps(GOOD)), json.dumps(GOOD).encode()),
    "chunks without an end": raw("POST", "/v1/chat", AUTH, "Transfer-Encoding: chunked") + b"%x\r\n" % (LIMIT * 2)
    + b"x" * (LIMIT * 2),
    "waiting to be told to go on": post("/v1/chat", GOOD, "Expect: 100-continue"),
    "no key": raw("POST", "/v1/chat", body=b"{}"),
    "a wrong key": raw("POST", "/v1/chat", "Authorization: Bearer llmc_wrong", body=b"{}"),
    "a key that is none": raw("POST", "/v1/chat", "Authorization: Basic abc", body=b"{}"),
    "two keys": raw("POST", "/v1/chat", AUTH, "X-API-Key: other", body=b"{}"),
    "a key by the other header": raw("POST", "/v1/chat", "X-API-Key: KEY", body=json.dumps(GOOD).encode()),
    "a header twice": raw("POST", "/v1/chat", AUTH, AUTH, body=b"{}"),
    "another type": post("/v1/chat", GOOD, "Content-Type: text/plain"),
    "a form": post("/v1/chat", b"userId=1", "Content-Type: application/x-www-form-urlencoded"),
    "a type with parameters": post("/v1/chat", GOOD, "Content-Type: application/json; charset=utf-8"),
    "a type with a charset that is none": post("/v1/chat", GOOD, "Content-Type: application/json; charset=none"),
    "Accept that suits": post("/v1/chat", GOOD, "Accept: text/html, application/json;q=0.5"),
    "Accept of anything": post("/v1/chat", GOOD, "Accept: */*"),
    "Accept that cannot be satisfied": post("/v1/chat", GOOD, "Accept: text/html"),
    "Accept that is nonsense": post("/v1/chat", GOOD, "Accept: ;;,,/"),
    "a request id of the caller's": post("/v1/chat", {}, "X-Request-Id: mine-1"),
    "a request id that is harmful": post("/v1/chat", {}, "X-Request-Id: <script>"),
    "an idempotency key that is too long": post("/v1/chat", GOOD, "Idempotency-Key: " + "k" * 129),
    "GET": raw("GET", "/v1/chat", AUTH),
    "HEAD": raw("HEAD", "/v1/chat", AUTH),
    "OPTIONS": raw("OPTIONS", "/v1/chat", AUTH),
    "PUT": raw("PUT", "/v1/chat", AUTH, body=b"{}"),
    "a method nobody knows": raw("PURGE", "/v1/chat", AUTH),
    "GET without a key": raw("GET", "/v1/chat"),
    "no such path": post("/v1/chats", GOOD),
    "a slash at the end": post("/v1/chat/", GOOD),
    "two slashes": post("//v1/chat", GOOD),
    "an escaped path": post("/v1/%63hat", GOOD),
    "a query": post("/v1/chat?x=1", GOOD),
    "a format that there is": post("/v1/chat?format=json", GOOD),
    "a format that there is not": post("/v1/chat?format=xml", GOOD),
    "a query that is not UTF-8": post("/v1/chat?x=%ff&y=%00", GOOD),
    "another host": post("/v1/chat", GOOD, host="evil.example"),
    "a host with a port": post("/v1/chat", GOOD, host="localhost:1"),
    "a host that is nonsense": post("/v1/chat", GOOD, host="a b/c"),
    "a host in capitals": post("/v1/chat", GOOD, host="LOCALHOST"),
    "a cookie": post("/v1/chat", GOOD, "Cookie: theme=dark"),
    "a session's cookie that is none": post("/v1/chat", GOOD, "Cookie: sessionid=; csrftoken=short"),
    "large headers": post("/v1/chat", GOOD, "X-Large: " + "x" * 30_000),
    "headers with underscores": post("/v1/chat", GOOD, "X_Api_Key: other", "Content_Length: 5"),
    "a header that is not ASCII": post("/v1/chat", GOOD, "X-Name: Z\xfcrich"),
    "live": raw("GET", "/v1/health/live"),
    "live, HEAD": raw("HEAD", "/v1/health/live"),
    "live, POST": raw("POST", "/v1/health/live", body=b"{}"),
    "live, wrong Accept": raw("GET", "/v1/health/live", "Accept: text/html"),
    "ready": raw("GET", "/v1/health/ready"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_caller_sees_no_difference(pair: Pair, name: str) -> None:
    method = CASES[name].split()[0].decode()
    sent = CASES[name].replace(b"KEY", pair.key.encode())
    answers = {handler: ask(port, sent, method) for handler, port in pair.ports.items()}
    assert answers["lean"] == answers["django"]


def ask(port: int, sent: bytes, method: str) -> tuple[int, list[tuple[str, str]], str]:
    """Status, headers and body of the answer, without what is its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        response = HTTPResponse(connection, method=method)
        response.begin()
        body = response.read().decode()
    headers = [(name.lower(), value) for name, value in response.getheaders() if name.lower() != "date"]
    for pattern, shown in _OF_ITS_OWN:
        body = re.sub(pattern, shown, body)
        headers = [(name, re.sub(pattern, shown, value)) for name, value in headers]
    kept = [(name, "<number>" if name.startswith("x-ratelimit-re") else value) for name, value in headers]
    # Times have as many digits as they need.
    return response.status, sorted(pair for pair in kept if "Ms" not in body or pair[0] != "content-length"), body


@pytest.mark.parametrize("path", ["/v1/health/live", "/v1/health/ready"])
@pytest.mark.parametrize("host", ["10.0.0.17:8000", "llmchat", "evil.example", ""])
def test_probes_need_no_known_host(pair: Pair, path: str, host: str) -> None:
    status, _, body = ask(pair.ports["lean"], raw("GET", path, host=host), "GET")
    assert (status, json.loads(body)["status"]) == (200, "ok")


def test_details_of_health_need_a_known_host(pair: Pair) -> None:
    assert ask(pair.ports["lean"], raw("GET", "/v1/health", host="evil.example"), "GET")[0] == 400


def test_refused_method_names_those_that_are_allowed(pair: Pair) -> None:
    for request, allowed in ((raw("GET", "/v1/chat", AUTH), "POST"), (raw("POST", "/v1/models", AUTH), "GET, HEAD")):
        sent = request.replace(b"KEY", pair.key.encode())
        status, headers, _ = ask(pair.ports["lean"], sent, sent.split()[0].decode())
        assert (status, dict(headers)["allow"]) == (405, allowed)


# --- The request ------------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from([b"host", b"accept", b"x-api-key", b"content-type", b"content-length", b"cookie"])
_HEADERS = st.lists(
    st.tuples(
        _NAMES | st.from_regex(rb"[a-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30).map(
            lambda text: text.encode("latin-1")
        ),
    ),
    max_size=12,
)
_ADDRESS = st.none() | st.just(("127.0.0.1", 5000)) | st.just(("::1", 1))


@given(
    headers=_HEADERS,
    client=_ADDRESS,
    server=_ADDRESS,
    query=st.binary(max_size=20).filter(bytes.isascii),
    body=st.binary(),
)
def test_request_is_what_django_would_make_of_the_scope(
    headers: list[tuple[bytes, bytes]], client: Any, server: Any, query: bytes, body: bytes
) -> None:
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat",
        "query_string": query,
        "headers": headers,
        "client": client,
        "server": server,
        "scheme": "http",
    }
    lean, django = LeanRequest(scope), ASGIRequest(scope, BytesIO(body))
    lean.take(body)
    assert lean.META == django.META
    names = set(vars(django)) - {"_stream", "META"}
    assert {name: getattr(lean, name) for name in names} == {name: getattr(django, name) for name in names}
    assert lean.read() == django.read() == body
