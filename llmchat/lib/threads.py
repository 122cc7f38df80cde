"""Where blocking work goes that the event loop must not do: Django's ORM, a cache on another machine.

A small pool of our own, apart from asyncio's default one, so that slow look-ups of names and the like never wait behind
the database, nor it behind them. Each call gives its database connection back when it is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

logger = logging.getLogger(__name__)

THREADS = 8

P = ParamSpec("P")
T = TypeVar("T")

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Awaits `function(*args, **kwargs)` on one of our threads, which sees the caller's context variables.

    When the awaiting task is cancelled, a call that has begun runs on unseen; one that still waits for its thread never
    begins.
    """
    work = partial(function, *args, **kwargs)
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_executor(), context.run, _with_fresh_connections, work)


def in_background(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Lets one of our threads run the function some time soon. Nobody waits for it; its errors are logged."""
    work = partial(function, *args, **kwargs)
    _executor().submit(contextvars.copy_context().run, _logging_errors, work)


def _with_fresh_connections(work: Callable[[], T]) -> T:
    # What Django does around each request: connections that are broken or too old are closed, before and after.
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()


def _logging_errors(work: partial[object]) -> None:
    try:
        _with_fresh_connections(work)
    except Exception:
        # Without its arguments, which may be secret.
        logger.exception("Background work failed: %s", getattr(work.func, "__qualname__", "unnamed"))


def _executor() -> ThreadPoolExecutor:
    global _pool  # noqa: PLW0603 - one pool per process
    if _pool is None:
        with _lock:
            if _pool is None:
                _pool = ThreadPoolExecutor(THREADS, thread_name_prefix="in_thread")
    return _pool


def _after_fork_in_child() -> None:
    """A fork copies the pool without its threads: work given to it would wait for ever."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
