"""The way to Redis from an event loop: one client for each loop, to the server of Django's default cache.

Knows nothing of what is kept there. A command that may have been done is not sent twice.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import redis
from django.conf import settings
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import ConnectionError as ConnectionFailed

#: Connections of one process at most; who finds all in use waits for one.
CONNECTIONS: Final = 64
#: Seconds that a command, a connection, or the wait for one in the pool may take.
TIMEOUT: Final = 2.0

#: Without it, the library looks its version up on the disk for each connection.
_US: Final = DriverInfo(name="redis-py", lib_version=redis.__version__)

_clients: dict[asyncio.AbstractEventLoop, dict[str, Redis]] = {}


def location() -> str | None:
    """The address of the Redis that is the default cache; None when that is in this process's memory."""
    cache: dict[str, Any] = settings.CACHES["default"]
    return str(cache["LOCATION"]) if "redis" in str(cache["BACKEND"]).lower() else None


def client() -> Redis | None:
    """The running loop's client; None without Redis."""
    address = location()
    if address is None:
        return None
    loop = asyncio.get_running_loop()
    here = _clients.get(loop)
    if here is None:
        # Clients hold their loop, so that weak references would never let go of either.
        for gone in [other for other in _clients if other.is_closed()]:
            del _clients[gone]
        here = _clients[loop] = {}
    found = here.get(address)
    if found is None:
        found = here[address] = connect(address)
    return found


def connect(address: str, **options: Any) -> Redis:
    """A client of one's own, to be closed by whoever asked for it."""
    # A connection that died while it was idle shows at its next use: then, and only then, it is tried again.
    retry = Retry(NoBackoff(), 1, supported_errors=(ConnectionFailed,))
    pool = BlockingConnectionPool.from_url(
        address,
        **{
            "max_connections": CONNECTIONS,
            "timeout": TIMEOUT,
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
            "retry": retry,
            "driver_info": _US,
            **options,
        },
    )
    return Redis.from_pool(pool)


async def aclose_all() -> None:
    """Closes the running loop's clients."""
    for each in _clients.pop(asyncio.get_running_loop(), {}).values():
        await each.aclose()
