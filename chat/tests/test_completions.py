"""`POST /v1/chat/completions`: what OpenAI's clients send and get."""

import pytest

from chat.models import Interaction, Status
from chat.tests.conftest import frames
from providers.values import Message

pytestmark = pytest.mark.django_db(transaction=True)

ASK = {"model": "simulated/echo", "messages": [{"role": "user", "content": "One two."}]}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


async def complete(person, **fields):
    return await person.post("/v1/chat/completions", {**ASK, **fields})


async def test_a_whole_completion(owner, caller):
    response = await complete(caller(owner.raw), user="u7", metadata={"screen": "help"})
    row = await Interaction.objects.aget()
    body = response.json()
    assert response.status_code == 200
    assert (body["id"], body["object"], body["model"]) == (f"chatcmpl-{row.id}", "chat.completion", "simulated/echo")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "One two.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"]["total_tokens"] == row.total_tokens
    assert (row.endpoint, row.user_id, row.metadata, row.conversation_id) == (
        "completions",
        "u7",
        {"screen": "help"},
        None,
    )
    assert row.status == Status.SUCCEEDED


async def test_what_is_sent_reaches_the_provider(owner, caller, sent):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ada"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {}}]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "user", "content": "So?"},
    ]
    await complete(
        caller(owner.raw),
        messages=messages,
        temperature=0,
        top_p=0.5,
        max_completion_tokens=20,
        stop="END",
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        tools=[WEATHER],
        tool_choice="auto",
        response_format={"type": "json_object"},
        logit_bias={"50256": -100},
        reasoning_effort="low",
    )
    request = sent[-1]
    assert list(request.messages) == [
        Message(role="system", content="Be brief."),
        Message(role="user", content=[{"type": "text", "text": "Hi"}], name="ada"),
        Message(role="assistant", tool_calls=[{"id": "c1", "type": "function", "function": {}}]),
        Message(role="tool", content="sunny", tool_call_id="c1"),
        Message(role="user", content="So?"),
    ]
    assert (request.temperature, request.top_p, request.max_tokens, request.stop, request.seed) == (
        0,
        0.5,
        20,
        ["END"],
        7,
    )
    assert (request.presence_penalty, request.frequency_penalty) == (0.1, -0.1)
    assert (request.tools, request.tool_choice, request.response_format) == (
        [WEATHER],
        "auto",
        {"type": "json_object"},
    )
    assert request.extra == {"logit_bias": {"50256": -100}, "reasoning_effort": "low"}


async def test_nulls_mean_not_said(owner, caller, sent):
    response = await complete(
        caller(owner.raw), temperature=None, stop=None, tools=None, stream=None, user=None, stream_options=None
    )
    assert response.status_code == 200
    request = sent[-1]
    assert (request.temperature, request.stop, request.tools) == (None, (), ())


async def test_chunks_then_done(owner, caller):
    events = await frames(await complete(caller(owner.raw), stream=True))
    assert events[-1] == ("", "[DONE]")
    chunks = [data for _, data in events[:-1]]
    row = await Interaction.objects.aget()
    assert {chunk["id"] for chunk in chunks} == {f"chatcmpl-{row.id}"}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "One two."
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all("usage" not in chunk for chunk in chunks)


async def test_usage_comes_last_when_asked_for(owner, caller):
    events = await frames(await complete(caller(owner.raw), stream=True, stream_options={"include_usage": True}))
    row = await Interaction.objects.aget()
    last = events[-2][1]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], row.total_tokens)


async def test_tool_calls_whole_and_streamed(owner, caller):
    person = caller(owner.raw)
    whole = (await complete(person, model="simulated/tool-call", tools=[WEATHER])).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    [call] = whole["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"

    events = await frames(await complete(person, model="simulated/tool-call", tools=[WEATHER], stream=True))
    pieces = [piece for _, data in events[:-1] for piece in data["choices"][0]["delta"].get("tool_calls", ())]
    assert "".join(piece["function"]["arguments"] for piece in pieces) == call["function"]["arguments"]
    assert {piece["index"] for piece in pieces} == {0}
    rows = [row async for row in Interaction.objects.order_by("id")]
    assert [row.tool_calls[0]["function"] for row in rows] == [call["function"]] * 2


async def test_reasoning_is_apart_from_the_answer(owner, caller):
    message = (await complete(caller(owner.raw), model="simulated/reasoning")).json()["choices"][0]["message"]
    row = await Interaction.objects.aget()
    assert message["reasoning_content"] == row.reasoning != ""
    assert message["content"] == row.response != ""


async def test_an_error_in_mid_stream_takes_the_place_of_done(owner, caller, no_waiting):
    events = await frames(await complete(caller(owner.raw), model="simulated/cut", stream=True))
    assert ("", "[DONE]") not in events
    assert events[-1][1]["error"]["type"] == "provider_error"
