"""Counting in fixed windows, by django-ratelimit in Django's cache: in this process's memory, or in Redis for all.

Knows neither plans nor keys; `accounts.limits` and the log-in say what is counted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, cast

from django.core.cache import caches
from django_ratelimit import ALL, core
from django_ratelimit.core import EXPIRATION_FUDGE, _get_window, _make_cache_key, _split_rate, get_usage
from redis.exceptions import RedisError

from accounts.errors import LimitsUnavailable
from llmchat.lib import redis_clients, steady

logger = logging.getLogger(__name__)

#: Counts one more, and lets the counter go with its window.
_COUNT: Final = (
    "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end return n"
)

_is_away = False


class _Clock:
    """What django-ratelimit asks for the time: a clock that is set back grants no hour twice."""

    time = staticmethod(steady.now)


core.time = _Clock


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
            _say_away(error)
            raise LimitsUnavailable from error
        _say_back()
        if usage is not None and (usage["count"] or usage["limit"]):
            return Usage(count=usage["count"], limit=usage["limit"], reset_seconds=max(usage["time_left"], 0))
        # Nothing of nothing means that the window's counter went away between two steps; the next try begins a new one.
    raise LimitsUnavailable


async def count_async(group: str, *, value: str, rate: str) -> Usage:
    """As `count`, for the event loop: one command to Redis, or none when the counters are in memory. Both count as one.

    Raises `LimitsUnavailable`.
    """
    redis = redis_clients.client()
    if redis is None:
        return count(group, value=value, rate=rate)
    limit, period = _split_rate(rate)
    window = _get_window(value, period)
    key = caches["default"].make_key(_make_cache_key(group, window, rate, value, ALL))
    try:
        counted = await cast("Any", redis.eval(_COUNT, 1, key, period + EXPIRATION_FUDGE))
    except (RedisError, OSError) as error:
        _say_away(error)
        raise LimitsUnavailable from error
    _say_back()
    return Usage(count=int(counted), limit=limit, reset_seconds=max(window - int(_Clock.time()), 0))


def _say_away(error: Exception) -> None:
    global _is_away  # noqa: PLW0603 - said once
    if not _is_away:
        _is_away = True
        logger.error("Requests cannot be counted until Redis is back: %s: %s", type(error).__name__, error)


def _say_back() -> None:
    global _is_away  # noqa: PLW0603 - said once
    if _is_away:
        _is_away = False
        logger.warning("Redis is back; requests are counted.")
