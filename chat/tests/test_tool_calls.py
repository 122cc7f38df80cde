"""What a vendor wants back with a tool call, on its way to the caller, to the record and back to the vendor."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from chat.models import Interaction
from chat.tests.conftest import frames
from providers.adapters.simulated import SimulatedAdapter
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, ToolCallDelta

pytestmark = pytest.mark.django_db(transaction=True)

SIGNED = {"extra_content": {"google": {"thought_signature": "CpUBAXLI2nw="}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}, **SIGNED}
ASKED = {"model": "simulated/ok", "messages": [{"role": "user", "content": "Hello."}]}


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> list[ChatRequest]:
    """The provider answers with a signed tool call in pieces; the list takes the requests that reach it."""
    requests: list[ChatRequest] = []

    async def stream(_: SimulatedAdapter, request: ChatRequest) -> AsyncGenerator[Event, None]:
        requests.append(request)
        yield ToolCallDelta(index=0, id="c1", name="weather", arguments='{"city":')
        yield ToolCallDelta(index=0, arguments=' "Köln"}', extra=SIGNED)
        yield Finished(reason=FinishReason.TOOL_CALLS)

    monkeypatch.setattr(SimulatedAdapter, "stream", stream)
    return requests


async def test_whole_answer_and_record_carry_what_the_vendor_wants_back(owner, caller, signs):
    response = await caller(owner.raw).post("/v1/chat/completions", ASKED)
    row = await Interaction.objects.aget()
    assert (response.json()["choices"][0]["message"]["tool_calls"], row.tool_calls) == ([CALL], [CALL])


async def test_stream_carries_what_the_vendor_wants_back(owner, caller, signs):
    events = await frames(await caller(owner.raw).post("/v1/chat/completions", {**ASKED, "stream": True}))
    deltas = [data["choices"][0]["delta"] for _, data in events[:-1]]
    assert [piece for delta in deltas for piece in delta.get("tool_calls", ())] == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": ' "Köln"}'}, **SIGNED},
    ]


async def test_what_the_caller_gives_back_reaches_the_provider(owner, caller, signs):
    messages = [
        *ASKED["messages"],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
    ]
    response = await caller(owner.raw).post("/v1/chat/completions", {**ASKED, "messages": messages})
    assert response.status_code == 200
    assert [request.messages for request in signs] == [
        [
            Message(role="user", content="Hello."),
            Message(role="assistant", tool_calls=[CALL]),
            Message(role="tool", tool_call_id="c1", content="blue"),
        ]
    ]
