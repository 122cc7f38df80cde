"""Bounds on what a client may send: a body too large is refused before or while it is read, one that comes too slowly
is given up. Nothing of it is kept; the application behind sees a body only within the bounds.
"""

from __future__ import annotations

import asyncio

from llmchat.lib.asgi import Application, Message, Receive, Scope, Send, header, send_problem
from llmchat.lib.envelope import APIError


class _Refused(Exception):
    def __init__(self, problem: APIError) -> None:
        super().__init__(problem.message)
        self.problem = problem


class BodyLimit:
    """`max_bytes`: of a body. `seconds`: in which all of it must have come."""

    def __init__(self, application: Application, *, max_bytes: int, seconds: float) -> None:
        self._application = application
        self._max_bytes = max_bytes
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        length = header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self._max_bytes:
            await send_problem(self._too_large(), send)
            return
        if length in {None, "0"} and header(scope, b"transfer-encoding") is None:
            await self._application(scope, receive, send)
            return

        deadline = asyncio.get_running_loop().time() + self._seconds
        received = 0
        whole = started = False

        async def bounded() -> Message:
            nonlocal received, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise _Refused(self._too_slow()) from None
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise _Refused(self._too_large())
            whole = not message.get("more_body", False)
            return message

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._application(scope, bounded, noting)
        except _Refused as refused:
            if started:
                raise
            await send_problem(refused.problem, send)

    def _too_large(self) -> APIError:
        return APIError(
            f"The request's body is larger than {self._max_bytes} bytes. Send less.",
            status=413,
            code="request_too_large",
        )

    def _too_slow(self) -> APIError:
        return APIError(
            f"The request's body did not arrive within {self._seconds:g} s. Send it faster.",
            status=408,
            code="request_timeout",
        )
