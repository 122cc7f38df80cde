"""The outermost ASGI handler: gives every request its id, every response the header that tells it, and every request
one line in the log. It sees neither bodies nor, but for the id, headers; the query is left out, since it may hold keys.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable

from llmchat.lib import logs, request_id
from llmchat.lib.asgi import Application, Message, Receive, Scope, Send, header

logger = logging.getLogger("llmchat.requests")

_ID_HEADER = request_id.HEADER.lower().encode()
_ID_LENGTH = len(_ID_HEADER)
_LONGEST_PATH = 500


class RequestLog:
    """`quiet`: paths whose successes are only worth a line at DEBUG, such as probes."""

    def __init__(self, application: Application, *, quiet: Collection[str] = ()) -> None:
        self._application = application
        self._quiet = frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        began = time.perf_counter()
        logs.begin()
        given = header(scope, _ID_HEADER)
        current = request_id.begin(given)
        identifier = (_ID_HEADER, current.encode())
        if given != current:
            # Whoever looks at the request behind us finds the same id there.
            others = scope["headers"] if given is None else _without_id(scope["headers"])
            scope = {**scope, "headers": [*others, identifier]}
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*_without_id(message.get("headers", ())), identifier]}
            await send(message)

        try:
            await self._application(scope, receive, send_marked)
        finally:
            path = scope["path"]
            level = logging.DEBUG if path in self._quiet and 0 < status < 400 else logging.INFO
            facts = {
                "method": scope["method"],
                "path": path[:_LONGEST_PATH],
                # Nothing was answered: the client left first, or the process is about to say why in a traceback.
                "status": status or None,
                "duration_ms": round((time.perf_counter() - began) * 1000, 2),
            }
            logs.say(logger, level, "request", facts)


def _without_id(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # Few names are as long: it is quicker to count letters than to make them small.
    return [pair for pair in headers if len(pair[0]) != _ID_LENGTH or pair[0].lower() != _ID_HEADER]
