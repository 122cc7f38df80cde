"""Bounds on what a client may send: a body too large is refused before or while it is read, one that comes too slowly
is given up. Nothing of it is kept; the application behind sees a body only within the bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llmchat.lib.asgi import WHOLE_BODY, Application, Message, Receive, Scope, Send, header, send_problem
from llmchat.lib.envelope import APIError

#: Digits of a length that is no more than a number too large.
_MANY_DIGITS = 18


class Refused(Exception):
    """The body is out of bounds; the rest of it is not to be read."""

    def __init__(self, problem: APIError) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """`max_bytes`: of a body. `seconds`: in which all of it must have come."""

    max_bytes: int
    seconds: float

    def expects(self, scope: Scope) -> bool:
        """Whether the head announces a body. Raises `Refused` for one that it says is too large."""
        length = header(scope, b"content-length")
        if length is None or length == "0":
            return header(scope, b"transfer-encoding") is not None
        if length.isdigit() and (len(length) > _MANY_DIGITS or int(length) > self.max_bytes):
            raise self.too_large()
        return True

    async def read(self, scope: Scope, receive: Receive) -> bytes | None:
        """All of the body; None when the client left before. Raises `Refused`."""
        if not self.expects(scope):
            return b""
        whole: Callable[[], bytes | None] | None = (scope.get("extensions") or {}).pop(WHOLE_BODY, None)
        if whole is not None and (body := whole()) is not None:
            if len(body) > self.max_bytes:
                raise self.too_large()
            return body
        pieces: list[bytes] = []
        received = 0
        # A timer of our own, since `asyncio.timeout` costs as much as all the rest of this.
        patience = _Patience(self.seconds)
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                piece = message.get("body", b"")
                received += len(piece)
                if received > self.max_bytes:
                    raise self.too_large()
                pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
        except asyncio.CancelledError:
            if not patience.has_ended:
                raise
            raise self.too_slow() from None
        finally:
            patience.timer.cancel()

    def too_large(self) -> Refused:
        return Refused(
            APIError(
                f"The request's body is larger than {self.max_bytes} bytes. Send less.",
                status=413,
                code="request_too_large",
            )
        )

    def too_slow(self) -> Refused:
        return Refused(
            APIError(
                f"The request's body did not arrive within {self.seconds:g} s. Send it faster.",
                status=408,
                code="request_timeout",
            )
        )


class _Patience:
    """Cancels the task that made it after so many seconds, unless its `timer` is cancelled before."""

    def __init__(self, seconds: float) -> None:
        self.has_ended = False
        self._task = asyncio.current_task()
        self.timer = asyncio.get_running_loop().call_later(seconds, self._end)

    def _end(self) -> None:
        self.has_ended = True
        if self._task is not None:
            self._task.cancel()


class BodyLimit:
    """An application within `bounds`."""

    def __init__(self, application: Application, *, bounds: Bounds) -> None:
        self._application = application
        self._bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        bounds = self._bounds
        deadline = asyncio.get_running_loop().time() + bounds.seconds
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
                raise bounds.too_slow() from None
            received += len(message.get("body", b""))
            if received > bounds.max_bytes:
                raise bounds.too_large()
            whole = not message.get("more_body", False)
            return message

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if bounds.expects(scope):
                await self._application(scope, bounded, noting)
            else:
                await self._application(scope, receive, send)
        except Refused as refused:
            if started:
                raise
            await send_problem(refused.problem, send)
