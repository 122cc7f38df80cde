"""A request id is answered once, in this process; `test_idempotency_processes` asks the same of several."""

import asyncio
import datetime as dt
import re
from contextlib import aclosing

import orjson
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from accounts.models import Organization, Plan
from chat import claims, engine
from chat.models import IdempotencyClaim, Interaction, Status
from chat.tests.conftest import frames
from providers.adapters.simulated import SimulatedAdapter

pytestmark = pytest.mark.django_db(transaction=True)

#: Takes about 0.2 s for its four words.
BRISK = "simulated/slow?delay=0.05&tokens=4"


async def statuses() -> list[str]:
    return [row.status async for row in Interaction.objects.order_by("id")]


async def ask(person, prompt="Hello there.", model="simulated/echo", **fields):
    body = {"userId": "u1", "prompt": prompt, "model": model, **fields}
    return await person.post("/v1/chat", body, Idempotency_Key="k-1")


async def complete(person, prompt="Hello there.", model="simulated/echo", **fields):
    body = {"user": "u1", "messages": [{"role": "user", "content": prompt}], "model": model, **fields}
    return await person.post("/v1/chat/completions", body, Idempotency_Key="k-1")


def text_of(events):
    return "".join(data["text"] for name, data in events if name == "delta")


def content_of(chunks):
    pieces = [choice["delta"].get("content") for _, data in chunks if data != "[DONE]" for choice in data["choices"]]
    return "".join(piece for piece in pieces if piece)


def is_replayed(response) -> bool:
    return response.get("Idempotent-Replayed") == "true"


@pytest.fixture
def go_on(monkeypatch) -> asyncio.Event:
    """The simulated provider falls silent after two pieces of an answer until this is set."""
    goes_on, real = asyncio.Event(), SimulatedAdapter.stream

    async def stream(self, request):
        async with aclosing(real(self, request)) as events:
            said = 0
            async for event in events:
                if said == 2:
                    await goes_on.wait()
                said += 1
                yield event

    monkeypatch.setattr(SimulatedAdapter, "stream", stream)
    return goes_on


# --- Finished calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_finished_call_is_answered_from_the_record(owner, caller, streamed):
    person = caller(owner.raw)
    first = await ask(person, stream=streamed)
    answer = (await frames(first))[-1][1] if streamed else first.json()
    again = await ask(person)
    events = await frames(await ask(person, stream=True))
    assert (is_replayed(first), is_replayed(again)) == (False, True)
    assert (again.status_code, again.json()) == (200, answer)
    assert events == [("delta", {"text": "Hello there."}), ("done", answer)]
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_either_dialect_gets_the_same_answer(owner, caller):
    person = caller(owner.raw)
    native = (await ask(person)).json()
    whole = await complete(person)
    streamed = await complete(person, stream=True)
    assert (is_replayed(whole), is_replayed(streamed)) == (True, True)
    chunks = await frames(streamed)
    assert whole.json()["id"] == f"chatcmpl-{native['id']}"
    assert whole.json()["choices"][0]["message"]["content"] == content_of(chunks) == "Hello there."
    assert chunks[-1] == ("", "[DONE]")
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_reasoning_and_tool_calls_come_again(owner, caller):
    person = caller(owner.raw)
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    first = (await complete(person, model="simulated/tool-call", tools=tools)).json()
    again = await complete(person, model="simulated/tool-call", tools=tools, stream=True)
    pieces = [data["choices"][0]["delta"] for _, data in await frames(again) if data != "[DONE]"]
    [call] = next(piece["tool_calls"] for piece in pieces if "tool_calls" in piece)
    assert is_replayed(again)
    assert call == {"index": 0, **first["choices"][0]["message"]["tool_calls"][0]}


async def test_the_body_may_carry_the_id(owner, caller):
    person = caller(owner.raw)
    first = await person.chat(requestId="k-1")
    again = await person.chat(requestId="k-1")
    assert (is_replayed(first), is_replayed(again), first.json()) == (False, True, again.json())


async def test_a_replay_does_not_count_against_the_limit(owner, caller):
    await Plan.objects.aupdate(requests_per_hour=10)
    person = caller(owner.raw)
    first = await ask(person)
    again = await ask(person)
    other = await person.chat()
    assert int(other["X-RateLimit-Remaining"]) == int(first["X-RateLimit-Remaining"]) - 1
    assert "X-RateLimit-Remaining" not in again


