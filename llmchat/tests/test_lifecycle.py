"""What a process does when it starts and before it ends, by ASGI's lifespan protocol."""

from __future__ import annotations

import asyncio

import pytest

from llmchat.lib import lifecycle
from llmchat.lib.asgi import Message


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "_on_startup", [])
    monkeypatch.setattr(lifecycle, "_on_shutdown", [])
    monkeypatch.setattr(lifecycle, "_stopping", False)


class Server:
    """One that speaks the protocol: `start()`, then `stop()`."""

    def __init__(self) -> None:
        self._to: asyncio.Queue[Message] = asyncio.Queue()
        self._from: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.create_task(lifecycle.lifespan({"type": "lifespan"}, self._to.get, self._from.put))

    async def say(self, what: str) -> None:
        await self._to.put({"type": f"lifespan.{what}"})
        assert await self._from.get() == {"type": f"lifespan.{what}.complete"}

    async def stop(self) -> None:
        await self.say("shutdown")
        await self._task


async def test_start_up_work_does_not_delay_the_start_and_is_ended_with_it() -> None:
    ended = asyncio.Event()

    async def work_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    lifecycle.on_startup(work_for_ever)
    server = Server()
    await server.say("startup")
    await asyncio.sleep(0)
    await server.stop()
    await ended.wait()


async def test_shutdown_work_is_awaited_last_registered_first_whatever_fails() -> None:
    done: list[str] = []

    async def close() -> None:
        done.append("close")

    async def fail() -> None:
        done.append("fail")
        raise RuntimeError

    async def drain() -> None:
        await asyncio.sleep(0)
        done.append("drain")

    for hook in (close, fail, drain):
        lifecycle.on_shutdown(hook)
    server = Server()
    await server.say("startup")
    assert not lifecycle.is_stopping()
    await server.stop()
    assert done == ["drain", "fail", "close"]
    assert lifecycle.is_stopping()


async def test_failing_start_up_work_is_logged_and_not_fatal(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("no weights")

    lifecycle.on_startup(fail)
    server = Server()
    await server.say("startup")
    await asyncio.sleep(0)
    await server.stop()
    assert [(record.levelname, "fail" in record.getMessage()) for record in caplog.records] == [("ERROR", True)]
