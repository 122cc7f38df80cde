"""Claims of other processes on a request id, played in this one; `test_idempotency_processes` has real ones."""

import asyncio
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import OperationalError
from django.db.models.functions import Now

from chat import claims, engine, heartbeat, idempotency, rows
from chat.journal import Journal
from chat.models import IdempotencyClaim, Interaction, Status
from chat.rows import ExchangeRows
from chat.tests.conftest import frames
from chat.tests.factories import AttemptFactory, InteractionFactory
from llmchat.lib.uuid7 import uuid7
from providers.adapters.simulated import SimulatedAdapter

pytestmark = pytest.mark.django_db(transaction=True)

#: Takes about 0.2 s for its four words.
BRISK = "simulated/slow?delay=0.05&tokens=4"


async def until(condition) -> None:
    while not condition():  # noqa: ASYNC110 - nobody else waits for this
        await asyncio.sleep(0.01)


async def statuses() -> list[str]:
    return [row.status async for row in Interaction.objects.order_by("id")]


async def ask(person, model="simulated/echo", **fields):
    body = {"userId": "u1", "prompt": "Hello there.", "model": model, **fields}
    return await person.post("/v1/chat", body, Idempotency_Key="k-1")


def is_replayed(response) -> bool:
    return response.get("Idempotent-Replayed") == "true"


async def claimed_elsewhere(person, *, journal=None) -> IdempotencyClaim:
    """A claim as another process leaves it that has just begun to answer `ask`."""
    response = await ask(person)
    assert response.status_code == 200
    await until(lambda: not engine._running)
    claim = await IdempotencyClaim.objects.aget()
    await Interaction.objects.all().adelete()
    claim.interaction_id, claim.journal = uuid7(), journal or uuid7()
    await claim.asave()
    SimulatedAdapter.reset()
    idempotency.forget()
    return claim


async def give_up(waiting) -> None:
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.fixture
def hours(monkeypatch):
    """The clock of those who watch a claim stands still but for `pass_(seconds)`, after which all have looked again."""
    looked = 0
    now = 0.0
    real = claims._look

    def look(*args, **kwargs):
        nonlocal looked
        found = real(*args, **kwargs)
        looked += 1
        return found

    async def pass_(seconds: float) -> None:
        nonlocal now
        now += seconds
        before = looked
        # One look may have begun before.
        await until(lambda: looked >= before + 2)

    monkeypatch.setattr(claims, "_look", look)
    monkeypatch.setattr(claims, "PAUSES", (0.005, 0.005))
    monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: now))
    return pass_


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(claims, "SILENCE", 0.3)


# --- Who waits -------------------------------------------------------------------------------------------------------


async def test_who_waits_for_another_process_gets_its_answer(owner, caller):
    person = caller(owner.raw)
    claim = await claimed_elsewhere(person)
    waiting = asyncio.ensure_future(ask(person))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await sync_to_async(InteractionFactory.create)(
        id=claim.interaction_id, organization=owner.organization, response="From over there."
    )
    response = await waiting
    assert (is_replayed(response), response.json()["response"]) == (True, "From over there.")
    assert len(SimulatedAdapter.log) == 0


async def test_a_stream_begins_while_it_waits_for_another_process(owner, caller, settings):
    settings.KEEP_ALIVE_SECONDS = 0.05
    person = caller(owner.raw)
    claim = await claimed_elsewhere(person)
    response = await asyncio.wait_for(ask(person, stream=True), 5)
    parts = aiter(response.streaming_content)
    assert [await anext(parts), await anext(parts)] == [b": keep-alive\n\n"] * 2
    await sync_to_async(InteractionFactory.create)(
        id=claim.interaction_id, organization=owner.organization, response="From over there."
    )
    rest = b"".join([part async for part in parts])
    assert b'data: {"text":"From over there."}' in rest
    assert b"event: done" in rest
    assert len(SimulatedAdapter.log) == 0


