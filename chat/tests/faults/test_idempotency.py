"""The process that answers a request id dies, or the database does: nobody waits for ever, nothing is called twice."""

from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from chat.tests.asking_at_once import Answer, ask, ask_at_once, ask_until_answered
from chat.tests.faults.conftest import SetStage
from chat.tests.faults.stage import Stage
from conftest import Serve
from llmchat.tests import ledger
from llmchat.tests.servers import LiveServer, PostgreSQL
from llmchat.tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

_SECRET = "not secret, but long enough that nobody complains about it being short"
_QUESTION = {"userId": "u1", "prompt": "Once, please.", "model": "openai/mock-20?first=4&delay=0.01"}


def _beside(stage: Stage, serve: Serve) -> LiveServer:
    """Another server, as if on another machine: it shares the database, not the journal."""
    database = stage.server.environment.get("DATABASE_URL", f"sqlite:///{stage.server.data / 'llmchat.sqlite3'}")
    settings = {**stage.upstream.environment, "SECRET_KEY": _SECRET, "DATABASE_URL": database, "LOG_LEVEL": "WARNING"}
    return serve("--no-background", environment=settings)


def _somebody_else_waits(stage: Stage) -> bool:
    return [claim.is_awaited for claim in ledger.claims(stage.server)] == [True]


def test_those_who_wait_for_a_killed_server_are_answered_by_one_call(
    set_stage: SetStage, serve: Serve, either_database: PostgreSQL | None
) -> None:
    stage = set_stage(postgresql=either_database, environment={"SECRET_KEY": _SECRET})
    other = _beside(stage, serve)
    with ThreadPoolExecutor(2) as pool:
        cut: Future[Answer] = pool.submit(ask, stage.server.base_url, key=stage.key, request_id="once", body=_QUESTION)
        eventually(lambda: len(stage.upstream.calls()) == 1, wanted="the first call")
        waiting = pool.submit(ask_at_once, [other.base_url], times=20, key=stage.key, request_id="once", body=_QUESTION)
        eventually(lambda: _somebody_else_waits(stage), wanted="the other server waits")
        stage.server.kill()
        with pytest.raises(ConnectionError):
            cut.result()
        answers = waiting.result()
    assert {(answer.status, answer.tries) for answer in answers} == {(200, 1)}
    assert [answer.body for answer in answers] == [answers[0].body] * 20
    assert [call.ended for call in stage.upstream.calls()] == ["gone", "finished"]
    stage.server.start()
    again = ask(stage.server.base_url, key=stage.key, request_id="once", body=_QUESTION)
    assert (again.replayed, again.body) == (True, answers[0].body)
    stage.tell(f"20 waited for a killed server; upstream calls: {len(stage.upstream.calls())}")


def test_a_killed_worker_is_succeeded_by_another(set_stage: SetStage, either_database: PostgreSQL | None) -> None:
    stage = set_stage(workers=2, postgresql=either_database)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask_until_answered, stage.server.base_url, key=stage.key, request_id="once", body=_QUESTION)
        eventually(lambda: len(stage.upstream.calls()) == 1, wanted="the first call")
        asking = pool.submit(
            ask_at_once, [stage.server.base_url], times=30, key=stage.key, request_id="once", body=_QUESTION
        )
        eventually(lambda: _somebody_else_waits(stage), wanted="the other worker waits")
        stage.end_worker(stage.answering_worker(), signal.SIGKILL)
        answers = [first.result(), *asking.result()]
    assert {answer.status for answer in answers} == {200}
    assert [answer.body for answer in answers] == [answers[0].body] * 31
    # Those whose connection broke asked again; the others were answered where they waited.
    assert {1, 2} <= {answer.tries for answer in answers}
    assert answers[0].tries == 2
    assert [call.ended for call in stage.upstream.calls()] == ["gone", "finished"]


def test_what_is_only_in_the_journal_of_a_killed_server_is_not_asked_again(
    set_stage: SetStage, postgresql: PostgreSQL
) -> None:
    stage = set_stage(postgresql=postgresql)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, stage.server.base_url, key=stage.key, request_id="once", body=_QUESTION)
        eventually(lambda: len(stage.upstream.calls()) == 1, wanted="the call")
        postgresql.stop()
        made = asking.result()
    assert made.status == 200
    stage.server.kill()
    postgresql.start()
    assert ledger.interactions(stage.server) == []
    stage.server.start()
    answers = ask_at_once([stage.server.base_url], times=20, key=stage.key, request_id="once", body=_QUESTION)
    assert {(answer.status, answer.replayed) for answer in answers} == {(200, True)}
    assert [answer.body["id"] for answer in answers] == [made.body["id"]] * 20
    assert [call.ended for call in stage.upstream.calls()] == ["finished"]


def test_without_the_database_nothing_is_spent_on_a_request_id(set_stage: SetStage, postgresql: PostgreSQL) -> None:
    stage = set_stage(postgresql=postgresql)
    body = {**_QUESTION, "model": "openai/mock-1"}
    made = ask(stage.server.base_url, key=stage.key, request_id="before", body=body)
    postgresql.stop()
    refused = ask(stage.server.base_url, key=stage.key, request_id="during", body=body)
    postgresql.start()
    again = ask(stage.server.base_url, key=stage.key, request_id="before", body=body)
    assert (refused.status, refused.body["error"]["code"]) == (503, "database_unavailable")
    assert int(refused.retry_after or 0) > 0
    assert (again.replayed, again.body) == (True, made.body)
    assert len(stage.upstream.calls()) == 1
