"""Django's handler as we use it: one thread makes a page, whatever middlewares there are, and all else is Django's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIHandler

from llmchat.lib.handler import Handler

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Work that is handed to threads."""
    found: list[str] = []
    submit = ThreadPoolExecutor.submit

    def counting(self: Any, work: Callable[..., Any], *args: Any, **named: Any) -> Any:
        found.append(" ".join(getattr(each, "__qualname__", str(type(each))) for each in (work, *args)))
        return submit(self, work, *args, **named)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counting)
    return found


async def asked(handler: ASGIHandler, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    sent: list[Any] = []
    questions = [{"type": "http.request", "body": b""}]

    async def receive() -> dict[str, Any]:
        return questions.pop() if questions else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"x-request-id", b"from-outside")],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    await handler(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent)


async def test_page_takes_three_hops_however_many_middlewares_there_are(hops: list[str]) -> None:
    status, headers, body = await asked(Handler(), "/admin/login/")
    assert (status, headers["x-frame-options"], headers["x-request-id"]) == (200, "DENY", "from-outside")
    assert b"csrfmiddlewaretoken" in body
    # What listens to a request's begin, the request itself, and its end.
    assert len(hops) <= 3, hops
    ours = len(hops)
    await asked(ASGIHandler(), "/admin/login/")
    assert len(hops) - ours > 8, "Django's own handler has become as good: ours may go"


@pytest.mark.parametrize(
    ("path", "method", "expected"),
    [
        ("/v1/health/live", "GET", 200),
        ("/v1/health/live", "DELETE", 405),
        ("/v1/usage", "GET", 401),
        ("/v1/nothing", "GET", 404),
        ("/admin/nothing/", "GET", 302),
        ("/metrics", "GET", 200),
    ],
)
async def test_answers_are_those_of_djangos_own_handler(path: str, method: str, expected: int) -> None:
    status, headers, body = await asked(Handler(), path, method)
    its_status, its_headers, its_body = await asked(ASGIHandler(), path, method)
    assert (status, headers) == (its_status, its_headers | {"content-length": headers["content-length"]})
    assert status == expected
    if status >= 400:
        assert json.loads(body) == json.loads(its_body)


async def test_fault_of_a_view_has_the_one_error_shape(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.DEBUG = False

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("chat.models_api.ModelViewSet.initial", fail)
    status, headers, body = await asked(Handler(), "/v1/models")
    assert (status, headers["x-request-id"]) == (500, "from-outside")
    assert json.loads(body)["error"]["code"] == "internal_error"
    assert b"broken" not in body
