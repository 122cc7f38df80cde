"""A caller for the chat endpoints: the real URLs, views, engine and rows, in this process, against the simulated
provider."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

import orjson
import pytest
from django.test import AsyncClient

from chat import durability, idempotency
from providers import catalogue, failover
from providers.adapters.simulated import SimulatedAdapter
from providers.values import ChatRequest, Event


class Caller:
    """Sends JSON with one person's key."""

    def __init__(self, raw_key: str | None) -> None:
        self.client = AsyncClient(raise_request_exception=False)
        self.headers = {"Authorization": f"Bearer {raw_key}"} if raw_key else {}

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, raw, content_type="application/json", headers={**self.headers, **named})

    async def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return await self.client.get(path, query or {}, headers=self.headers)

    async def delete(self, path: str) -> Any:
        return await self.client.delete(path, headers=self.headers)

    async def chat(self, prompt: str = "Hello.", **fields: Any) -> Any:
        return await self.post("/v1/chat", {"userId": "u1", "prompt": prompt, "model": "simulated/ok", **fields})


async def frames(response: Any) -> list[tuple[str, Any]]:
    """The server-sent events of a streamed response as (event, data); `[DONE]` stays a string."""
    assert response["Content-Type"] == "text/event-stream"
    raw = b"".join([part async for part in response.streaming_content]).decode()
    found = []
    for block in filter(None, raw.split("\n\n")):
        if block.startswith(":"):
            continue
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = lines["data"]
        found.append((lines.get("event", ""), data if data == "[DONE]" else orjson.loads(data)))
    return found


@pytest.fixture
def caller() -> Callable[[str | None], Caller]:
    return Caller


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts take no time; the list tells how long they would have been, in seconds."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(failover, "attempt_in_order", partial(failover.attempt_in_order, sleep=pause))
    return pauses


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[ChatRequest]:
    """The requests that reach the simulated provider, in order."""
    requests: list[ChatRequest] = []
    real = SimulatedAdapter.stream

    def stream(self: SimulatedAdapter, request: ChatRequest) -> AsyncGenerator[Event, None]:
        requests.append(request)
        return real(self, request)

    monkeypatch.setattr(SimulatedAdapter, "stream", stream)
    return requests


@pytest.fixture(autouse=True)
def open_journal() -> None:
    """A server opens its journal before its first request."""
    durability.committer()


@pytest.fixture(autouse=True)
def fresh_provider() -> None:
    """The simulated provider remembers nothing of other tests, and the catalogue is read anew."""
    SimulatedAdapter.reset()
    catalogue.forget()


@pytest.fixture(autouse=True)
def no_request_ids() -> None:
    """No request id of another test is under way."""
    idempotency.forget()