async def test_a_waiting_stream_tells_what_came_in_between(owner, caller, settings, monkeypatch):
    settings.KEEP_ALIVE_SECONDS = 0.05
    monkeypatch.setattr(claims, "GRACE", 0.2 - settings.PROVIDER_TIMEOUTS["total"])
    person = caller(owner.raw)
    await claimed_elsewhere(person)
    response = await asyncio.wait_for(ask(person, stream=True), 5)
    name, data = (await frames(response))[-1]
    assert (name, data["error"]["code"]) == ("error", "idempotent_request_running")


async def test_a_stream_that_need_not_wait_has_its_status(owner, caller):
    person = caller(owner.raw)
    await claimed_elsewhere(person)
    conflict = await ask(person, stream=True, temperature=0.5)
    assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_waiting_stream_that_is_left_waits_no_longer(owner, caller, settings):
    settings.KEEP_ALIVE_SECONDS = 0.05
    person = caller(owner.raw)
    await claimed_elsewhere(person)
    parts = aiter(await ask(person, stream=True))
    await anext(parts)
    await parts.aclose()
    await until(lambda: not idempotency._entries)


async def test_who_waits_says_so(owner, caller):
    person = caller(owner.raw)
    claim = await claimed_elsewhere(person)
    assert not await claims.is_awaited(claim.interaction_id)
    waiting = asyncio.ensure_future(ask(person))
    while not await claims.is_awaited(claim.interaction_id):  # noqa: ASYNC110 - nobody else waits for this
        await asyncio.sleep(0.01)
    await give_up(waiting)


# --- Who does not answer any more ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_a_dead_process_is_succeeded_by_one_of_those_who_wait(owner, caller):
    person = caller(owner.raw)
    await claimed_elsewhere(person)
    responses = await asyncio.gather(*(ask(person) for _ in range(10)))
    assert [response.json() for response in responses] == [responses[0].json()] * 10
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_a_process_that_gives_signs_of_life_is_not_succeeded(owner, caller, hours):
    person = caller(owner.raw)
    claim = await claimed_elsewhere(person)
    waiting = asyncio.ensure_future(ask(person))
    for beats in range(1, 6):
        await hours(claims.SILENCE * 0.9)
        assert await IdempotencyClaim.objects.filter(pk=claim.pk).aupdate(beats=beats) == 1
        await hours(0)
    assert not waiting.done()
    assert len(SimulatedAdapter.log) == 0
    await give_up(waiting)


async def test_a_silent_process_is_not_succeeded_while_its_journal_is_held(owner, caller, hours):
    person = caller(owner.raw)
    held = await sync_to_async(Journal)(settings.JOURNAL_DIR, max_bytes=10**8)
    await claimed_elsewhere(person, journal=held.path.name)
    waiting = asyncio.ensure_future(ask(person))
    for _ in range(3):
        await hours(claims.SILENCE * 1.1)
    assert not waiting.done()
    await sync_to_async(held.close)()
    assert (await waiting).status_code == 200
    assert len(SimulatedAdapter.log) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("ended", [True, False])
async def test_the_journal_of_a_dead_process_is_asked_first(owner, caller, ended):
    person = caller(owner.raw)
    journal = await sync_to_async(Journal)(settings.JOURNAL_DIR, max_bytes=10**8)
    claim = await claimed_elsewhere(person, journal=journal.path.name)
    row = InteractionFactory.build(
        id=claim.interaction_id, organization=owner.organization, api_key=None, response="From the journal."
    )
    facts = rows.as_facts(ExchangeRows(interaction=row, attempts=[AttemptFactory.build(interaction=row)]))

    def write() -> None:
        journal.begin(row.id, facts)
        if ended:
            journal.end(row.id, facts)
        journal.close()

    await sync_to_async(write)()
    response = await ask(person)
    if ended:
        assert (is_replayed(response), response.json()["response"]) == (True, "From the journal.")
        assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 0)
    else:
        assert (is_replayed(response), response.json()["response"]) == (False, "Hello there.")
        assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.INTERRUPTED, Status.SUCCEEDED], 1)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.INTERRUPTED])
async def test_a_call_that_ended_badly_elsewhere_is_made_anew_at_once(owner, caller, status):
    person = caller(owner.raw)
    claim = await claimed_elsewhere(person)
    await sync_to_async(InteractionFactory.create)(
        id=claim.interaction_id, organization=owner.organization, status=status
    )
    response = await ask(person)
    assert (response.status_code, is_replayed(response)) == (200, False)
    assert len(SimulatedAdapter.log) == 1


