"""`/docs` and `/redoc`: the OpenAPI schema for people. A browser that shows them is told to ask nobody but us: keys are
typed in there."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import HttpResponseBase
from drf_spectacular.views import SpectacularRedocView, SpectacularSwaggerView

# Both pages begin with a few lines of script and style of their own; the worker is the search within a page.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'"
)

View = Callable[..., HttpResponseBase]


def _at_home(view: View) -> View:
    @wraps(view)
    def wrapped(*args: Any, **kwargs: Any) -> HttpResponseBase:
        response = view(*args, **kwargs)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    return wrapped


docs = _at_home(SpectacularSwaggerView.as_view(url_name="openapi"))
redoc = _at_home(SpectacularRedocView.as_view(url_name="openapi", template_name="redoc.html"))
