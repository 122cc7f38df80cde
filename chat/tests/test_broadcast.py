"""One stream, any number of readers."""

import asyncio

from chat.broadcast import Broadcast
from providers.values import Event, Finished, FinishReason, TextDelta

ONE, TWO, THREE, FOUR = (TextDelta(word) for word in ("one", "two", "three", "four"))
LAST = Finished(reason=FinishReason.STOP)


async def read(events: Broadcast) -> list[Event]:
    found: list[Event] = []
    while (event := await events.get(len(found))) is not None:
        found.append(event)
    return found


async def test_every_reader_gets_everything_whenever_it_comes():
    events = Broadcast(ahead=10)
    early = asyncio.ensure_future(read(events))
    await events.put(ONE)
    await asyncio.sleep(0)
    late = asyncio.ensure_future(read(events))
    await events.put(TWO)
    events.end(LAST)
    found = list(await asyncio.gather(early, late, read(events)))
    assert found == [[ONE, TWO, LAST]] * 3


async def test_the_writer_waits_for_the_quickest_reader_alone():
    events = Broadcast(ahead=1)

    async def write():
        for event in (ONE, TWO, THREE, FOUR):
            await events.put(event)

    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0.01)
    assert not writing.done()
    for position in range(3):
        await events.get(position)
        await asyncio.sleep(0)
    await writing
    assert await events.get(0) == ONE


async def test_the_writer_waits_for_nobody_when_somebody_wants_the_end_alone():
    events = Broadcast(ahead=1)

    async def write():
        for event in (ONE, TWO, THREE):
            await events.put(event)

    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0.01)
    assert not writing.done()
    events.run_free()
    await writing


async def test_a_stream_that_failed_ends_without_a_last_event():
    events = Broadcast(ahead=1)
    reading = asyncio.ensure_future(read(events))
    await events.put(ONE)
    events.end()
    assert await reading == [ONE]