# --- Who holds -------------------------------------------------------------------------------------------------------


async def test_a_process_beats_for_what_it_answers_and_stops_when_the_row_is_there(owner, caller, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)
    response = await ask(caller(owner.raw), model="simulated/slow?delay=0.1&tokens=4")
    claim = await IdempotencyClaim.objects.aget()
    assert str(claim.interaction_id) == response.json()["id"]
    assert claim.beats > 0
    await until(lambda: not heartbeat._held)


async def test_a_call_goes_on_for_those_who_wait_elsewhere(owner, caller):
    person = caller(owner.raw)
    parts = aiter(await ask(person, model=BRISK, stream=True))
    await anext(parts)
    await IdempotencyClaim.objects.aupdate(awaited_at=Now())
    await parts.aclose()
    await engine.drain()
    assert await statuses() == [Status.SUCCEEDED]


async def test_a_call_ends_when_nobody_waits_elsewhere_any_more(owner, caller, monkeypatch):
    monkeypatch.setattr(claims, "AWAITED", 0.3)
    person = caller(owner.raw)
    parts = aiter(await ask(person, model="simulated/slow?delay=0.05&tokens=100", stream=True))
    await anext(parts)
    await IdempotencyClaim.objects.aupdate(awaited_at=Now())
    await parts.aclose()
    await engine.drain()
    row = await Interaction.objects.aget()
    assert row.status == Status.CANCELLED
    assert len(row.response.split()) > 4


async def test_a_call_that_goes_on_for_others_can_be_joined_again(owner, caller):
    person = caller(owner.raw)
    parts = aiter(await ask(person, model=BRISK, stream=True))
    await anext(parts)
    await IdempotencyClaim.objects.aupdate(awaited_at=Now())
    await parts.aclose()
    again = await ask(person, model=BRISK)
    assert (again.status_code, is_replayed(again)) == (200, True)
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_a_claim_that_could_not_be_given_back_is_given_back_later(owner, caller, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    real = heartbeat._delete

    def fail(_):
        monkeypatch.setattr(heartbeat, "_delete", real)
        raise OperationalError("gone")

    monkeypatch.setattr(heartbeat, "_delete", fail)
    assert (await ask(caller(owner.raw), model="nobody/knows")).status_code == 404
    while await IdempotencyClaim.objects.aexists():  # noqa: ASYNC110 - it is given back behind the answer
        await asyncio.sleep(0.01)
    assert not heartbeat._unwanted


async def test_a_claim_of_which_nobody_learnt_that_it_was_won_is_given_back(owner, caller, monkeypatch):
    """The connection breaks between the claim's commit and the word of it: nobody is at the answer."""
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    real = IdempotencyClaim.objects.bulk_create

    def put_and_break(*args, **kwargs):
        monkeypatch.setattr(IdempotencyClaim.objects, "bulk_create", real)
        real(*args, **kwargs)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(IdempotencyClaim.objects, "bulk_create", put_and_break)
    person = caller(owner.raw)
    assert (await ask(person)).status_code == 503
    again = await asyncio.wait_for(ask(person), 5)
    assert (again.status_code, is_replayed(again), len(SimulatedAdapter.log)) == (200, False, 1)


async def test_a_claim_that_lands_after_its_connection_broke_is_given_back(owner, caller, monkeypatch):
    """The database goes on with a statement whose client it has lost."""
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    landed = []

    def break_first(new, **_):
        monkeypatch.undo()
        monkeypatch.setattr(heartbeat, "BEAT", 0.05)
        landed.extend(new)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(IdempotencyClaim.objects, "bulk_create", break_first)
    person = caller(owner.raw)
    assert (await ask(person)).status_code == 503
    await asyncio.sleep(0.2)
    await IdempotencyClaim.objects.abulk_create(landed)
    again = await asyncio.wait_for(ask(person), 5)
    assert (again.status_code, is_replayed(again), len(SimulatedAdapter.log)) == (200, False, 1)
