"""Secrets planted everywhere a secret comes from, and looked for everywhere a fact ends up.

A real server asks a vendor that echoes whatever it is sent: in error messages, ids, finish reasons, pages, headers. All
that is left behind is searched afterwards: every column of every table, every file, Redis, the log at its most
talkative, the metrics, and every response with its headers.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import quote

import psycopg
import pytest
import redis
from psycopg import sql

from conftest import Serve
from llmchat.tests.servers import LiveServer

PATIENCE = 30.0
VENDORS = ("openai", "openrouter", "anthropic", "gemini", "groq")
#: Ways in which the vendor gives away what it was sent.
TELLTALES = (
    "refused",
    "forbidden",
    "bad-request",
    "server-error",
    "html",
    "redirect",
    "content-type",
    "broken-header",
    "error-in-200",
    "error-in-stream",
    "ids",
    "garbage",
)


class Telltale(BaseHTTPRequestHandler):
    """A vendor that repeats the headers of each request, credentials and all, in the way that the model's name says."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        sent = f"{self.path} " + " ".join(f"{name}: {value}" for name, value in self.headers.items())
        self.asked.append(sent)
        way = next((way for way in TELLTALES if way in body + self.path), "refused")
        self.close_connection = True
        bare = sent.replace("Bearer ", "")
        match way:
            case "refused":
                self._answer(401, {"error": {"message": f"Incorrect API key provided: {bare}", "code": bare[:200]}})
            case "forbidden":
                self._answer(403, {"error": bare})
            case "bad-request":
                self._answer(400, {"error": {"message": sent, "type": "invalid_request_error", "param": bare}})
            case "server-error":
                self._answer(500, {"detail": f"Traceback (most recent call last): headers={bare}"})
            case "html":
                self._answer(502, f"<html><pre>{sent}</pre></html>", content_type="text/html")
            case "redirect":
                self._answer(307, "", headers={"Location": f"/elsewhere?key={quote(bare)}"})
            case "content-type":
                self._answer(200, "{}", content_type=f"text/{self._key()}")
            case "broken-header":
                self.wfile.write(f"HTTP/1.1 200 {bare}\r\n{self._key()} no colon\r\n\r\n".encode())
            case "error-in-200":
                self._answer(200, {"error": {"message": bare, "code": 400}})
            case "error-in-stream":
                self._stream({"error": {"message": bare, "code": "server_error"}})
            case "ids":
                self._stream(self._chunk(), headers={"request-id": self._key(), "x-request-id": self._key()})
            case "garbage":
                self._stream(f'{{"broken": {bare}', self._chunk())

    def _key(self) -> str:
        named = ("authorization", "x-api-key", "x-goog-api-key")
        return next(value.removeprefix("Bearer ") for name in named if (value := self.headers.get(name)))

    def _chunk(self) -> Any:
        key = self._key()
        return {
            "id": key,
            "model": key,
            "system_fingerprint": key,
            "choices": [{"index": 0, "delta": {"content": "Fine."}, "finish_reason": key}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }

    def _stream(self, *events: Any, headers: dict[str, str] | None = None) -> None:
        lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
        text = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        self._answer(200, text, content_type="text/event-stream", headers=headers)

    def _answer(
        self,
        status: int,
        body: Any,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        named = {"Content-Type": content_type, "Content-Length": str(len(raw)), "x-request-id": self._key()}
        for name, value in {**named, "Connection": "close", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's output is no place for secrets either."""


@pytest.fixture
def vendor() -> Iterator[str]:
    """The address of a running telltale."""
    Telltale.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Telltale) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def planted(name: str) -> str:
    """A secret without a form by which it could be known."""
    return f"{name}{secrets.token_hex(24)}"


@dataclass
class Findings:
    """Where pieces of secrets were found: a secret that was cut short or has its middle starred out counts too."""

    planted: dict[str, str]
    found: set[tuple[str, str]] = field(default_factory=set)
    looked_at: set[str] = field(default_factory=set)

    def look_at(self, place: str, content: object) -> None:
        text = content.decode("latin-1") if isinstance(content, bytes | bytearray | memoryview) else str(content)
        self.looked_at.add(place)
        for name, secret in self.planted.items():
            if any(piece in text for piece in (secret[-42:-28], secret[-28:-14], secret[-14:])):
                self.found.add((name, place))

    def told(self) -> str:
        return "; ".join(f"{name} in {place}" for name, place in sorted(self.found))


@dataclass
class Client:
    server: LiveServer
    findings: Findings

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        if raw is not None:
            named.setdefault("Content-Type", "application/json")
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, raw, named)
            response = connection.getresponse()
            text = response.read().decode()
            place = f"response to {method} {path.partition('?')[0][:30]}"
            self.findings.look_at(place, f"{response.getheaders()} {text}")
            return response.status, text


def search(server: LiveServer, findings: Findings) -> None:
    """Looks at everything that the server has left behind."""
    url = server.environment.get("DATABASE_URL")
    for place, row in _rows_of_postgresql(url) if url else _rows_of_sqlite(server):
        findings.look_at(place, row)
    for file in server.data.rglob("*"):
        if file.is_file():
            findings.look_at(f"file {file.relative_to(server.data)}", file.read_bytes())
    findings.look_at("log", server.log.read_bytes())
    if redis_url := server.environment.get("REDIS_URL"):
        with closing(redis.Redis.from_url(redis_url)) as client:
            for key in client.scan_iter():
                value = client.get(key) if client.type(key) == b"string" else client.dump(key)
                findings.look_at("redis", (key, value))


def _rows_of_sqlite(server: LiveServer) -> Iterator[tuple[str, object]]:
    with closing(sqlite3.connect(server.data / "llmchat.sqlite3")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                yield f"table {table}", row


def _rows_of_postgresql(url: str) -> Iterator[tuple[str, object]]:
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for row in connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))):
                yield f"table {table}", row


