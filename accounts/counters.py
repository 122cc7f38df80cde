"""Counting in fixed windows, by django-ratelimit in Django's cache: in this process's memory, or in Redis for all.

Knows neither plans nor keys; `accounts.limits` and the log-in say what is counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django_ratelimit.core import get_usage
from redis.exceptions import RedisError

from accounts.errors import LimitsUnavailable
from llmchat.lib.threads import in_thread

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """`count` of `limit` are used up in a window that ends in `reset_seconds`."""

    count: int
    limit: int
    reset_seconds: int


def count(group: str, *, value: str, rate: str, increment: bool = True) -> Usage:
    """Counts one more for `value` (or, without `increment`, only looks) and returns where that leads.

    `rate` is django-ratelimit's: "50/h". The step is atomic: of many at once, each gets a number of its own.
    Raises `LimitsUnavailable` when the cache cannot be reached: a limit that cannot be kept is not waived.
    """
    for _ in range(2):
        try:
            # Neither key nor rate looks at the request, so there need not be one.
            usage = get_usage(None, group=group, key=lambda *_: value, rate=lambda *_: rate, increment=increment)
        except (RedisError, OSError) as error:
            logger.exception("Requests cannot be counted: %s", type(error).__name__)
            raise LimitsUnavailable from error
        if usage is not None and (usage["count"] or usage["limit"]):
            return Usage(count=usage["count"], limit=usage["limit"], reset_seconds=max(usage["time_left"], 0))
        # Nothing of nothing means that the window's counter went away between two steps; the next try begins a new one.
    raise LimitsUnavailable


async def where_it_may_block(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs a function that counts: at once when the counters are in memory, on a thread when they are a server."""
    if isinstance(caches["default"], LocMemCache):
        return function(*args, **kwargs)
    return await in_thread(function, *args, **kwargs)
