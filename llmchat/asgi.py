"""The ASGI application, from the outside in: a line in the log, the lean handler of the data plane; behind it, for
everything else, static files, bounds on bodies and Django's own handler with its middlewares.

`manage.py serve` runs it.
"""

from __future__ import annotations

import os
from contextlib import suppress

import django
from django.db import Error as DatabaseFault

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmchat.settings")

# What follows imports models.
django.setup(set_prefix=False)

from django.conf import settings  # noqa: E402
from django.urls import get_resolver  # noqa: E402

from chat import durability, engine  # noqa: E402
from llmchat.lib import changes, lifecycle, redis_clients  # noqa: E402
from llmchat.lib.asgi import Receive, Scope, Send  # noqa: E402
from llmchat.lib.body_limit import BodyLimit, Bounds  # noqa: E402
from llmchat.lib.handler import Handler  # noqa: E402
from llmchat.lib.lean import LeanHandler  # noqa: E402
from llmchat.lib.request_log import RequestLog  # noqa: E402
from llmchat.lib.static import with_static_files  # noqa: E402
from providers import catalogue, registry  # noqa: E402

_django = Handler()
# The imports behind the URLs are done now, not by the first request.
get_resolver().url_patterns  # noqa: B018


async def _route(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifecycle.lifespan(scope, receive, send)
    else:
        await _django(scope, receive, send)  # type: ignore[arg-type]


async def _warm_up() -> None:
    """Does, behind the first requests, what one of them would wait for: reads the catalogue, sets up the providers that
    have a key, and has the local model loaded if it is what answers by default."""
    # A database that is away is the requests' to tell.
    with suppress(DatabaseFault):
        await catalogue.snapshot()
    await registry.set_up()
    if settings.DEFAULT_MODEL.startswith("local/"):
        # Its library is of no use to a process that never asks it.
        from providers.adapters import local

        local.warm_up(registry.config("local"))


lifecycle.on_startup(durability.start)
lifecycle.on_startup(_warm_up)
lifecycle.on_startup(changes.listen)
# In the other order: whoever still waits for a provider is recorded before the way to it is closed.
lifecycle.on_shutdown(durability.stop)
lifecycle.on_shutdown(registry.aclose_all)
lifecycle.on_shutdown(redis_clients.aclose_all)
lifecycle.on_shutdown(engine.stop)

_bounds = Bounds(max_bytes=settings.MAX_BODY_BYTES, seconds=settings.BODY_READ_SECONDS)
_everything = with_static_files(
    BodyLimit(_route, bounds=_bounds), url=settings.STATIC_URL, root=settings.STATIC_ROOT, debug=settings.DEBUG
)
_data_plane = LeanHandler(
    _everything,
    paths=("/v1/chat", "/v1/chat/stream", "/v1/chat/completions"),
    # Whoever probes a container or a pod asks it by its address.
    open_paths=("/v1/health/live", "/v1/health/ready"),
    bounds=_bounds,
)
_quiet = {"/v1/health/live", "/v1/health/ready", "/metrics"}

application = RequestLog(_data_plane, quiet=_quiet)

#: The same without the lean handler: what it must agree with, and is measured against.
without_lean = RequestLog(_everything, quiet=_quiet)
