"""`POST /v1/chat/stream`: events as they come, the last one only after the row."""

import asyncio
import gc

import pytest
from asgiref.sync import sync_to_async

from accounts.tests.principals import principal
from chat import engine, streaming
from chat.calls import Call
from chat.models import Attempt, Interaction, Status
from chat.tests.conftest import frames
from providers.adapters.simulated import SimulatedAdapter
from providers.values import Finished, FinishReason, Message, ReasoningDelta, TextDelta, ToolCallDelta

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def rows() -> list[Interaction]:
    return list(Interaction.objects.order_by("id"))


async def stream(person, model="simulated/echo", prompt="Hello there.", **fields):
    body = {"userId": "u1", "prompt": prompt, "model": model, **fields}
    return await person.post("/v1/chat/stream", body)


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/stream"])
async def test_pieces_come_first_and_the_whole_answer_last(owner, caller, path):
    person = caller(owner.raw)
    body = {"userId": "u1", "prompt": "One two three.", "model": "simulated/echo"}
    response = await person.post(path, body | ({"stream": True} if path == "/v1/chat" else {}))
    events = await frames(response)
    [row] = await rows()
    assert {name for name, _ in events[:-1]} == {"delta"}
    assert "".join(data["text"] for _, data in events[:-1]) == "One two three."
    name, done = events[-1]
    assert name == "done"
    assert (done["id"], done["response"], done["finishReason"]) == (str(row.id), "One two three.", "stop")
    assert (row.status, row.streamed, row.response) == (Status.SUCCEEDED, True, "One two three.")


async def test_the_row_is_stored_before_the_last_event(owner, caller):
    response = await stream(caller(owner.raw))
    async for part in response.streaming_content:
        if b"event: done" in part:
            assert [row.status for row in await rows()] == [Status.SUCCEEDED]
            return
    pytest.fail("There was no last event.")


async def test_a_failure_before_the_first_piece_has_its_status(owner, caller, no_waiting):
    response = await stream(caller(owner.raw), model="simulated/503-forever")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "provider_overloaded"
    assert [row.status for row in await rows()] == [Status.FAILED]


@pytest.mark.parametrize("model", ["simulated/cut", "simulated/error-in-stream"])
async def test_a_failure_after_the_first_piece_is_an_error_event(owner, caller, no_waiting, model):
    response = await stream(caller(owner.raw), model=model)
    events = await frames(response)
    [row] = await rows()
    assert events[0][0] == "delta"
    assert events[-1][0] == "error"
    assert events[-1][1]["error"]["type"] == "provider_error"
    assert "done" not in {name for name, _ in events}
    assert (row.status, row.error_code) == (Status.FAILED, events[-1][1]["error"]["code"])


async def test_a_fallback_answers_when_nothing_was_shown(owner, caller, settings, no_waiting):
    settings.FALLBACK_ORDER = ["simulated/echo"]
    events = await frames(await stream(caller(owner.raw), model="simulated/503-forever"))
    assert events[-1][0] == "done"
    assert events[-1][1]["performance"]["fallback"] is True


async def test_nothing_is_tried_again_after_something_was_shown(owner, caller, settings, no_waiting):
    settings.FALLBACK_ORDER = ["simulated/echo"]
    events = await frames(await stream(caller(owner.raw), model="simulated/cut"))
    assert events[-1][0] == "error"
    assert len(SimulatedAdapter.log) == 1


async def test_a_client_that_leaves_stops_the_provider_and_is_on_record(owner, caller):
    response = await stream(caller(owner.raw), model="simulated/slow", prompt="Go on.")
    parts = aiter(response)
    first = await anext(parts)
    await parts.aclose()
    await engine.drain()
    [row] = await rows()
    attempt = await Attempt.objects.aget()
    assert first.startswith(b"event: delta")
    assert (row.status, attempt.status) == (Status.CANCELLED, Status.CANCELLED)
    assert row.response
    assert (row.usage_estimated, row.output_tokens > 0) == (True, True)


