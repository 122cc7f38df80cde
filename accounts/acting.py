"""Says who stands behind a request, for the audit trail: asked only if something changes. Costs no thread hop."""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from accounts.addresses import client_address
from accounts.models import User
from audit import actors
from audit.actors import Actor
from audit.models import ActorKind
from llmchat.lib import request_id
from llmchat.lib.request_id import AnyHandler


def acting_middleware(get_response: AnyHandler) -> AnyHandler:
    """Django middleware for both kinds of handlers; goes behind the one that finds the person."""
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            token = actors.enter(_teller(request))
            try:
                response: HttpResponseBase = await get_response(request)
                return response
            finally:
                actors.leave(token)

        return markcoroutinefunction(asynchronous)

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        token = actors.enter(_teller(request))
        try:
            return get_response(request)  # type: ignore[return-value]
        finally:
            actors.leave(token)

    return synchronous


acting_middleware.async_capable = True  # type: ignore[attr-defined]
acting_middleware.sync_capable = True  # type: ignore[attr-defined]


def _teller(request: HttpRequest) -> Callable[[], Actor]:
    def tell() -> Actor:
        user = getattr(request, "user", None)
        person = user if isinstance(user, User) else None
        address = client_address(request)
        return Actor(
            kind=ActorKind.PERSON if person else ActorKind.SYSTEM,
            name=person.get_username() if person else "a request without a log-in",
            person_id=person.pk if person else None,
            address=None if address is None else str(address),
            request_id=request_id.current(),
        )

    return tell
