"""The short way of a POST: the same bytes as aiohttp's own request, and aiohttp's wherever something is unusual."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from providers.adapters.wire import pool
from providers.adapters.wire.post import Body, Post

pytestmark = pytest.mark.once

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
_USUAL = {"User-Agent": "llmchat", "Accept": "*/*", "Accept-Encoding": "identity"}


class Listener:
    """Keeps what comes, byte for byte, and answers each request alike, or none if it `is_mute`."""

    def __init__(self) -> None:
        self.url = URL()
        self.received: list[bytes] = []
        self.connections = 0
        self.is_mute = False
        self.came = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
                self.received.append(head + await reader.readexactly(int(length.partition(b":")[2])))
                self.came.set()
                if not self.is_mute:
                    writer.write(_ANSWER)
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listening = Listener()
    server = await asyncio.start_server(listening.serve, "127.0.0.1", 0)
    listening.url = URL.build(scheme="http", host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    async with server:
        yield listening


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    lease = pool.Lease(connections=0)
    yield lease.session
    await lease.release()


def post(session: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str]) -> Post | None:
    return Post.of(session, url, headers=headers, connect=1.0)


async def by_aiohttp(session: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str], body: bytes) -> None:
    async with session.request("POST", url, data=Body(body), headers=headers, allow_redirects=False) as response:
        assert await response.read() == b"{}"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/chat/completions", _USUAL),
        ("/v1/chat/completions?key=a%20b&x=%C3%A4#part", {**_USUAL, "Authorization": "Bearer k"}),
        ("", {}),
        ("/", {"Host": "elsewhere.example", "Content-Type": "application/json; charset=utf-8", "Connection": "close"}),
        ("/ä", {"X-Name": "Müller", "x-name": "twice"}),
        ("/a", {"Cookie": "a=b", "Content-Encoding": "identity"}),
    ],
)
@pytest.mark.parametrize("size", [2, 9, 10, 40_000])
async def test_the_bytes_are_those_that_aiohttp_sends(
    listener: Listener, session: aiohttp.ClientSession, path: str, headers: dict[str, str], size: int
) -> None:
    url, sent, body = URL(f"{listener.url}{path}"), CIMultiDict(headers), b"x" * size
    await by_aiohttp(session, url, sent, body)
    short = post(session, url, sent)
    assert short is not None
    for _ in range(2):
        async with await short.send(body) as response:
            assert (response.status, await response.read()) == (200, b"{}")
    assert listener.received == [listener.received[0]] * 3
    assert listener.received[0].endswith(b"\r\n\r\n" + body)


async def test_both_share_their_connections(listener: Listener, session: aiohttp.ClientSession) -> None:
    short = post(session, listener.url, CIMultiDict(_USUAL))
    assert short is not None
    for _ in range(3):
        async with await short.send(b"{}") as response:
            await response.read()
        await by_aiohttp(session, listener.url, CIMultiDict(_USUAL), b"{}")
    assert listener.connections == 1


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "7"}, {"Transfer-Encoding": "chunked"}, {"Expect": "100-continue"}],
)
async def test_what_headers_make_unusual_is_left_to_aiohttp(
    session: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    assert post(session, URL("http://127.0.0.1/"), CIMultiDict(headers)) is None


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/", "http://user:secret@127.0.0.1/", "http://user@127.0.0.1/"])
async def test_what_the_address_makes_unusual_is_left_to_aiohttp(session: aiohttp.ClientSession, address: str) -> None:
    assert post(session, URL(address), CIMultiDict()) is None


@pytest.mark.parametrize("value", ["a\r\nX-More: b", "a\nb", "a\rb", "a\x00b"])
async def test_header_that_would_break_out_of_its_line_is_refused(session: aiohttp.ClientSession, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        post(session, URL("http://127.0.0.1/"), CIMultiDict({"X-Key": value}))


async def test_connection_that_is_given_up_is_closed(listener: Listener, session: aiohttp.ClientSession) -> None:
    short: Any = post(session, listener.url, CIMultiDict(_USUAL))
    listener.is_mute = True
    asking = asyncio.create_task(short.send(b"{}"))
    await listener.came.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not short._connector._acquired
    assert not short._connector._conns
