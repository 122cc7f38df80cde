"""Django's Redis cache with its connections kept.

Django makes a cache object per thread and context, each with a pool of connections of its own. Work that is handed to
threads has a fresh context each time, and so would connect to Redis each time: three times as slow.
"""

from __future__ import annotations

from typing import Any

from django.core.cache.backends.redis import RedisCache

#: One client for each server and its options. Its pool is safe for threads, and notices a fork.
_clients: dict[str, Any] = {}


class SharedRedisCache(RedisCache):
    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        # Fills the property that would make a client of this object's own.
        made: Any = self.__dict__
        made["_cache"] = _clients.setdefault(repr((server, params.get("OPTIONS"))), self._cache)
