"""O6: clients leave in mid-stream: the vendor is left at once, or heard out by setting, and what came is on record."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chat.tests.faults.conftest import SetStage
from llmchat.tests import ledger
from llmchat.tests.ledger import InteractionRow
from llmchat.tests.servers import PostgreSQL
from llmchat.tests.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

#: Much longer than the ten pieces after which the last client has left.
CHUNKS = 400
LONG = f"openai/mock-{CHUNKS}?delay=0.02"


@pytest.mark.parametrize("setting", ["cancel", "drain"])
def test_streams_that_clients_leave_are_on_record_with_what_was_produced(
    set_stage: SetStage, either_database: PostgreSQL | None, fault_rounds: Callable[[int], int], setting: str
) -> None:
    stage = set_stage(workers=2, postgresql=either_database, environment={"ON_DISCONNECT": setting})
    count = fault_rounds(1000)
    with stage.load(model=LONG, connections=20, streamed=1.0, abandoned=1.0, count=count) as load:
        load.finish()
    assert [call.ending for call in load.calls] == ["abandoned"] * count
    eventually(lambda: all(call.ended for call in stage.upstream.calls()), wanted="the vendor is done with all")
    endings = [call.ended for call in stage.upstream.calls()]
    assert endings == ["gone" if setting == "cancel" else "finished"] * count
    assert stage.settled(load.calls).differences == []
    eventually(lambda: len(ledger.interactions(stage.server)) == count, wanted="all interactions on record")
    whole = "".join(f"word{number} " for number in range(CHUNKS))

    def is_right(row: InteractionRow, shown: str) -> bool:
        if row.status != "cancelled" or not row.response.startswith(shown):
            return False
        if setting == "drain":
            return (row.response, row.output_tokens, row.usage_estimated) == (whole, CHUNKS, False)
        is_cut = whole.startswith(row.response) and row.response != whole
        return is_cut and bool(row.output_tokens) and row.usage_estimated

    rows = {row.prompt: row for row in ledger.interactions(stage.server)}
    wrong = [(rows[call.prompt], call.text) for call in load.calls if not is_right(rows[call.prompt], call.text)]
    assert wrong == []
    stage.close_the_books(load.calls)
