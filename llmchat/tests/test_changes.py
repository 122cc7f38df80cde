"""Changes are told to this process at once and to others through Redis, whatever becomes of Redis meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import redis
from django.core.cache import caches
from pytest_django import Settings

from llmchat.lib import changes
from llmchat.lib.threads import in_thread
from llmchat.tests.needs import need
from llmchat.tests.servers import Redis, free_port, missing_programs

TOPIC = "weather"


@dataclass
class Listener:
    """What this process hears of the topic; in `missed`, how often it may have missed something."""

    heard: list[str] = field(default_factory=list)
    missed: int = 0

    def miss(self) -> None:
        self.missed += 1

    async def hears(self, wanted: list[str]) -> None:
        async with asyncio.timeout(30):
            while self.heard != wanted:  # noqa: ASYNC110 - whoever calls does so from any thread
                await asyncio.sleep(0.01)

    async def misses(self, times: int) -> None:
        async with asyncio.timeout(30):
            while self.missed < times:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Listener:
    made = Listener()
    monkeypatch.setattr(changes, "_hear", {TOPIC: made.heard.append})
    monkeypatch.setattr(changes, "_missed", {TOPIC: made.miss})
    monkeypatch.setattr(changes, "PAUSE", 0.05)
    return made


@pytest.fixture
def server(settings: Settings) -> Iterator[Redis]:
    need(missing_programs())
    with Redis() as server:
        use(settings, server.url)
        yield server
        caches.close_all()


def use(settings: Settings, url: str) -> None:
    settings.CACHES = {"default": {"BACKEND": "llmchat.lib.caches.SharedRedisCache", "LOCATION": url}}


@asynccontextmanager
async def listening() -> AsyncIterator[None]:
    task = asyncio.create_task(changes.listen())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def as_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told from here on looks as if told by another process."""
    monkeypatch.setattr(changes, "_publish", lambda message, real=changes._publish: real(f"other{message[5:]}"))


async def test_this_process_hears_at_once_without_redis(listener: Listener) -> None:
    changes.tell(TOPIC, "rain")
    changes.tell(TOPIC)
    assert listener.heard == ["rain", ""]


async def test_a_process_that_keeps_nothing_may_tell_too(listener: Listener) -> None:
    changes.tell("something else", "rain")
    assert listener.heard == []


async def test_without_redis_there_is_nothing_to_listen_to(settings: Settings, listener: Listener) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    await asyncio.wait_for(changes.listen(), 5)


async def test_others_hear_through_redis_and_nobody_hears_twice(
    server: Redis, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening():
        await listener.misses(1)
        changes.tell(TOPIC, "rain")
        assert listener.heard == ["rain"]
        as_another_process(monkeypatch)
        changes.tell(TOPIC, "snow in two words")
        # What this process has told itself does not come back.
        await listener.hears(["rain", "snow in two words", "snow in two words"])


async def test_what_is_no_message_of_ours_is_passed_over(server: Redis, listener: Listener) -> None:
    async with listening():
        await listener.misses(1)
        with redis.Redis.from_url(server.url) as client:
            for message in (b"", b"\xff\xfe", b"x", b"x unknown y", f"x {TOPIC} sun".encode()):
                await in_thread(client.publish, changes.CHANNEL, message)
        await listener.hears(["sun"])


async def test_who_may_have_missed_something_is_told_when_redis_is_back(
    server: Redis, listener: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening():
        await listener.misses(1)
        await in_thread(server.stop)
        changes.tell(TOPIC, "while it is away")
        await asyncio.sleep(0.5)
        assert listener.heard == ["while it is away"]
        await in_thread(server.start)
        await listener.misses(2)
        as_another_process(monkeypatch)
        changes.tell(TOPIC, "rain")
        await listener.hears(["while it is away", "rain", "rain"])
    said = [record.message for record in caplog.records if record.name == changes.__name__]
    assert len([line for line in said if line.startswith("Changes are not told")]) == 1
    assert said[-1] == "Changes are told between processes again."


async def test_a_silent_redis_is_noticed(server: Redis, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_SILENCE", 0.2)
    async with listening():
        await listener.misses(1)
        await asyncio.sleep(1)
        assert listener.missed == 1, "a living one was taken for dead"
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(1)
        os.kill(server.pid, signal.SIGCONT)
        await listener.misses(2)


async def test_telling_never_fails_and_never_waits(settings: Settings, listener: Listener) -> None:
    use(settings, f"redis://127.0.0.1:{free_port()}")
    changes.tell(TOPIC, "rain")
    assert listener.heard == ["rain"]
    await in_thread(changes._publish, "me weather rain")
    caches.close_all()
