"""The Redis cache and its connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from django.core.cache import cache, caches
from pytest_django import Settings

from llmchat.lib import threads
from llmchat.lib.threads import in_thread
from llmchat.tests.needs import need
from llmchat.tests.servers import Redis, missing_programs


@pytest.fixture
def server(settings: Settings) -> Iterator[Redis]:
    need(missing_programs())
    with Redis() as server:
        settings.CACHES = {"default": {"BACKEND": "llmchat.lib.caches.SharedRedisCache", "LOCATION": server.url}}
        yield server
        caches.close_all()


async def test_threads_share_their_connections(server: Redis) -> None:
    def connections_so_far() -> int:
        with redis.Redis.from_url(server.url) as client:
            return int(client.info("stats")["total_connections_received"])

    await in_thread(cache.set, "counter", 0)
    before = await in_thread(connections_so_far)

    await asyncio.gather(*(in_thread(cache.incr, "counter") for _ in range(200)))

    assert await in_thread(cache.get, "counter") == 200
    assert await in_thread(connections_so_far) - before <= threads.THREADS + 1