async def test_an_id_is_the_organizations_own(owner, stranger, caller):
    first = await ask(caller(owner.raw))
    others = await ask(caller(stranger.raw), prompt="Something else.")
    assert (is_replayed(others), others.json()["response"]) == (False, "Something else.")
    assert first.json()["response"] == "Hello there."


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Something else."},
        {"model": "simulated/ok"},
        {"temperature": 0.5},
        {"userId": "u2"},
        {"systemPrompt": "Be brief."},
        {"conversationId": "01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b12"},
    ],
)
async def test_another_body_is_a_conflict(owner, caller, other):
    person = caller(owner.raw)
    await ask(person)
    response = await ask(person, **other)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert response.json()["error"]["type"] == "conflict_error"
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_another_body_is_a_conflict_while_the_call_runs(owner, caller):
    person = caller(owner.raw)
    running = asyncio.ensure_future(ask(person, model=BRISK))
    while not SimulatedAdapter.running:  # noqa: ASYNC110 - the provider has no event to wait for
        await asyncio.sleep(0.01)
    conflict = await ask(person, model=BRISK, prompt="Something else.")
    assert (conflict.status_code, (await running).status_code) == (409, 200)


async def test_an_answer_that_is_not_kept_is_not_given_again(owner, caller):
    await Organization.objects.filter(id=owner.organization.id).aupdate(log_responses=False)
    person = caller(owner.raw)
    first, joined = await asyncio.gather(ask(person, model=BRISK), ask(person, model=BRISK))
    later = await ask(person, model=BRISK)
    assert (first.json(), first.status_code) == (joined.json(), 200)
    assert (later.status_code, later.json()["error"]["code"]) == (409, "idempotent_answer_not_kept")


async def test_a_prompt_that_is_not_kept_is_in_the_answer_all_the_same(owner, caller):
    await Organization.objects.filter(id=owner.organization.id).aupdate(log_prompts=False)
    person = caller(owner.raw)
    assert (await ask(person)).json() == (await ask(person)).json()


# --- Calls that did not succeed --------------------------------------------------------------------------------------


async def test_a_failed_call_may_be_tried_again(owner, caller, settings):
    person = caller(owner.raw)
    settings.DEFAULT_MODEL = "simulated/content-policy"
    failed = await ask(person, model="auto")
    settings.DEFAULT_MODEL = "simulated/echo"
    again = await ask(person, model="auto")
    assert (failed.status_code, again.status_code, is_replayed(again)) == (400, 200, False)
    rows = [(row.status, row.request_id) async for row in Interaction.objects.order_by("id")]
    assert rows == [(Status.FAILED, "k-1"), (Status.SUCCEEDED, "k-1")]


async def test_a_call_that_was_refused_gives_its_id_back(owner, caller):
    person = caller(owner.raw)
    await Plan.objects.aupdate(requests_per_hour=1)
    await person.chat()
    refused = await ask(person)
    while await IdempotencyClaim.objects.aexists():  # noqa: ASYNC110 - it is given back behind the answer
        await asyncio.sleep(0.01)
    assert refused.status_code == 429
    assert await statuses() == [Status.SUCCEEDED]


async def test_an_unknown_model_gives_the_id_back(owner, caller):
    person = caller(owner.raw)
    assert (await ask(person, model="nobody/knows")).status_code == 404
    while await IdempotencyClaim.objects.aexists():  # noqa: ASYNC110 - it is given back behind the answer
        await asyncio.sleep(0.01)
    assert (await ask(person)).status_code == 200


# --- Calls under way -------------------------------------------------------------------------------------------------


async def test_all_who_ask_at_once_get_one_answer(owner, caller):
    person = caller(owner.raw)
    responses = await asyncio.gather(*(ask(person, model=BRISK) for _ in range(50)))
    answers = [response.json() for response in responses]
    assert answers == [answers[0]] * 50
    assert sorted(is_replayed(response) for response in responses) == [False] + [True] * 49
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


