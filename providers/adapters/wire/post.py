"""JSON to one address, again and again: aiohttp's own request, of which everything but the body is made once.

What aiohttp does around each request (cookies, redirects, middlewares, signals, credentials in the address, a second
try) does nothing here, and costs as much as the rest. The connection, its limits and the parser stay aiohttp's. Knows
neither vendors nor what an answer means.
"""

# ruff: noqa: SLF001 - what the session keeps to itself is what this module does without it

from __future__ import annotations

import asyncio
from typing import Any, Final, cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_writer import _serialize_headers
from aiohttp.payload import BytesPayload, Payload
from multidict import CIMultiDict
from yarl import URL

_JSON: Final = "application/json"
_SOME: Final = b"{}"
_LENGTH: Final = b"\r\nContent-Length: %d\r\n" % len(_SOME)


class Body(BytesPayload):
    """JSON that is sent as it is. aiohttp's own warns of what is larger than a megabyte."""

    def __init__(self, value: bytes) -> None:
        Payload.__init__(self, value, content_type=_JSON)
        self._size = len(value)


class Post:
    """A POST to `url`, straight to it and not by a proxy. `of` gives one, or None where aiohttp has to do it.

    Leans on what `aiohttp.ClientSession` does with the classes of its own that it stands on; `test_wire_post.py` holds
    both to the same bytes.
    """

    def __init__(self, session: aiohttp.ClientSession, request: aiohttp.ClientRequest, *, connect: float) -> None:
        self._session: Any = session
        self._connector: Any = session.connector
        self._request = request
        self._timeout = aiohttp.ClientTimeout(connect=connect)
        self._about = request.request_info
        head = _serialize_headers(f"POST {request.url.raw_path_qs} HTTP/1.1", request.headers)
        self._before, _, self._after = head.partition(_LENGTH)

    @classmethod
    def of(cls, session: aiohttp.ClientSession, url: URL, *, headers: CIMultiDict[str], connect: float) -> Post | None:
        """Raises ValueError for headers that HTTP cannot carry, InvalidURL for such an address."""
        if url.scheme not in {"http", "https"} or url.raw_user or url.raw_password:
            return None
        request = session._request_class(
            "POST",
            url,
            headers=session._prepare_headers(headers),
            data=Body(_SOME),
            loop=asyncio.get_running_loop(),
            session=session,
        )
        # Set by headers of the provider.
        is_odd = request.chunked or request.compress or request._continue is not None
        if (
            is_odd
            or "Transfer-Encoding" in request.headers
            or request.headers.getall("Content-Length") != [str(len(_SOME))]
        ):
            return None
        return cls(session, request, connect=connect)

    async def send(self, body: bytes) -> aiohttp.ClientResponse:
        """The head of the answer to `body`, of at most `pool.SMALL` bytes. Raises as `ClientSession.request` does."""
        session = self._session
        try:
            connection = await self._connector.connect(self._request, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._request.url}") from error
        protocol = connection.protocol
        response = session._response_class(
            "POST",
            self._request.original_url,
            writer=None,
            continue100=None,
            timer=self._request._timer,
            request_info=self._about,
            traces=[],
            loop=session._loop,
            session=session,
            stream_writer=_WRITTEN,
        )
        try:
            protocol.set_response_params(
                timer=self._request._timer,
                skip_payload=False,
                read_until_eof=True,
                auto_decompress=session._auto_decompress,
                read_timeout=None,
                read_bufsize=session._read_bufsize,
                timeout_ceil_threshold=self._connector._timeout_ceil_threshold,
                max_line_size=session._max_line_size,
                max_field_size=session._max_field_size,
                max_headers=session._max_headers,
            )
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
            transport.write(b"%b\r\nContent-Length: %d\r\n%b%b" % (self._before, len(body), self._after, body))
            await response.start(connection)
        except BaseException:
            response.close()
            connection.close()
            raise
        return cast("aiohttp.ClientResponse", response)


class _Written:
    """What aiohttp asks about a request that has gone out."""

    output_size = 0


_WRITTEN: Final = cast("AbstractStreamWriter", _Written())
