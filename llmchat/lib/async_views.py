"""DRF view sets whose actions are coroutines, without a thread hop: the whole way from the handler to the action runs
on the event loop.

Authentication classes offer `aauthenticate(request)` beside DRF's `authenticate(request)`. Permissions must decide from
memory; what needs the database belongs into the action.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import classonlymethod
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet


class AsyncViewSet(ViewSet):
    """A `ViewSet` with `async def` actions."""

    @classonlymethod
    def as_view(cls, actions: Any = None, **initkwargs: Any) -> Any:
        view = super().as_view(actions, **initkwargs)
        return markcoroutinefunction(view)

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        self.args = args
        self.kwargs = kwargs
        drf_request = self.initialize_request(request, *args, **kwargs)
        self.request = drf_request
        self.headers = self.default_response_headers
        self.format_kwarg = self.get_format_suffix(**kwargs)
        try:
            drf_request.accepted_renderer, drf_request.accepted_media_type = self.perform_content_negotiation(
                drf_request
            )
            await self._authenticate(drf_request)
            self.check_permissions(drf_request)
            method = (drf_request.method or "").lower()
            handler = getattr(self, method, None) if method in self.http_method_names else None
            if handler is None or method == "options":
                self.http_method_not_allowed(drf_request)
            response = await handler(drf_request, *args, **kwargs)  # type: ignore[misc]
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(drf_request, response, *args, **kwargs)
        return self.response

    async def _authenticate(self, request: Request) -> None:
        """As `Request._authenticate` of DRF, awaiting."""
        for authenticator in request.authenticators or ():
            found = await authenticator.aauthenticate(request)  # type: ignore[union-attr]
            if found is not None:
                request._authenticator = authenticator  # type: ignore[attr-defined]  # noqa: SLF001 - as DRF's own loop
                request.user, request.auth = found
                return
        request._not_authenticated()  # type: ignore[attr-defined]  # noqa: SLF001
