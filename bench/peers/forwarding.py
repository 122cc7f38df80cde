"""The least that a gateway in Python can be: an ASGI function that forwards with aiohttp, and nothing else.

No key is checked, nothing is validated, parsed or kept: what our server needs beyond this is what it does.

    python -m bench.peers.forwarding PORT UPSTREAM
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvicorn

Message = dict[str, Any]
_HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer mock"}


class Forwarding:
    """The ASGI application. `upstream`: the address of the vendor's chat completions."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        async with self._session.post(self._upstream, data=bytes(body), headers=_HEADERS) as response:
            kind = response.headers["Content-Type"].encode()
            start = {"type": "http.response.start", "status": response.status}
            if kind.startswith(b"text/event-stream"):
                await send({**start, "headers": [(b"content-type", kind)]})
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                whole = await response.read()
                length = str(len(whole)).encode()
                await send({**start, "headers": [(b"content-type", kind), (b"content-length", length)]})
                await send({"type": "http.response.body", "body": whole})


def main() -> None:
    port, upstream = int(sys.argv[1]), sys.argv[2]
    uvicorn.run(
        Forwarding(upstream),
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
