"""Group commit: together, in order, past what the database refuses, and by the journal while it is away."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.db import DataError, InternalError, OperationalError

from chat import committer as module
from chat import journal, quarantine, recovery, rows, storing
from chat.committer import Committer, NotDurable
from chat.journal import Journal
from chat.models import Attempt, Interaction, QuarantinedExchange, Status
from chat.rows import ExchangeRows
from chat.tests.factories import AttemptFactory, InteractionFactory
from llmchat.tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def committer(tmp_path: Path) -> Iterator[Committer]:
    made = Committer(Journal(tmp_path, max_bytes=10**8), patience=0.2)
    yield made
    made.close(timeout=10)


@pytest.fixture
def in_a_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committer]:
    """Waits for others as in a crowd, with patience for slow machines."""
    monkeypatch.setattr(module, "CROWDED", 0.0)
    monkeypatch.setattr(module, "LINGER", 20.0)
    monkeypatch.setattr(module, "LULL", 0.3)
    made = Committer(Journal(tmp_path, max_bytes=10**8), patience=30.0)
    yield made
    made.close(timeout=10)


def exchange(organization, **fields) -> ExchangeRows:
    row = InteractionFactory.build(organization=organization, attempt=None, **fields)
    return ExchangeRows(interaction=row, attempts=[AttemptFactory.build(interaction=row, number=1)])


class Database:
    """The real store, which fails while `error` is set, and counts its transactions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.transactions = 0
        self.batches: list[int] = []
        real = rows.store

        def store(batch):
            self.transactions += 1
            self.batches.append(len(batch))
            if self.error is not None:
                raise self.error
            real(batch)

        monkeypatch.setattr(rows, "store", store)


@pytest.fixture
def database(monkeypatch) -> Database:
    return Database(monkeypatch)


@sync_to_async
def stored() -> list[Interaction]:
    return list(Interaction.objects.order_by("id"))


async def until_committed(committer: Committer) -> None:
    while committer.backlog:  # noqa: ASYNC110 - a thread has no event to wait for
        await asyncio.sleep(0.01)


def test_rows_survive_the_way_through_json(owner) -> None:
    made = exchange(owner.organization, metadata={"ä": "ö"}, cost="0.000001230000", tool_calls=[{"id": "c"}])
    again = rows.from_facts(orjson.loads(orjson.dumps(rows.as_facts(made))))
    rows.store([again])
    row = Interaction.objects.get()
    for field in Interaction._meta.concrete_fields:
        assert getattr(row, field.attname) == field.to_python(getattr(made.interaction, field.attname)), field.name
    assert Attempt.objects.get().interaction_id == row.id


async def test_what_finishes_together_shares_a_transaction(owner, committer, database) -> None:
    made = [exchange(owner.organization) for _ in range(60)]
    for one in made:
        committer.journal.begin(one.id, rows.as_facts(one))
    await asyncio.gather(*(committer.commit(one) for one in made))
    assert [row.id for row in await stored()] == sorted(one.id for one in made)
    assert database.transactions < 30
    assert (committer.journal.unsettled, committer.backlog) == (0, 0)


async def test_committing_twice_leaves_one_row(owner, committer) -> None:
    one = exchange(owner.organization)
    await committer.commit(one)
    await committer.commit(one)
    assert len(await stored()) == 1
    assert await Attempt.objects.acount() == 1


async def test_a_refused_row_is_in_quarantine_and_its_neighbours_are_stored(owner, committer, monkeypatch) -> None:
    made = [exchange(owner.organization) for _ in range(9)]
    poisoned = made[4]
    real = rows.store

    def store(batch):
        if any(one.id == poisoned.id for one in batch):
            raise DataError("this cannot be stored")
        real(batch)

    monkeypatch.setattr(rows, "store", store)
    await asyncio.gather(*(committer.commit(one) for one in made))
    assert {row.id for row in await stored()} == {one.id for one in made} - {poisoned.id}
    kept = await QuarantinedExchange.objects.aget()
    assert (kept.id, kept.reason) == (poisoned.id, "DataError: this cannot be stored")
    monkeypatch.setattr(rows, "store", real)
    await sync_to_async(quarantine.release)(kept)
    assert {row.id for row in await stored()} == {one.id for one in made}
    assert not await QuarantinedExchange.objects.aexists()


