"""Many requests at the same moment over real sockets, to one server or to several."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 100.0
MOST_TRIES = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the answer itself, streamed or not; `text` what a stream's pieces said, joined. `tries`: how often it
    had to be asked for, since the connection broke."""

    status: int
    body: Any
    replayed: bool
    text: str | None = None
    retry_after: str | None = None
    tries: int = 1


def begin(base_url: str, *, key: str, request_id: str, body: dict[str, Any]) -> http.client.HTTPResponse:
    """One `POST /v1/chat` on a connection of its own, as far as the head of its response; `close` leaves it."""
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        "Idempotency-Key": request_id,
        # The response alone holds the connection then.
        "Connection": "close",
    }
    connection.request("POST", "/v1/chat", json.dumps(body), headers)
    return connection.getresponse()


def ask(base_url: str, *, key: str, request_id: str, body: dict[str, Any]) -> Answer:
    """One `POST /v1/chat`, answered."""
    with begin(base_url, key=key, request_id=request_id, body=body) as response:
        raw = response.read().decode()
    replayed = response.headers.get("Idempotent-Replayed") == "true"
    if response.headers["Content-Type"] != "text/event-stream":
        return Answer(response.status, json.loads(raw), replayed, retry_after=response.headers["Retry-After"])
    frames = [frame.split("\n") for frame in raw.split("\n\n") if frame.startswith("event: ")]
    events = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]
    assert events[-1][0] == "done", raw[-1000:]
    return Answer(response.status, events[-1][1], replayed, "".join(data["text"] for _, data in events[:-1]))


def ask_until_answered(base_url: str, *, key: str, request_id: str, body: dict[str, Any]) -> Answer:
    """`ask`, again on a new connection when that breaks, as a client with a request id may."""
    for tries in itertools.count(1):
        try:
            return replace(ask(base_url, key=key, request_id=request_id, body=body), tries=tries)
        except ConnectionError:
            if tries == MOST_TRIES:
                raise
    raise AssertionError


def ask_at_once(
    base_urls: Sequence[str], *, times: int, key: str, request_id: str, body: dict[str, Any]
) -> list[Answer]:
    """The same request that often at one moment, in turn to each of the addresses."""
    together = threading.Barrier(times)

    def one(number: int) -> Answer:
        together.wait(PATIENCE)
        return ask_until_answered(base_urls[number % len(base_urls)], key=key, request_id=request_id, body=body)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(one, range(times)))
