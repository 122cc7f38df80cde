"""The connections of an event loop, shared by all its providers. Knows nothing of vendors."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import aiohttp
import certifi
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.payload import Payload

#: Seconds after which an idle connection is closed, and after which an address is looked up again.
_KEEP_ALIVE: Final = 30.0
_DNS_TTL: Final = 60
#: Bytes of one header of a response.
_MAX_HEADER_BYTES: Final = 64 * 1024
#: Bytes of a body that is sent without waiting: no more than a transport takes before it asks to be waited for.
SMALL: Final = 48 * 1024


def _tls() -> ssl.SSLContext:
    """Trusts what the system trusts, or SSL_CERT_FILE and SSL_CERT_DIR name; certifi's authorities where none is."""
    found = ssl.get_default_verify_paths()
    return ssl.create_default_context(cafile=None if found.cafile or found.capath else certifi.where())


#: One for all connections, made at import: reading the certificate authorities takes a megabyte, and blocks.
_TLS: Final = _tls()


class _Request(aiohttp.ClientRequest):
    """Sends a small body together with its headers, in the same turn of the loop. Before Python 3.12 aiohttp makes a
    task for each body, which costs more than all else about sending it."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        body, protocol = self._body, conn.protocol
        if not isinstance(body, Payload) or not 0 < (body.size or 0) <= SMALL:
            return await super().send(conn)
        if self.chunked or self.compress or self._continue is not None or protocol is None or protocol.writing_paused:
            return await super().send(conn)
        content = await body.as_bytes()
        # Without a body there is nothing that a task would have to send.
        self._body = None
        try:
            response = await super().send(conn)
        finally:
            self._body = body
        if protocol.transport is not None:
            protocol.transport.write(content)
        return response


class _Protocol(ResponseHandler):
    """Resumes only what is paused. aiohttp's reader of a body asks for it after each piece that it hands out, and the
    answer, which has the parser look at nothing and the transport raise an error, cost as much as reading the piece."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)


class _Connector(aiohttp.TCPConnector):
    """Of connections that speak through `_Protocol`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_Protocol, loop=self._loop)  # type: ignore[assignment]


@dataclass(slots=True)
class _Shared:
    session: aiohttp.ClientSession
    users: int = 0


#: By event loop, because a connection belongs to one, and by the limit of connections to one address.
_shared: dict[tuple[asyncio.AbstractEventLoop, int], _Shared] = {}


class Lease:
    """A share in the running loop's session; the session is closed when nobody holds one any more.

    `connections`: to one address at most, for all who say the same number; 0 for no limit.
    """

    def __init__(self, *, connections: int) -> None:
        loop = asyncio.get_running_loop()
        self._key = (loop, connections)
        if self._key not in _shared:
            _forget_closed_loops()
            _shared[self._key] = _Shared(_session(connections))
        _shared[self._key].users += 1
        self.session = _shared[self._key].session
        self._released = False

    async def release(self) -> None:
        """Give the share back. May be called again."""
        shared = _shared.get(self._key)
        if self._released or shared is None:
            return
        self._released = True
        shared.users -= 1
        if not shared.users:
            del _shared[self._key]
            await shared.session.close()


def _forget_closed_loops() -> None:
    """Sessions hold their loop, so that weak references would never let go of either."""
    for key in [key for key in _shared if key[0].is_closed()]:
        closing = _shared.pop(key).session.close()
        with suppress(StopIteration):  # it ends at once: a closed loop has nothing left to wait for
            closing.send(None)


def _session(connections: int) -> aiohttp.ClientSession:
    connector = _Connector(
        # How many calls may run at once is decided before a call comes here
        limit=0,
        limit_per_host=connections,
        keepalive_timeout=_KEEP_ALIVE,
        ttl_dns_cache=_DNS_TTL,
        ssl=_TLS,
    )
    return aiohttp.ClientSession(
        connector=connector,
        request_class=_Request,
        cookie_jar=aiohttp.DummyCookieJar(),
        # Proxies of the environment are looked up once by each client: the session would do it in a thread per call
        trust_env=False,
        # Gateways of large companies add headers beyond aiohttp's own limit
        max_field_size=_MAX_HEADER_BYTES,
    )
