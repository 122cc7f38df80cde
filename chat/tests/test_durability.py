"""This process's journal: there from its start to its end, and nothing of the dead ones is left then."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from asgiref.sync import sync_to_async

from chat import durability, engine, rows
from chat.journal import Journal, JournalError
from chat.models import Interaction, Status
from chat.rows import ExchangeRows
from chat.tests.factories import AttemptFactory, InteractionFactory

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def directory(tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process that has just begun, with no journal in its directory."""
    durability.close()
    settings.JOURNAL_DIR = tmp_path / "journal"
    monkeypatch.setattr(durability, "_should_end", threading.Event())
    # However slow the machine.
    monkeypatch.setattr(durability, "_LAST_REPLAY", 60.0)
    yield settings.JOURNAL_DIR
    durability.close()


def _died(directory: Path, owner) -> ExchangeRows:
    """What a process had begun that was killed."""
    row = InteractionFactory.build(organization=owner.organization, attempt=None)
    begun = ExchangeRows(interaction=row, attempts=[AttemptFactory.build(interaction=row, number=1)])
    journal = Journal(directory, max_bytes=10**7)
    journal.begin(begun.id, rows.as_facts(begun))
    journal.close()
    return begun


def left_in(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


async def test_an_orderly_end_replays_whoever_died_meanwhile(owner, directory: Path) -> None:
    await durability.start()
    begun = await sync_to_async(_died)(directory, owner)
    await durability.stop()
    row = await Interaction.objects.aget()
    assert (row.id, row.status) == (begun.id, Status.INTERRUPTED)
    assert left_in(directory) == []


async def test_a_start_that_is_overtaken_by_the_end_leaves_no_journal(directory: Path) -> None:
    await durability.stop()
    with pytest.raises(JournalError, match="ending"):
        await durability.start()
    assert left_in(directory) == []


async def test_what_the_journal_holds_of_a_beginning_makes_the_rows_that_have_begun(
    caller, owner, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[dict[str, Any], ExchangeRows]] = []
    begin = Journal.begin

    def noting(self: Journal, exchange: UUID, facts: dict[str, Any]) -> None:
        recorder = next(each.recorder for each in engine._running if each.interaction.id == exchange)
        begun.append((orjson.loads(orjson.dumps(facts)), copy.deepcopy(recorder._rows())))
        begin(self, exchange, facts)

    monkeypatch.setattr(Journal, "begin", noting)
    await durability.start()
    me = caller(owner.raw)
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hello."}]}]
    said: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "Hello."}], "temperature": 0.5, "metadata": {"a": "b"}},
        {"messages": messages, "user": "me", "stop": ["x"]},
        {"messages": messages, "api_key": "a credential in a parameter"},
    ]
    for body in said:
        assert (await me.post("/v1/chat/completions", {"model": "simulated/ok", **body})).status_code == 200
    assert (await me.chat()).status_code == 200
    assert len(begun) == len(said) + 1
    for facts, whole in begun:
        assert rows.as_facts(rows.from_facts(facts)) == rows.as_facts(whole)
    await durability.stop()