async def test_tool_calls_that_nobody_heard_out_are_estimated_too(owner, caller, monkeypatch):
    async def call_and_pause(self, request):
        yield ToolCallDelta(index=0, id="c1", name="weather", arguments='{"city": "Lisbon"}')
        await asyncio.sleep(30)

    monkeypatch.setattr(SimulatedAdapter, "stream", call_and_pause)
    body = {"user": "u1", "messages": [{"role": "user", "content": "Hm?"}], "model": "simulated/ok", "stream": True}
    parts = aiter(await caller(owner.raw).post("/v1/chat/completions", body))
    await anext(parts)
    await parts.aclose()
    await engine.drain()
    [row] = await rows()
    assert (row.status, row.usage_estimated, row.output_tokens) == (Status.CANCELLED, True, 5)


async def test_a_client_that_leaves_a_whole_answer_is_on_record(owner, caller):
    asking = asyncio.ensure_future(caller(owner.raw).chat(model="simulated/slow"))
    while not SimulatedAdapter.running:  # noqa: ASYNC110 - the provider has no event to wait for
        await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await engine.drain()
    assert [row.status for row in await rows()] == [Status.CANCELLED]


async def test_comments_keep_a_slow_stream_alive(owner, caller, settings):
    settings.KEEP_ALIVE_SECONDS = 0.02
    response = await stream(caller(owner.raw), model="simulated/slow-first-token?wait=0.3")
    raw = b"".join([part async for part in response.streaming_content])
    assert raw.startswith(b": keep-alive\n\n")
    assert b"event: done" in raw


async def test_thinking_that_is_not_shown_is_no_sign_of_life(owner, caller, settings, monkeypatch):
    async def think(self, request):
        for _ in range(20):
            yield ReasoningDelta("hm ")
            await asyncio.sleep(0.02)
        yield TextDelta("Yes.")
        yield Finished(reason=FinishReason.STOP)

    monkeypatch.setattr(SimulatedAdapter, "stream", think)
    settings.KEEP_ALIVE_SECONDS = 0.1
    response = await stream(caller(owner.raw))
    raw = b"".join([part async for part in response.streaming_content])
    assert raw.index(b": keep-alive") < raw.index(b"event: delta")


async def test_pieces_that_come_together_go_out_together(owner, caller):
    response = await stream(caller(owner.raw), model="simulated/ok?tokens=50&delay=0")
    parts = [part async for part in response.streaming_content]
    assert b"".join(parts).count(b"event: delta") == 50
    assert len(parts) < 10


async def test_a_piece_goes_out_while_the_provider_pauses(owner, caller):
    response = await stream(caller(owner.raw), model="simulated/slow?delay=0.05&tokens=4")
    parts = [part async for part in response.streaming_content]
    assert [part.count(b"event: delta") for part in parts] == [1, 1, 1, 1, 0]


async def test_an_open_stream_keeps_no_event_that_was_read(owner, caller):
    def pieces() -> int:
        # By its type alone: of what else there is, a weak reference may be to something that is gone.
        return sum(type(thing) is TextDelta for thing in gc.get_objects())

    before = pieces()
    parts = aiter(await stream(caller(owner.raw), model="simulated/slow?delay=0.002&tokens=200"))
    shown = 0
    while shown < 150:
        shown += (await anext(parts)).count(b"event: delta")
    kept = pieces() - before
    await parts.aclose()
    await engine.drain()
    assert kept < 50


async def test_a_response_that_is_dropped_unread_leaves_nothing_running(owner):
    call = Call(
        principal=principal(organization_id=owner.organization.id),
        endpoint=Interaction.Endpoint.CHAT,
        user_id="u1",
        messages=[Message(role="user", content="Go on.")],
        model="simulated/slow",
        trace_id="t",
        stream=True,
    )
    response = await streaming.native(await engine.accept(call))
    del response
    gc.collect()
    await asyncio.wait_for(engine.drain(), 30)
    assert [row.status for row in await rows()] == [Status.CANCELLED]


async def test_an_exchange_that_is_left_before_its_first_step_is_on_record(owner):
    call = Call(
        principal=principal(organization_id=owner.organization.id),
        endpoint=Interaction.Endpoint.CHAT,
        user_id="u1",
        messages=[Message(role="user", content="Go on.")],
        model="simulated/ok",
        trace_id="t",
    )
    exchange = await engine.accept(call)
    exchange.abandon()
    await asyncio.wait_for(engine.drain(), 30)
    assert [row.status for row in await rows()] == [Status.CANCELLED]
    assert not SimulatedAdapter.log
