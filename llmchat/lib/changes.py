"""Tells every process that something they keep in memory has changed, so that none has to wait until it grows old.

    changes.on("keys", hear=forget, missed=distrust)      in each process that keeps something
    changes.tell("keys", digest)                          after the change is committed

This process hears at once. Others hear through Redis, when there is one, as long as they `listen`; whoever may have
missed something is told so. Nothing depends on it: what is kept grows old by itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from llmchat.lib import redis_clients
from llmchat.lib.threads import in_background

logger = logging.getLogger(__name__)

#: Redis' channels know nothing of databases: whoever shares a server and this name only forgets a little more.
CHANNEL: Final = "llmchat:changes"
#: Seconds until a Redis that is away is tried again.
PAUSE: Final = 1.0
#: Seconds of silence after which a listener asks whether its connection is alive.
_SILENCE: Final = 5.0

_hear: dict[str, Callable[[str], object]] = {}
_missed: dict[str, Callable[[], object]] = {}
_lock = threading.Lock()
_publisher: tuple[str, Any] | None = None
_is_away = False
#: Tells this process's words from others'. Made anew in a forked child.
_me = uuid4().hex


def on(topic: str, *, hear: Callable[[str], object], missed: Callable[[], object]) -> None:
    """Calls `hear` with what has changed, in the topic's own words (empty: all of it), and `missed` when something may
    have changed unheard. Both are called on any thread and must not block."""
    _hear[topic], _missed[topic] = hear, missed


def tell(topic: str, what: str = "") -> None:
    """Something of `topic` has changed, and the change is committed. Never fails, never waits."""
    if topic in _hear:
        _hear[topic](what)
    if redis_clients.location() is not None:
        in_background(_publish, f"{_me} {topic} {what}")


async def listen() -> None:
    """Hears what other processes tell, until it is cancelled. Returns at once without Redis."""
    address = redis_clients.location()
    if address is None:
        return
    while True:
        # It is silence that is usual here.
        client = redis_clients.connect(address, socket_timeout=None, max_connections=1)
        try:
            async with client.pubsub() as channel:
                await channel.subscribe(CHANNEL)
                await _hear_from(channel)
        except (RedisError, OSError, TimeoutError) as error:
            _away(error)
        finally:
            await client.aclose()
        await asyncio.sleep(PAUSE)


async def _hear_from(channel: PubSub) -> None:
    is_asked = False
    while True:
        message = await channel.get_message(timeout=_SILENCE)
        if message is None:
            if is_asked:
                raise TimeoutError("Redis does not answer.")
            async with asyncio.timeout(_SILENCE):
                await channel.ping()
            is_asked = True
            continue
        is_asked = False
        match message["type"]:
            case "subscribe":
                _back()
                for missed in _missed.values():
                    missed()
            case "message":
                _heard(message["data"])


def _heard(data: bytes) -> None:
    sender, _, rest = data.decode("utf-8", "replace").partition(" ")
    topic, _, what = rest.partition(" ")
    if sender != _me and topic in _hear:
        _hear[topic](what)


def _publish(message: str) -> None:
    global _publisher  # noqa: PLW0603 - one connection per process
    address = redis_clients.location()
    if address is None:
        return
    try:
        with _lock:
            if _publisher is None or _publisher[0] != address:
                _publisher = (
                    address,
                    redis.Redis.from_url(
                        address,
                        socket_timeout=redis_clients.TIMEOUT,
                        socket_connect_timeout=redis_clients.TIMEOUT,
                        max_connections=2,
                    ),
                )
            client = _publisher[1]
        client.publish(CHANNEL, message)
    except (RedisError, OSError) as error:
        _away(error)
    else:
        _back()


def _away(error: Exception) -> None:
    global _is_away  # noqa: PLW0603 - said once
    if not _is_away:
        _is_away = True
        logger.warning("Changes are not told between processes, which see them a little later: %s", error)


def _back() -> None:
    global _is_away  # noqa: PLW0603 - said once
    if _is_away:
        _is_away = False
        logger.warning("Changes are told between processes again.")


def _after_fork_in_child() -> None:
    global _me, _publisher, _lock
    _me, _publisher, _lock = uuid4().hex, None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
