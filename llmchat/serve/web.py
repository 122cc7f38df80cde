"""One web worker: uvicorn on the inherited socket."""

from __future__ import annotations

import asyncio
import importlib
import math
import signal
import socket
import sys
from types import FrameType

import uvicorn
from django.conf import settings
from django.urls import get_resolver

from llmchat.lib import garbage, lifecycle
from llmchat.lib.supervisor import Parent
from llmchat.serve.protocol import BoundedHeads
from providers import registry

#: Longer than proxies keep idle connections to us, so that none is closed under a request on its way.
KEEP_ALIVE_SECONDS = 75


#: How long a thread that computes (a page, a batch of rows) keeps the event loop waiting when it wants to go on, and
#: the other way round. Python's own 5 ms cost 7.5 % of the answers while a dashboard was looked at; this 0.4 %, and
#: nothing when nobody looks (`python -m bench.operators --parts half`).
SWITCH_SECONDS = 0.001


class WebServer(uvicorn.Server):
    """Tells when it really accepts connections, and when no more. Ends without raising its signal again: that would be
    no clean end."""

    def __init__(self, config: uvicorn.Config, *, parent: Parent) -> None:
        super().__init__(config)
        self._parent = parent

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        # Uvicorn has handlers once its loop runs. Until then the supervisor's would end the process between `serve` and
        # the loop that is to run it, and Python complains of what is never awaited.
        signal.signal(signal.SIGTERM, self.handle_exit)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            garbage.collect_seldom()
            sys.setswitchinterval(SWITCH_SECONDS)
            self._parent.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A turn of the loop: connections that wait to be accepted are taken before the socket is closed. When all
        # workers end, nobody else would take them.
        await asyncio.sleep(0)
        self._parent.leaving()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        lifecycle.stop()
        self.should_exit = True


def preload() -> None:
    """Imports what every request needs, and the adapters of providers that have a key. Workers forked afterwards share
    it and are ready at once."""
    for name in ("llmchat.asgi", "uvloop", "uvicorn.lifespan.on", "uvicorn.loops.uvloop"):
        importlib.import_module(name)
    get_resolver().url_patterns  # noqa: B018 - reads the URL configuration
    registry.preload()


def run(listener: socket.socket, parent: Parent) -> None:
    """Serves until SIGTERM, then finishes running requests within SHUTDOWN_GRACE_SECONDS."""
    from llmchat.asgi import application

    config = uvicorn.Config(
        application,
        loop="uvloop",
        http=BoundedHeads,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.SHUTDOWN_GRACE_SECONDS),
    )
    WebServer(config, parent=parent).run(sockets=[listener])