async def test_while_the_database_is_away_the_synced_journal_must_do(owner, committer, database, monkeypatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    database.error = OperationalError("gone")
    made = [exchange(owner.organization) for _ in range(20)]
    for one in made:
        await committer.commit(one)
    assert synced
    assert await stored() == []
    assert committer.backlog == 20
    assert not committer.is_behind
    await asyncio.sleep(0.25)
    assert committer.is_behind
    # Nobody waits for them: memory keeps where they stand, not what they say.
    assert all(item.exchange is None for item in committer._queue)
    database.error = None
    await until_committed(committer)
    assert [row.id for row in await stored()] == sorted(one.id for one in made)
    assert [row.prompt for row in await stored()] == [one.interaction.prompt for one in made]
    assert (committer.journal.unsettled, committer.is_behind) == (0, False)


async def test_an_outage_takes_no_more_memory_than_a_portion_of_it(owner, committer, database, monkeypatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 50_000)
    database.error = OperationalError("gone")
    made = [exchange(owner.organization, prompt="x" * 20_000) for _ in range(10)]
    for one in made:
        await committer.commit(one)
    # One is enough to see that it is still away.
    assert set(database.batches) == {1}
    database.batches.clear()
    database.error = None
    await until_committed(committer)
    assert sum(database.batches) >= len(made)
    assert max(database.batches) == 3
    assert [row.id for row in await stored()] == sorted(one.id for one in made)


def test_a_replay_takes_no_more_memory_than_a_portion_of_it(owner, tmp_path, database, monkeypatch) -> None:
    monkeypatch.setattr(recovery, "BATCH_BYTES", 50_000)
    dead = Journal(tmp_path, max_bytes=10**8)
    for number in range(10):
        one = exchange(owner.organization, prompt="x" * 20_000)
        dead.begin(one.id, rows.as_facts(one))
        if number % 2:
            dead.end(one.id, rows.as_facts(one))
    dead.close()
    report = recovery.replay(tmp_path)
    assert (report.ended, report.interrupted) == (5, 5)
    assert database.batches == [3, 2, 3, 2]


async def test_who_still_waits_is_found_without_a_look_at_those_who_do_not(owner, committer, database) -> None:
    database.error = OperationalError("gone")
    for _ in range(20):
        await committer.commit(exchange(owner.organization))
    looked_at: list[int] = []

    class Queue(deque):
        def __getitem__(self, place):
            looked_at.append(place)
            return super().__getitem__(place)

    with committer._lock:
        committer._queue = Queue(committer._queue)
        assert committer._unreleased() == []
    assert len(looked_at) <= 1


async def test_a_standby_that_only_reads_puts_nobody_into_quarantine(owner, committer, database) -> None:
    database.error = InternalError("cannot execute INSERT in a read-only transaction")
    made = [exchange(owner.organization) for _ in range(3)]
    await asyncio.gather(*(committer.commit(one) for one in made))
    assert committer.backlog == 3
    database.error = None
    await until_committed(committer)
    assert {row.id for row in await stored()} == {one.id for one in made}
    assert await QuarantinedExchange.objects.acount() == 0


def test_a_replay_waits_for_a_standby_to_write(owner, tmp_path, database, monkeypatch) -> None:
    monkeypatch.setattr(recovery, "PAUSE", 0.05)
    dead = Journal(tmp_path, max_bytes=10**8)
    one = exchange(owner.organization)
    dead.end(one.id, rows.as_facts(one))
    dead.close()
    database.error = InternalError("cannot execute INSERT in a read-only transaction")
    replaying = threading.Thread(
        target=recovery.replay_until_done, args=(tmp_path,), kwargs={"should_end": threading.Event()}
    )
    replaying.start()
    eventually(lambda: database.transactions >= 2, wanted="another try")
    database.error = None
    replaying.join(30)
    assert list(tmp_path.iterdir()) == []


async def test_a_database_that_hangs_keeps_nobody_waiting(owner, committer, monkeypatch) -> None:
    goes_on = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = rows.store

    def store(batch):
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(30)
        real(batch)

    monkeypatch.setattr(rows, "store", store)
    one = exchange(owner.organization)
    await asyncio.wait_for(committer.commit(one), 20)
    assert await stored() == []
    goes_on.set()
    await until_committed(committer)
    assert [row.id for row in await stored()] == [one.id]


async def test_with_neither_database_nor_journal_it_is_not_durable(owner, committer, database, monkeypatch) -> None:
    database.error = OperationalError("gone")

    def full(*_):
        raise journal.JournalFull("no room")

    monkeypatch.setattr(committer.journal, "end", full)
    one = exchange(owner.organization)
    with pytest.raises(NotDurable):
        await committer.commit(one)
    database.error = None
    await until_committed(committer)
    assert [row.id for row in await stored()] == [one.id]


async def test_what_the_database_did_not_take_is_replayed_by_the_next_process(owner, tmp_path, database) -> None:
    dying = await sync_to_async(lambda: Committer(Journal(tmp_path, max_bytes=10**8), patience=0.2))()
    ended, begun = exchange(owner.organization), exchange(owner.organization)
    database.error = OperationalError("gone")
    dying.journal.begin(begun.id, rows.as_facts(begun))
    await dying.commit(ended)
    await sync_to_async(dying.close)(timeout=10)
    database.error = None
    report = await sync_to_async(recovery.replay)(tmp_path)
    assert (report.journals, report.ended, report.interrupted, report.complaints) == (1, 1, 1, [])
    one, two = await stored()
    assert (one.id, one.status, one.response) == (ended.id, ended.interaction.status, ended.interaction.response)
    assert (two.id, two.status, two.error_code) == (begun.id, Status.INTERRUPTED, "interrupted")
    assert await Attempt.objects.acount() == 2
    assert list(tmp_path.iterdir()) == []


def test_a_replay_leaves_the_living_and_the_foreign_alone(owner, tmp_path) -> None:
    living = Journal(tmp_path, max_bytes=10**8)
    one = exchange(owner.organization)
    living.begin(one.id, rows.as_facts(one))
    (tmp_path / "lost+found").mkdir()
    report = recovery.replay(tmp_path)
    assert (report.journals, Interaction.objects.count()) == (0, 0)
    assert [complaint.endswith("it is left alone") for complaint in report.complaints] == [True]
    living.close()


def test_a_damaged_segment_is_replayed_as_far_as_it_can_be_read_and_kept(owner, tmp_path) -> None:
    dead = Journal(tmp_path, max_bytes=10**8)
    one, two = exchange(owner.organization), exchange(owner.organization)
    dead.end(one.id, rows.as_facts(one))
    dead.end(two.id, rows.as_facts(two))
    dead.close()
    [segment] = journal.segments(dead.path)
    segment.write_bytes(segment.read_bytes()[:-10] + b"xxxxxxxxx\n")
    report = recovery.replay(tmp_path)
    assert (report.ended, len(report.complaints)) == (1, 1)
    assert [row.id for row in Interaction.objects.all()] == [one.id]
    assert [file.suffix for file in dead.path.iterdir() if file.name != "owner.lock"] == [".damaged"]
    assert recovery.replay(tmp_path).complaints == []


def test_an_interrupted_replay_can_be_repeated(owner, tmp_path, monkeypatch) -> None:
    dead = Journal(tmp_path, max_bytes=10**8)
    made = [exchange(owner.organization) for _ in range(5)]
    for one in made:
        dead.end(one.id, rows.as_facts(one))
    dead.close()
    monkeypatch.setattr(recovery, "BATCH", 2)
    real, calls = storing.store_or_quarantine, []

    def failing(batch):
        calls.append(batch)
        if len(calls) == 2:
            raise OperationalError("gone")
        real(batch)

    monkeypatch.setattr(recovery, "store_or_quarantine", failing)
    with pytest.raises(OperationalError):
        recovery.replay(tmp_path)
    assert Interaction.objects.count() == 2
    assert recovery.replay(tmp_path).ended == 5
    assert Interaction.objects.count() == 5
    assert list(tmp_path.iterdir()) == []


async def test_nobody_who_is_alone_waits_for_others(owner, in_a_crowd, monkeypatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    one = exchange(owner.organization)
    in_a_crowd.journal.begin(one.id, rows.as_facts(one))
    await in_a_crowd.commit(one)
    assert slept == []


async def test_in_a_crowd_a_transaction_waits_for_those_who_are_about_to_end(owner, in_a_crowd, database) -> None:
    made = [exchange(owner.organization) for _ in range(4)]
    for one in made:
        in_a_crowd.journal.begin(one.id, rows.as_facts(one))
    async with asyncio.TaskGroup() as group:
        for one in made:
            group.create_task(in_a_crowd.commit(one))
            await asyncio.sleep(0.01)
    assert database.transactions == 1
    assert len(await stored()) == 4


async def test_one_call_wakes_the_loop_for_a_whole_transaction(owner, in_a_crowd, monkeypatch) -> None:
    loop = asyncio.get_running_loop()
    woken: list[int] = []
    real = loop.call_soon_threadsafe

    def count(callback, *args):
        if callback is module._wake:
            woken.append(len(args[0]))
        return real(callback, *args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    made = [exchange(owner.organization) for _ in range(20)]
    for one in made:
        in_a_crowd.journal.begin(one.id, rows.as_facts(one))
    await asyncio.gather(*(in_a_crowd.commit(one) for one in made))
    assert woken == [20]
