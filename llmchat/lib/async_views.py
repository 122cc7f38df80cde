"""DRF view sets whose actions are coroutines, without a thread hop: the whole way from the handler to the action runs
on the event loop, and what DRF makes anew for each request is made once for each class.

Authentication classes offer `aauthenticate(request)` beside DRF's `authenticate(request)`. Permissions must decide from
memory; what needs the database belongs into the action. Bodies are JSON, and so are answers that an action gives as
data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import update_wrapper
from typing import Any, Final, Self

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.decorators import classonlymethod
from rest_framework.exceptions import MethodNotAllowed, UnsupportedMediaType
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from llmchat.lib import envelope
from llmchat.lib.rendering import json_response, parse_object

#: Accept headers that a class remembers, and how long one may be to be remembered: they are the callers' own.
_MOST_REMEMBERED: Final = 256
_LONGEST_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tools:
    """What DRF makes anew for each request, and need not."""

    parsers: list[BaseParser]
    renderers: list[BaseRenderer]
    authenticators: list[Any]
    permissions: list[Any]
    negotiator: BaseContentNegotiation
    #: Accept headers that were found to be satisfied.
    accepted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, view: ViewSet) -> Self:
        return cls(
            parsers=view.get_parsers(),
            renderers=view.get_renderers(),
            authenticators=view.get_authenticators(),
            permissions=list(view.get_permissions()),
            negotiator=view.get_content_negotiator(),
        )


class JSONRequest(Request):
    """DRF's request with a body of JSON, whether its length was told or not; what was not sent is an empty object."""

    def __init__(self, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(request, **kwargs)
        # Else each look goes the way of an attribute that is missing.
        self.META = request.META
        # It holds the request: a circle, which would wait for the garbage collector. Our parser asks nothing of it.
        self.parser_context = {}

    def _load_data_and_files(self) -> None:
        self._files: dict[str, Any] = {}
        self._data = self._full_data = {}
        if raw := self._request.read():
            if self.content_type != "application/json" and not self._has_parser():
                raise UnsupportedMediaType(self.content_type)
            self._data = self._full_data = parse_object(raw)

    def _has_parser(self) -> bool:
        negotiator, parsers = self.negotiator, self.parsers
        return bool(negotiator and negotiator.select_parser(self, parsers or ()))


class AsyncViewSet(ViewSet):
    """A `ViewSet` with `async def` actions. An action returns a response, or DRF's `Response` with data."""

    tools: _Tools

    @classonlymethod
    def as_view(cls, actions: Any = None, **initkwargs: Any) -> Any:
        declared = super().as_view(actions, **initkwargs)
        tools = _Tools.of(cls(**initkwargs))
        action_map = {**actions, "head": actions["get"]} if "get" in actions else actions

        async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            self = cls(**initkwargs)
            self.tools = tools
            self.action_map = action_map
            return await self.dispatch(request, *args, **kwargs)

        # What Django and drf-spectacular want to know of a view stands on DRF's own.
        return update_wrapper(view, declared)

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        tools = self.tools
        self.args = args
        self.kwargs = kwargs
        self.action = self.action_map.get((request.method or "").lower())  # type: ignore[assignment]  # DRF has None here too
        drf_request = JSONRequest(
            request, parsers=tools.parsers, authenticators=tools.authenticators, negotiator=tools.negotiator
        )
        self.request = drf_request
        try:
            self._negotiate(drf_request, tools)
            await self._authenticate(drf_request)
            for permission in tools.permissions:
                if not permission.has_permission(drf_request, self):
                    self.permission_denied(drf_request, message=getattr(permission, "message", None))
            if self.action is None:
                raise MethodNotAllowed(request.method or "")
            response: HttpResponseBase = await getattr(self, self.action)(drf_request, *args, **kwargs)
        except Exception as error:
            return self._problem(error)
        if isinstance(response, Response):
            return json_response(response.data, status=response.status_code, headers=response.headers)
        return response

    def _problem(self, error: Exception) -> HttpResponse:
        problem = envelope.as_api_error(error)
        if problem.status == 405:
            problem.headers["Allow"] = ", ".join(method.upper() for method in self.action_map)
        return envelope.as_http_response(problem)

    def _negotiate(self, request: Request, tools: _Tools) -> None:
        """As DRF does it; an Accept header that was found to be satisfied is not looked at again."""
        meta = request._request.META  # noqa: SLF001 - DRF offers no quicker way to a header
        accept = meta.get("HTTP_ACCEPT", "*/*")
        if accept in tools.accepted and not meta["QUERY_STRING"]:
            return
        tools.negotiator.select_renderer(request, tools.renderers, None)
        if not meta["QUERY_STRING"] and len(accept) <= _LONGEST_REMEMBERED and len(tools.accepted) < _MOST_REMEMBERED:
            tools.accepted.add(accept)

    async def _authenticate(self, request: Request) -> None:
        """As `Request._authenticate` of DRF, awaiting."""
        for authenticator in request.authenticators or ():
            found = await authenticator.aauthenticate(request)  # type: ignore[union-attr]
            if found is not None:
                request._authenticator = authenticator  # type: ignore[attr-defined]  # noqa: SLF001 - as DRF's own loop
                request.user, request.auth = found
                return
        request._not_authenticated()  # type: ignore[attr-defined]  # noqa: SLF001
