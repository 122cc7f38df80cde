"""The ASGI application, from the outside in: a line in the log, bounds on bodies, static files, Django.

`manage.py serve` runs it. The data plane's own handler will stand before Django's, in `_route`.
"""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmchat.settings")

# Sets Django up: what follows imports models.
_django = get_asgi_application()

from django.conf import settings  # noqa: E402
from django.urls import get_resolver  # noqa: E402

from chat import durability, engine  # noqa: E402
from llmchat.lib import lifecycle  # noqa: E402
from llmchat.lib.asgi import Receive, Scope, Send  # noqa: E402
from llmchat.lib.body_limit import BodyLimit  # noqa: E402
from llmchat.lib.request_log import RequestLog  # noqa: E402
from llmchat.lib.static import with_static_files  # noqa: E402
from providers import registry  # noqa: E402

# The imports behind the URLs are done now, not by the first request.
get_resolver().url_patterns  # noqa: B018


async def _route(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifecycle.lifespan(scope, receive, send)
    else:
        await _django(scope, receive, send)  # type: ignore[arg-type]


async def _warm_up() -> None:
    """Has the local model loaded behind the first requests, if it is what answers by default."""
    if settings.DEFAULT_MODEL.startswith("local/"):
        # Its library is of no use to a process that never asks it.
        from providers.adapters import local

        local.warm_up(registry.config("local"))


lifecycle.on_startup(durability.start)
lifecycle.on_startup(_warm_up)
# In the other order: whoever still waits for a provider is recorded before the way to it is closed.
lifecycle.on_shutdown(durability.stop)
lifecycle.on_shutdown(registry.aclose_all)
lifecycle.on_shutdown(engine.stop)

application = RequestLog(
    with_static_files(
        BodyLimit(_route, max_bytes=settings.MAX_BODY_BYTES, seconds=settings.BODY_READ_SECONDS),
        url=settings.STATIC_URL,
        root=settings.STATIC_ROOT,
        debug=settings.DEBUG,
    ),
    quiet={"/v1/health/live", "/v1/health/ready", "/metrics"},
)
