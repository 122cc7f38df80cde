"""Waiting no longer than so many seconds, at a fraction of what `asyncio.timeout` costs. Knows not for what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def within(seconds: float, work: Awaitable[Result]) -> Result:
    """What `work` gives. Raises TimeoutError when it is not there after `seconds`; `work` is cancelled then.

    As with `asyncio.timeout`, a cancellation that comes from outside stays one.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("Only a task can wait with a time limit.")
    began_with = task.cancelling()
    has_rung = False

    def ring() -> None:
        nonlocal has_rung
        has_rung = True
        task.cancel()

    timer = loop.call_later(seconds, ring)
    try:
        result = await work
    except BaseException as error:
        timer.cancel()
        if has_rung and task.uncancel() <= began_with and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
        raise
    timer.cancel()
    if has_rung:
        task.uncancel()
    return result