def environment_with(vendor: str, keys: dict[str, str]) -> dict[str, str]:
    return {
        "DEFAULT_MODEL": "simulated/echo",
        "LOG_LEVEL": "DEBUG",
        **{f"{name.upper()}_API_KEY": key for name, key in keys.items()},
        # Google's library adds the version of the API by itself.
        **{f"{name.upper()}_BASE_URL": vendor for name in keys},
        "GEMINI_BASE_URL": vendor.removesuffix("/v1"),
        "ANTHROPIC_BASE_URL": vendor.removesuffix("/v1"),
    }


def test_no_secret_is_left_anywhere(serve: Serve, acme_key: str, vendor: str) -> None:
    keys = {name: planted(name) for name in VENDORS}
    # A form that the header of no request can take: the library's complaint would repeat it.
    keys["groq"] = f"grün\u2028{planted('groq')}"
    ours = {"SECRET_KEY": planted("secretkey")}
    server = serve(environment={**environment_with(vendor, keys), **ours})
    theirs = {name: planted(name) for name in ("wrongkey", "bodykey", "headerkey", "querykey", "cookie", "metadatakey")}
    findings = Findings({**keys, **ours, **theirs, "caller's key": acme_key, "refused key": f"llmc_{planted('')[:43]}"})
    client = Client(server, findings)
    good = {"Authorization": f"Bearer {acme_key}"}

    # What vendors give away, by every library, whole and streamed
    def ask(name: str, way: str, stream: bool) -> int:
        body = {"userId": "u", "prompt": f"Hello {way}", "model": f"{name}/{way}", "stream": stream}
        return client.ask("POST", "/v1/chat", body, **good)[0]

    with ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask, *how) for how in itertools.product(keys, TELLTALES, (False, True))]
        assert {200, 400, 502} <= {future.result() for future in asked}
    assert all(any(key in sent for sent in Telltale.asked) for name, key in keys.items() if name != "groq")

    # What callers show or misplace
    chat = {"userId": "u", "prompt": "Hello", "model": "simulated/echo"}
    hello = [{"role": "user", "content": "Hello"}]
    client.ask("POST", "/v1/chat", chat, Authorization=f"Bearer {theirs['wrongkey']}")
    client.ask("POST", "/v1/chat", chat, Authorization=f"Bearer {findings.planted['refused key']}")
    client.ask("POST", "/v1/chat", chat, Authorization=f"Basic {theirs['wrongkey']}")
    client.ask("POST", "/v1/chat", chat, X_API_Key=theirs["wrongkey"])
    client.ask("POST", "/v1/chat", chat, X_API_Key=acme_key)
    client.ask("POST", "/v1/chat", chat, **good, Cookie=f"sessionid={theirs['cookie']}")
    client.ask("POST", "/v1/chat", chat, **good, Proxy_Authorization=f"Basic {theirs['headerkey']}")
    client.ask("POST", "/v1/chat", chat, **good, X_Goog_Api_Key=theirs["headerkey"])
    client.ask("POST", f"/v1/chat?api_key={theirs['querykey']}", chat, **good)
    client.ask("GET", f"/v1/models?access_token={theirs['querykey']}", **good)
    client.ask("GET", f"/v1/interactions/{acme_key}", **good)
    client.ask("POST", "/v1/chat", {**chat, "apiKey": theirs["bodykey"]}, **good)
    client.ask("POST", "/v1/chat", b'{"api_key": "' + theirs["bodykey"].encode() + b'"', **good)
    credentials = {
        "api_key": theirs["bodykey"],
        "extra_headers": {"Authorization": f"Bearer {theirs['bodykey']}"},
        "metadata": {"api_key": theirs["metadatakey"]},
    }
    for model in ("simulated/echo", "simulated/500-forever", "openai/ids"):
        body = {"model": model, "messages": hello, "tools": [{"type": "function", "function": {"name": "f"}}]}
        client.ask("POST", "/v1/chat/completions", body | credentials, **good)

    # Every fault of the simulated provider, every page that needs no log-in, what the record tells
    for fault in ("key-refused", "quota-exhausted", "html-error", "error-in-stream", "cut", "429-forever"):
        client.ask("POST", "/v1/chat", {**chat, "model": f"simulated/{fault}"}, **good)
    status, listed = client.ask("GET", "/v1/interactions?limit=100", **good)
    assert status == 200
    for row in json.loads(listed)["data"][:20]:
        client.ask("GET", f"/v1/interactions/{row['id']}", **good)
    for path in ("/metrics", "/v1/health", "/v1/health/ready", "/v1/models", "/openapi.json", "/nothing", "/admin/"):
        client.ask("GET", path, **good)
    server.manage("check")
    search(server, findings)
    server.stop()
    search(server, findings)

    assert {"log", "table chat_interaction", "table chat_attempt", "table accounts_apikey"} <= findings.looked_at
    assert findings.told() == ""


