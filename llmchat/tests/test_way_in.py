"""The way of a warmed request costs no query and no thread, but for the committer's; and a change is seen at once."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import pytest
from django.core.cache import caches
from django.db.backends.utils import CursorWrapper
from pytest_django import Settings

from accounts.models import Plan
from chat import durability
from llmchat.asgi import application
from llmchat.tests.needs import need
from llmchat.tests.servers import Redis, missing_programs
from llmchat.tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class Cost:
    """What was done beside the event loop: queries by the name of their thread, and work handed to threads."""

    queries: list[tuple[str, str]] = field(default_factory=list)
    hops: list[str] = field(default_factory=list)


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Cost:
    found = Cost()
    execute, submit = CursorWrapper.execute, ThreadPoolExecutor.submit

    def counting_execute(self: CursorWrapper, sql: str, params: Any = None) -> Any:
        if threading.current_thread().name not in {"record-committer", "record-watch"}:
            found.queries.append((threading.current_thread().name, sql))
        return execute(self, sql, params)

    def counting_submit(self: Any, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        found.hops.append(" ".join(getattr(each, "__qualname__", str(type(each))) for each in (work, *args)))
        return submit(self, work, *args, **named)

    monkeypatch.setattr(CursorWrapper, "execute", counting_execute)
    # Every executor is one: asyncio's, asgiref's and ours.
    monkeypatch.setattr(ThreadPoolExecutor, "submit", counting_submit)
    return found


@pytest.fixture(params=["memory", "redis"])
def counters(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """Both places where limits are counted."""
    if request.param == "memory":
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
        yield "memory"
        return
    need(missing_programs())
    with Redis() as server:
        settings.CACHES = {"default": {"BACKEND": "llmchat.lib.caches.SharedRedisCache", "LOCATION": server.url}}
        yield "redis"
        caches.close_all()


async def asked(question: dict[str, Any], key: str, stream: bool) -> tuple[int, bytes]:
    """Status and body of one request to the whole application, as a server would call it."""
    sent: list[dict[str, Any]] = []
    questions = [{"type": "http.request", "body": json.dumps(question).encode()}]

    async def receive() -> dict[str, Any]:
        return questions.pop() if questions else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/stream" if stream else "/v1/chat",
        "raw_path": b"/v1/chat",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(questions[0]["body"])).encode()),
            (b"authorization", f"Bearer {key}".encode()),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture(autouse=True)
def open_journal() -> None:
    """A server opens its journal before its first request."""
    durability.committer()


@pytest.mark.parametrize("plan", ["unlimited", "premium"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_warmed_request_makes_no_query_and_no_thread_hop(
    owner, settings, counters: str, plan: str, stream: bool, cost: Cost
) -> None:
    settings.API_KEY_CACHE_SECONDS = 3600.0
    owner.organization.plan = await Plan.objects.aget(slug=plan)
    await owner.organization.asave()

    async def ask() -> None:
        status, body = await asked({"userId": "u1", "prompt": "Hello.", "model": "simulated/ok"}, owner.raw, stream)
        assert (status, b"event: done" in body) == (200, stream), body

    await ask()
    await ask()
    cost.queries.clear()
    cost.hops.clear()
    for _ in range(5):
        await ask()
    assert (cost.queries, cost.hops) == ([], [])


def test_another_processs_change_is_seen_at_once_through_redis(serve: Any, acme_key: str) -> None:
    need(missing_programs())
    with Redis() as redis:
        server = serve("--no-background", environment={"REDIS_URL": redis.url, "API_KEY_CACHE_SECONDS": "600"})

        def status() -> int:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
            body = json.dumps({"userId": "u1", "prompt": "Hello.", "model": "simulated/ok"})
            headers = {"Authorization": f"Bearer {acme_key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat", body, headers)
            try:
                return connection.getresponse().status
            finally:
                connection.close()

        assert status() == 200
        server.manage(
            "shell",
            "--no-imports",
            "-c",
            "from accounts.models import APIKey; from accounts.services import digest_of, revoke_api_key;"
            f"revoke_api_key(APIKey.objects.get(digest=digest_of({acme_key!r})))",
        )
        # Without being told, it would trust the key for ten minutes.
        eventually(lambda: status() == 401, wanted="a refusal of the revoked key", patience=30)
