"""Waiting with a time limit: what comes in time, what does not, and whose cancellation it was."""

from __future__ import annotations

import asyncio

import pytest

from providers.adapters.patience import within

pytestmark = pytest.mark.once

SOON, LONG = 0.01, 60.0


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_what_comes_in_time_is_given() -> None:
    assert await within(LONG, asyncio.sleep(0, "here")) == "here"


async def test_what_does_not_come_is_cancelled_and_the_task_goes_on() -> None:
    over = asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            over.set()

    with pytest.raises(TimeoutError):
        await within(SOON, work())
    task = asyncio.current_task()
    assert task is not None
    assert (over.is_set(), task.cancelling()) == (True, 0)


async def test_error_of_the_work_is_its_own() -> None:
    async def work() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await within(LONG, work())


async def test_cancellation_from_outside_stays_one() -> None:
    task = asyncio.create_task(within(LONG, forever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancellation_from_outside_beats_the_limit() -> None:
    async def work() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            task.cancel()
            raise

    task = asyncio.create_task(within(SOON, work()))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_ends_in_spite_of_the_limit_has_ended() -> None:
    async def work() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert await within(SOON, work()) == "late"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_inner_limit_is_told_from_the_outer_one() -> None:
    async def inner() -> None:
        with pytest.raises(TimeoutError):
            await within(SOON, forever())
        await forever()

    with pytest.raises(TimeoutError):
        await within(0.1, inner())
