"""What the engine costs: microseconds for an exchange and for a streamed event, bytes of an open stream.

    .venv/bin/python bench/exchanges.py [--exchanges N] [--streams N]

An exchange is measured from the call to its answer, with the recorder, the provider and the failover between them taken
out, which are other people's figures; an event from the provider's to the caller's bytes. An open stream's bytes are
counted with everything in place, after its only reader has read all there was. Only the processor's time of the event
loop's thread counts; the best of several rounds is told, since what disturbs a round only makes it slower.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmchat.settings")
DATA = tempfile.TemporaryDirectory(prefix="llmchat-bench-")
os.environ |= {"ENV_FILE": os.devnull, "DATA_DIR": DATA.name, "LOG_LEVEL": "ERROR"}

import django  # noqa: E402

django.setup()

import uvloop  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402

from accounts.models import Organization, Plan  # noqa: E402
from accounts.principals import PlanLimits, Principal  # noqa: E402
from chat import durability, engine, streaming  # noqa: E402
from chat.calls import Call  # noqa: E402
from chat.models import Interaction  # noqa: E402
from chat.recorder import Recorder  # noqa: E402
from providers import failover  # noqa: E402
from providers.adapters.base import ProviderConfig  # noqa: E402
from providers.failover import AttemptEnded, AttemptStarted, Candidate, Step  # noqa: E402
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta, Usage  # noqa: E402

ROUNDS = 7
#: Events of a measured stream, and of an open one before it pauses.
EVENTS = 600
PIECES = ["answer ", "in ", "pieces ", "of ", "a ", "token "]
LAST = Finished(reason=FinishReason.STOP, usage=Usage(input_tokens=10, output_tokens=EVENTS))
ORGANIZATION = uuid4()
PRINCIPAL = Principal(
    organization_id=ORGANIZATION,
    organization_name="Acme",
    api_key_id=uuid4(),
    key_name="bench",
    scopes=frozenset({"chat"}),
    plan=PlanLimits(slug="unlimited", name="Unlimited"),
)


def piece(number: int) -> TextDelta:
    """A new one for each event, as a provider's parser makes it."""
    return TextDelta("".join((PIECES[number % len(PIECES)], str(number), " ")))


class Pausing:
    """A provider that says its piece and then waits to be let go."""

    go_on = asyncio.Event()

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        for number in range(EVENTS):
            yield piece(number)
            if number % 10 == 9:
                await asyncio.sleep(0)
        await self.go_on.wait()
        yield LAST

    async def probe(self) -> None: ...

    async def aclose(self) -> None: ...


class NoRecorder(Recorder):
    """Has a row that was made before, writes nothing."""

    ROW = Interaction(model="bench/any", created_at=timezone.now())

    def __init__(self, call: Call, *, identifier: UUID, **_: Any) -> None:
        self.interaction, self.finished = self.ROW, None

    def fold(self, step: Step) -> None:
        if isinstance(step, Finished):
            self.finished = step

    def end(self, *_: Any) -> Interaction:
        return self.interaction

    async def commit(self) -> None: ...


def steps(*, events: int, burst: int) -> Callable[..., AsyncGenerator[Step, None]]:
    """In place of the failover: so many events, `burst` of them in one turn of the loop."""

    async def attempt_in_order(candidates: list[Candidate], **_: Any) -> AsyncGenerator[Step, None]:
        yield AttemptStarted(number=1, candidate=candidates[0])
        for number in range(events):
            yield piece(number)
            if number % burst == burst - 1:
                await asyncio.sleep(0)
        yield AttemptEnded(number=1, finished=LAST)
        yield LAST

    return attempt_in_order


def call(*, stream: bool) -> Call:
    return Call(
        principal=PRINCIPAL,
        endpoint=Interaction.Endpoint.CHAT,
        user_id="u1",
        messages=[Message(role="user", content="What does it cost?")],
        model="bench/any",
        trace_id="t",
        stream=stream,
    )


async def best_of(work: Callable[[], Awaitable[None]], *, times: int) -> float:
    """Microseconds of this thread for one of `times`."""
    best = float("inf")
    await work()
    for _ in range(ROUNDS):
        gc.collect()
        began = time.thread_time()
        await work()
        best = min(best, time.thread_time() - began)
    return best / times * 1e6


async def whole(times: int) -> None:
    for _ in range(times):
        await (await engine.accept(call(stream=False))).whole()


async def streamed(dialect: Callable[[Any], Awaitable[Any]], times: int = 1) -> None:
    for _ in range(times):
        response = await dialect(await engine.accept(call(stream=True)))
        async for _ in response:
            pass


async def completions(reading: Any) -> Any:
    return await streaming.completions(reading, include_usage=False)


async def bytes_of_open_stream(count: int) -> float:
    async def opened() -> Any:
        response = await streaming.native(await engine.accept(call(stream=True)))
        shown = 0
        parts = aiter(response)
        async for part in parts:
            shown += part.count(b"event: delta")
            if shown == EVENTS:
                break
        return response, parts

    keep = [await opened()]
    gc.collect()
    tracemalloc.start()
    keep += [await opened() for _ in range(count)]
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await engine.stop()
    return held / count


async def measure(exchanges: int, streams: int) -> None:
    Pausing.go_on = asyncio.Event()
    with mock.patch.object(engine, "Recorder", NoRecorder):
        with mock.patch.object(failover, "attempt_in_order", steps(events=1, burst=1)):
            figure = await best_of(lambda: whole(exchanges), times=exchanges)
            print(f"whole exchange                           {figure:8.1f} us")
            figure = await best_of(lambda: streamed(streaming.native, exchanges), times=exchanges)
            print(f"streamed exchange of one event           {figure:8.1f} us")
        for burst in (1, 10):
            with mock.patch.object(failover, "attempt_in_order", steps(events=EVENTS, burst=burst)):
                figure = await best_of(lambda: streamed(streaming.native, 10), times=EVENTS * 10)
                print(f"event, native, {burst:2} at a time              {figure:8.2f} us")
                figure = await best_of(lambda: streamed(completions, 10), times=EVENTS * 10)
                print(f"event, OpenAI's dialect, {burst:2} at a time    {figure:8.2f} us")
    figure = await bytes_of_open_stream(streams)
    print(f"open stream, {EVENTS} events read            {figure:8.0f} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exchanges", type=int, default=300)
    parser.add_argument("--streams", type=int, default=100)
    arguments = parser.parse_args()
    settings.PROVIDERS["bench"] = {
        "ADAPTER": f"{Pausing.__module__}.{Pausing.__qualname__}",
        "NEEDS_KEY": False,
        "TIMEOUTS": settings.PROVIDER_TIMEOUTS,
    }
    call_command("migrate", verbosity=0)
    Organization.objects.create(id=ORGANIZATION, name="Acme", plan=Plan.objects.earliest("pk"))
    durability.committer()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(arguments.exchanges, arguments.streams))
    durability.close()


if __name__ == "__main__":
    main()
