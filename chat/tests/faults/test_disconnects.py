"""O6: clients leave in mid-stream: the vendor is left at once, and what came until then is on record."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chat.tests.faults.conftest import SetStage
from llmchat.tests import ledger
from llmchat.tests.servers import PostgreSQL
from llmchat.tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

#: Much longer than the ten pieces after which the last client has left.
CHUNKS = 400
LONG = f"openai/mock-{CHUNKS}?delay=0.02"


def test_streams_that_clients_leave_are_cancelled_upstream_and_on_record(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int]
) -> None:
    stage = set_stage(workers=2, postgresql=either_database)
    count = fault_rounds(1000)
    with stage.load(model=LONG, connections=20, streamed=1.0, abandoned=1.0, count=count) as load:
        load.finish()
    assert [call.ending for call in load.calls] == ["abandoned"] * count
    eventually(lambda: all(call.ended for call in stage.upstream.calls()), wanted="the vendor is left by all")
    assert [call.ended for call in stage.upstream.calls()] == ["gone"] * count
    assert stage.settled(load.calls).differences == []
    eventually(lambda: len(ledger.interactions(stage.server)) == count, wanted="all interactions on record")
    rows = {row.prompt: row for row in ledger.interactions(stage.server)}
    whole = "".join(f"word{number} " for number in range(CHUNKS))
    wrong = [
        (row, call.text)
        for call in load.calls
        for row in [rows[call.prompt]]
        if row.status != "cancelled"
        or not row.usage_estimated
        or not row.output_tokens
        or not row.response.startswith(call.text)
        or not whole.startswith(row.response)
        or row.response == whole
    ]
    assert wrong == []
    stage.close_the_books(load.calls)
