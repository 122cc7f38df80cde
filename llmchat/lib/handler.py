"""Django's handler, for all that the lean handler does not answer itself."""

from __future__ import annotations

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve


class Handler(ASGIHandler):
    """Makes the answer of a synchronous view in one go, on one thread: from the first middleware to the rendered
    template. Django's own goes to a thread and back for each half of each middleware, some twenty times a page; beside
    a busy event loop every one of them waits for its turn, which together takes longer than the page."""

    def __init__(self) -> None:
        super().__init__()
        self._in_one_thread = BaseHandler()
        self._in_one_thread.load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        if _is_asynchronous(request):
            return await super().get_response_async(request)
        return await sync_to_async(self._in_one_thread.get_response, thread_sensitive=True)(request)


def _is_asynchronous(request: HttpRequest) -> bool:
    """Whether the view of the request's path is. What leads nowhere is answered by synchronous code."""
    try:
        return iscoroutinefunction(resolve(request.path_info).func)
    except Resolver404:
        return False
