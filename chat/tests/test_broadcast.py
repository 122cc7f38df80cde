"""One stream, any number of readers."""

import asyncio

from chat.broadcast import Broadcast, Inbox
from providers.values import Event, Finished, FinishReason, ReasoningDelta, TextDelta

ONE, TWO, THREE, FOUR = (TextDelta(word) for word in ("one", "two", "three", "four"))
LAST = Finished(reason=FinishReason.STOP)


async def read(inbox: Inbox) -> list[Event]:
    found: list[Event] = []
    while events := await inbox.get():
        found += events
    return found


async def test_every_reader_gets_everything_whenever_it_comes():
    events = Broadcast(ahead=10)
    early = asyncio.ensure_future(read(events.join()))
    await asyncio.sleep(0)
    events.put(ONE)
    late = asyncio.ensure_future(read(events.join(so_far=[ONE])))
    await asyncio.sleep(0)
    events.put(TWO)
    latest = events.join(so_far=[ONE, TWO])
    events.end(LAST)
    assert list(await asyncio.gather(early, late, read(latest))) == [[ONE, TWO, LAST]] * 3


async def test_what_is_ready_comes_at_once_and_together():
    events = Broadcast(ahead=10)
    inbox = events.join()
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    events.put(ONE)
    events.put(TWO)
    assert await reading == [ONE, TWO]
    events.put(THREE)
    assert await inbox.get() == [THREE]


async def test_nothing_is_kept_that_was_read():
    events = Broadcast(ahead=10)
    inbox = events.join()
    for _ in range(1000):
        events.put(ONE)
        await inbox.get()
        assert len(inbox) == 0


async def test_nothing_is_kept_for_nobody():
    events = Broadcast(ahead=1)
    inbox = events.join()
    events.leave(inbox)
    for _ in range(1000):
        events.put(ONE)
    assert (len(inbox), events.is_full) == (0, False)


async def write(events: Broadcast, count: int) -> None:
    for _ in range(count):
        events.put(ONE)
        if events.is_full:
            await events.room()


async def test_the_writer_waits_for_the_quickest_reader_alone():
    events = Broadcast(ahead=1)
    quick, slow = events.join(), events.join()
    writing = asyncio.ensure_future(write(events, 4))
    for _ in range(2):
        await asyncio.sleep(0.01)
        assert not writing.done()
        assert await quick.get() == [ONE, ONE]
    await writing
    assert await slow.get() == [TextDelta("oneoneone"), ONE]


async def test_a_slow_reader_keeps_text_and_not_pieces():
    events = Broadcast(ahead=2)
    slow, quick = events.join(), events.join()
    odd = TextDelta("x", logprobs={"content": []})
    said: tuple[Event, ...] = (*[ReasoningDelta("hm")] * 5, *[ONE] * 500, odd, *[TWO] * 9)
    for event in said:
        events.put(event)
        await quick.get()
        assert len(slow) < 10
    events.end(LAST)
    found = await read(slow)
    assert "".join(event.text for event in found if isinstance(event, TextDelta)) == "one" * 500 + "x" + "two" * 9
    assert found[0] == ReasoningDelta("hm" * 5)
    assert odd in found
    assert found[-1] == LAST


async def test_the_writer_goes_on_when_the_quickest_reader_leaves_for_a_quicker_one():
    events = Broadcast(ahead=1)
    stuck = events.join()
    writing = asyncio.ensure_future(write(events, 3))
    await asyncio.sleep(0.01)
    assert not writing.done()
    events.leave(stuck)
    await writing


async def test_the_writer_waits_for_nobody_when_somebody_wants_the_end_alone():
    events = Broadcast(ahead=1)
    events.join()
    writing = asyncio.ensure_future(write(events, 3))
    await asyncio.sleep(0.01)
    assert not writing.done()
    events.run_free()
    await writing


async def test_a_reader_who_is_nudged_goes_on_with_nothing_and_misses_nothing():
    events = Broadcast(ahead=1)
    inbox = events.join()
    reading = asyncio.ensure_future(inbox.get())
    await asyncio.sleep(0)
    inbox.nudge()
    assert await reading == []
    inbox.nudge()
    events.put(ONE)
    assert await inbox.get() == [ONE]


async def test_a_stream_that_failed_ends_without_a_last_event():
    events = Broadcast(ahead=1)
    inbox = events.join()
    reading = asyncio.ensure_future(read(inbox))
    await asyncio.sleep(0)
    events.put(ONE)
    events.end()
    assert await reading == [ONE]
