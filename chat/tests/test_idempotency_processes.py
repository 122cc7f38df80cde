"""A request id is answered once by several processes: two workers of one server, or two servers on one database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from chat.tests.asking_at_once import ask, ask_at_once, begin
from conftest import Serve
from llmchat.tests import ledger
from llmchat.tests.mock_upstream import MockUpstream
from llmchat.tests.needs import need
from llmchat.tests.servers import LiveServer, Redis, missing_programs
from llmchat.tests.waiting import eventually

#: The same for both servers: they take each other's fingerprints for their own.
_SECRET = "not secret, but long enough that nobody complains about it being short"
_QUESTION = {"userId": "u1", "prompt": "Once, please.", "model": "openai/mock-20?first=1&delay=0.01"}


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[MockUpstream]:
    with MockUpstream(tmp_path / "upstream") as running:
        yield running


@dataclass(frozen=True, slots=True)
class Processes:
    """Two web processes on one database, and a key. `base_urls`: where to ask; `reached` says whether a call that was
    shared by all was shared by both processes."""

    server: LiveServer
    base_urls: list[str]
    key: str

    def reached(self) -> bool:
        return all(claim.is_awaited for claim in ledger.claims(self.server))


class Start(Protocol):
    def __call__(self, **environment: str) -> Processes: ...


@pytest.fixture
def two_servers(serve: Serve, acme_key: str, upstream: MockUpstream) -> Start:
    """As on two machines: they share the database, not the journal."""

    def start(**environment: str) -> Processes:
        settings = {**upstream.environment, "SECRET_KEY": _SECRET, "LOG_LEVEL": "WARNING", **environment}
        first = serve("--no-background", environment=settings)
        shared = {"DATABASE_URL": f"sqlite:///{first.data / 'llmchat.sqlite3'}"}
        shared |= {name: first.environment[name] for name in ("DATABASE_URL", "REDIS_URL") if name in first.environment}
        second = serve("--no-background", environment={**settings, **shared})
        return Processes(first, [first.base_url, second.base_url], acme_key)

    return start


@pytest.fixture
def two_workers(serve: Serve, acme_key: str, upstream: MockUpstream) -> Iterator[Start]:
    """Of one server."""
    with ExitStack() as ending:

        def start(**environment: str) -> Processes:
            settings = {**upstream.environment, "LOG_LEVEL": "WARNING", **environment}
            need(missing_programs())
            settings["REDIS_URL"] = ending.enter_context(Redis()).url
            server = serve("--workers", "2", "--no-background", environment=settings)
            return Processes(server, [server.base_url], acme_key)

        yield start


@pytest.fixture(params=["two_workers", "two_servers"])
def processes(request: pytest.FixtureRequest) -> Processes:
    start: Start = request.getfixturevalue(request.param)
    return start()


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_hundred_at_once_are_one_call(processes: Processes, upstream: MockUpstream, streamed: bool) -> None:
    answers = ask_at_once(
        processes.base_urls,
        times=100,
        key=processes.key,
        request_id="once",
        body={**_QUESTION, "stream": streamed},
    )
    assert {answer.status for answer in answers} == {200}
    assert [answer.body for answer in answers] == [answers[0].body] * 100
    assert {answer.text for answer in answers} == {answers[0].body["response"] if streamed else None}
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 99
    assert {answer.tries for answer in answers} == {1}
    assert [call.ended for call in upstream.calls()] == ["finished"]
    assert processes.reached()


def test_a_call_goes_on_for_another_process_when_its_first_caller_leaves(
    two_servers: Start, upstream: MockUpstream
) -> None:
    processes = two_servers()
    first, second = processes.base_urls
    question = {**_QUESTION, "model": "openai/mock-20?first=0.1&delay=0.2", "stream": True}
    leaving = begin(first, key=processes.key, request_id="once", body=question)
    leaving.readline()
    with ThreadPoolExecutor(1) as pool:
        staying = pool.submit(ask, second, key=processes.key, request_id="once", body=question)
        eventually(processes.reached, wanted="somebody waits on the second server")
        leaving.close()
        answer = staying.result()
    assert (answer.status, answer.replayed) == (200, True)
    assert [call.ended for call in upstream.calls()] == ["finished"]
    assert [row.status for row in ledger.interactions(processes.server)] == ["succeeded"]


def test_a_stream_begins_while_another_process_is_at_its_answer(two_servers: Start, upstream: MockUpstream) -> None:
    processes = two_servers(KEEP_ALIVE_SECONDS="0.3")
    first, second = processes.base_urls
    question = {**_QUESTION, "model": "openai/mock-2?first=3", "stream": True}
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(ask, first, key=processes.key, request_id="once", body=question)
        eventually(lambda: len(upstream.calls()) == 1, wanted="the call")
        waiting = begin(second, key=processes.key, request_id="once", body=question)
        assert waiting.readline() == b": keep-alive\n"
        assert [call.ended for call in upstream.calls()] == [None]
        rest = waiting.read().decode()
        assert made.result().body["response"] in rest
    assert "event: done" in rest
    assert len(upstream.calls()) == 1


def test_the_other_process_knows_what_was_answered(two_servers: Start, upstream: MockUpstream) -> None:
    processes = two_servers()
    first, second = processes.base_urls
    made = ask(first, key=processes.key, request_id="k", body=_QUESTION)
    again = ask(second, key=processes.key, request_id="k", body=_QUESTION)
    conflict = ask(second, key=processes.key, request_id="k", body={**_QUESTION, "prompt": "Another one."})
    assert (made.replayed, again.replayed, again.body) == (False, True, made.body)
    assert (conflict.status, conflict.body["error"]["code"]) == (409, "idempotency_conflict")
    assert len(upstream.calls()) == 1
