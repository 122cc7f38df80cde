"""Blocking work on threads of our own."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextvars import ContextVar

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connections

from llmchat.lib import threads
from llmchat.lib.threads import in_background, in_thread

variable: ContextVar[str] = ContextVar("variable", default="unset")


async def test_function_runs_elsewhere_and_gives_its_value_back() -> None:
    def describe(first: int, *, second: int) -> tuple[int, bool]:
        return first + second, threading.current_thread() is threading.main_thread()

    assert await in_thread(describe, 1, second=2) == (3, False)


async def test_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 1, 0)


async def test_context_goes_along_and_does_not_come_back() -> None:
    variable.set("ours")

    def look_and_change() -> str:
        seen = variable.get()
        variable.set("theirs")
        return seen

    assert (await in_thread(look_and_change), variable.get()) == ("ours", "ours")


async def test_no_more_threads_than_promised() -> None:
    everybody = threading.Barrier(threads.THREADS)

    names = await asyncio.gather(
        *(in_thread(lambda: (everybody.wait(10), threading.get_ident())[1]) for _ in range(3 * threads.THREADS))
    )

    assert len(set(names)) == threads.THREADS


@pytest.mark.django_db(transaction=True)
async def test_rows_written_there_are_seen_everywhere() -> None:
    await in_thread(ContentType.objects.create, app_label="somewhere", model="something")

    found = await asyncio.gather(
        *(in_thread(ContentType.objects.filter(app_label="somewhere").count) for _ in range(20))
    )

    assert found == [1] * 20


@pytest.mark.django_db(transaction=True)
async def test_connection_is_given_back_after_each_call() -> None:
    def use() -> object:
        ContentType.objects.exists()
        return connections["default"]

    connection = await in_thread(use)

    assert connection.connection is None  # type: ignore[attr-defined]


async def test_background_work_is_done_in_the_callers_context() -> None:
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    variable.set("ours")

    def work() -> None:
        done.get_loop().call_soon_threadsafe(done.set_result, variable.get())

    in_background(work)

    assert await asyncio.wait_for(done, 10) == "ours"


async def test_background_error_is_logged_without_the_arguments(caplog: pytest.LogCaptureFixture) -> None:
    def fail(secret: str) -> None:
        raise ValueError

    in_background(fail, "llmc_secret")
    for _ in range(1000):
        if caplog.records:
            break
        await asyncio.sleep(0.005)

    assert [(record.levelno, "fail" in record.getMessage()) for record in caplog.records] == [(logging.ERROR, True)]
    assert "llmc_secret" not in caplog.text


def test_work_is_done_in_a_forked_child_too() -> None:
    threads._executor().submit(len, "the parent has threads").result()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # Nothing of the test run may go on in here, whatever happens.
        try:
            os.write(writing, threads._executor().submit(lambda: b"done").result(10))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"done"
    os.waitpid(child, 0)
