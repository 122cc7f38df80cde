"""A request id is answered once by several processes: two servers on one database, which know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chat.tests.asking_at_once import ask, ask_at_once
from conftest import Serve
from llmchat.tests.mock_upstream import MockUpstream
from llmchat.tests.servers import LiveServer

#: The same for both servers: they take each other's fingerprints for their own.
_SECRET = "not secret, but long enough that nobody complains about it being short"
_QUESTION = {"userId": "u1", "prompt": "Once, please.", "model": "openai/mock-20?first=0.5&delay=0.01"}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[MockUpstream]:
    with MockUpstream(tmp_path / "upstream") as running:
        yield running


@pytest.fixture
def pair(serve: Serve, upstream: MockUpstream) -> tuple[list[LiveServer], str]:
    """Two servers on one database, without Redis on SQLite, and a key."""
    settings = {**upstream.environment, "SECRET_KEY": _SECRET, "LOG_LEVEL": "WARNING"}
    first = serve("--no-background", environment=settings)
    database = first.environment.get("DATABASE_URL", f"sqlite:///{first.data / 'llmchat.sqlite3'}")
    shared = {"DATABASE_URL": database}
    if "REDIS_URL" in first.environment:
        shared["REDIS_URL"] = first.environment["REDIS_URL"]
    second = serve("--no-background", environment={**settings, **shared})
    first.manage("create_organization", "Acme", "--plan", "unlimited")
    key = first.manage("create_api_key", "--organization", "Acme").strip()
    return [first, second], key


@pytest.mark.parametrize("streamed", [False, True])
def test_a_hundred_at_once_over_two_processes_are_one_call(
    pair: tuple[list[LiveServer], str], upstream: MockUpstream, streamed: bool
) -> None:
    servers, key = pair
    answers = ask_at_once(
        [server.base_url for server in servers],
        times=100,
        key=key,
        request_id="once",
        body={**_QUESTION, "stream": streamed},
    )
    assert {answer.status for answer in answers} == {200}
    assert [answer.body for answer in answers] == [answers[0].body] * 100
    assert {answer.text for answer in answers} == {answers[0].body["response"] if streamed else None}
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 99
    assert [call.ended for call in upstream.calls()] == ["finished"]


def test_the_other_process_knows_what_was_answered(pair: tuple[list[LiveServer], str], upstream: MockUpstream) -> None:
    (first, second), key = pair
    made = ask(first.base_url, key=key, request_id="k", body=_QUESTION)
    again = ask(second.base_url, key=key, request_id="k", body=_QUESTION)
    conflict = ask(second.base_url, key=key, request_id="k", body={**_QUESTION, "prompt": "Another one."})
    assert (made.replayed, again.replayed, again.body) == (False, True, made.body)
    assert (conflict.status, conflict.body["error"]["code"]) == (409, "idempotency_conflict")
    assert len(upstream.calls()) == 1