def test_with_a_key_no_text_of_an_exchange_is_left_anywhere(serve: Serve, acme_key: str, vendor: str) -> None:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    texts = {name: planted(name) for name in ("prompt", "system", "title", "tool", "metadata", "stop", "picture")}
    server = serve(environment={**environment_with(vendor, {"openai": planted("openai")}), "TEXT_ENCRYPTION_KEYS": key})
    good = {"Authorization": f"Bearer {acme_key}"}
    findings = Findings({**texts, "encryption key": key})
    client = Client(server, Findings({}))  # callers get their texts

    tool = {"type": "function", "function": {"name": "f", "description": texts["tool"]}}
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{texts['picture']}"}}
    said = {"role": "user", "content": [{"type": "text", "text": texts["prompt"]}, picture]}
    for model in ("simulated/echo", "simulated/tool-call", "simulated/cut", "openai/bad-request", "openai/ids"):
        for stream in (False, True):
            native = {"userId": "u", "model": model, "stream": stream, "prompt": f"{texts['title']} {texts['prompt']}"}
            more = {"systemPrompt": texts["system"], "stop": texts["stop"], "metadata": {"m": texts["metadata"]}}
            client.ask("POST", "/v1/chat", native | more, **good)
            body = {"model": model, "stream": stream, "messages": [said], "tools": [tool]}
            client.ask("POST", "/v1/chat/completions", body, **good)
    status, listed = client.ask("GET", "/v1/interactions?limit=100", **good)
    assert status == 200
    assert texts["prompt"] in listed
    client.ask("GET", "/metrics")
    search(server, findings)
    server.stop()
    search(server, findings)

    assert {"log", "table chat_interaction", "table chat_conversation"} <= findings.looked_at
    assert findings.told() == ""