@pytest.mark.parametrize("first", [False, True])
async def test_streams_and_whole_answers_share_one_call(owner, caller, first):
    person = caller(owner.raw)

    async def answer(*, stream):
        response = await ask(person, model=BRISK, stream=stream)
        if not stream:
            return response.json()
        events = await frames(response)
        assert text_of(events) == events[-1][1]["response"]
        return events[-1][1]

    answers = await asyncio.gather(*(answer(stream=(number % 2 == 0) is first) for number in range(10)))
    assert answers == [answers[0]] * 10
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_a_late_reader_gets_the_stream_from_its_start(owner, caller, go_on):
    person = caller(owner.raw)
    parts = aiter(await ask(person, model=BRISK, stream=True))
    begun = b""
    while begun.count(b"\n\n") < 2:
        begun += await anext(parts)
    late = await ask(person, model=BRISK, stream=True)
    go_on.set()
    [(_, said), *late_rest] = await frames(late)
    rest = [part async for part in parts]
    assert is_replayed(late)
    assert said["text"] == "".join(orjson.loads(data)["text"] for data in re.findall(rb"data: (.*)\n\n", begun))
    assert b"".join(rest).count(b"event: ") == len(late_rest)
    assert said["text"] + text_of(late_rest) == late_rest[-1][1]["response"]
    assert len(SimulatedAdapter.log) == 1


async def test_one_reader_who_leaves_does_not_end_the_call_for_the_others(owner, caller, go_on):
    person = caller(owner.raw)
    parts = aiter(await ask(person, model=BRISK, stream=True))
    await anext(parts)
    whole = asyncio.ensure_future(ask(person, model=BRISK))
    staying = await ask(person, model=BRISK, stream=True)
    await parts.aclose()
    go_on.set()
    events = await frames(staying)
    assert (events[-1][0], events[-1][1]) == ("done", (await whole).json())
    assert (await statuses(), len(SimulatedAdapter.log)) == ([Status.SUCCEEDED], 1)


async def test_a_stream_that_nobody_reads_does_not_hold_up_the_others(owner, caller, monkeypatch):
    monkeypatch.setattr(engine, "_AHEAD", 2)
    person = caller(owner.raw)
    unread = await ask(person, model="simulated/ok?tokens=100", stream=True)
    whole = await ask(person, model="simulated/ok?tokens=100")
    assert (await frames(unread))[-1] == ("done", whole.json())


async def test_when_all_have_left_the_call_ends_and_may_be_made_again(owner, caller, go_on):
    person = caller(owner.raw)
    parts = aiter(await ask(person, model=BRISK, stream=True))
    whole = asyncio.ensure_future(ask(person, model=BRISK))
    await anext(parts)
    [exchange] = engine._running
    while exchange.readers < 2:  # noqa: ASYNC110 - nobody else waits for this
        await asyncio.sleep(0.01)
    whole.cancel()
    await parts.aclose()
    with pytest.raises(asyncio.CancelledError):
        await whole
    await engine.drain()
    go_on.set()
    again = await ask(person, model=BRISK)
    assert (again.status_code, is_replayed(again)) == (200, False)
    assert await statuses() == [Status.CANCELLED, Status.SUCCEEDED]


# --- Time ------------------------------------------------------------------------------------------------------------


async def test_an_id_may_be_taken_for_something_else_after_its_time(owner, caller, settings):
    person = caller(owner.raw)
    await ask(person)
    before = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS, minutes=1)
    await IdempotencyClaim.objects.aupdate(created_at=before)
    response = await ask(person, prompt="Something else.")
    assert (is_replayed(response), response.json()["response"]) == (False, "Something else.")


async def test_ids_are_forgotten_after_their_time(owner, caller, settings):
    person = caller(owner.raw)
    await ask(person)
    assert await sync_to_async(claims.purge)() == 0
    before = timezone.now() - dt.timedelta(hours=settings.IDEMPOTENCY_HOURS, minutes=1)
    await IdempotencyClaim.objects.aupdate(created_at=before)
    assert await sync_to_async(claims.purge)() == 1
    assert not await IdempotencyClaim.objects.aexists()


async def test_a_call_without_an_id_claims_nothing(owner, caller):
    await caller(owner.raw).chat()
    assert not await IdempotencyClaim.objects.aexists()
