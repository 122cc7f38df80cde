"""What a web process does when it starts and before it ends, run by ASGI's lifespan protocol.

Start-up work runs behind the first requests: it never delays them, and its failure is logged, not fatal. Shutdown work
is awaited one after the other, last registered first, once the last response is out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from llmchat.lib.asgi import Receive, Scope, Send

logger = logging.getLogger(__name__)

Hook = Callable[[], Awaitable[object]]

_on_startup: list[Hook] = []
_on_shutdown: list[Hook] = []
_running: set[asyncio.Task[None]] = set()
_stopping = False


def on_startup(hook: Hook) -> None:
    _on_startup.append(hook)


def on_shutdown(hook: Hook) -> None:
    _on_shutdown.append(hook)


def stop() -> None:
    """From here on the process finishes what it has and wants nothing new."""
    global _stopping  # noqa: PLW0603 - a process stops once
    _stopping = True


def is_stopping() -> bool:
    return _stopping


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application for scopes of type `lifespan`."""
    del scope
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            for hook in _on_startup:
                task = asyncio.create_task(_logged(hook))
                _running.add(task)
                task.add_done_callback(_running.discard)
            await send({"type": "lifespan.startup.complete"})
        else:
            stop()
            for task in tuple(_running):
                task.cancel()
            for hook in reversed(_on_shutdown):
                await _logged(hook)
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _logged(hook: Hook) -> None:
    try:
        await hook()
    except Exception:
        logger.exception("A hook failed: %s", getattr(hook, "__qualname__", repr(hook)))
