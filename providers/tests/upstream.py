"""A vendor on this machine: a real server on a real socket that plays one prepared reply, byte by byte if asked to.

Knows HTTP/1.1 only as far as a client needs, so that it can also break it: cut an answer, reset, fall silent.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> bytes:
    """A vendor's answer byte for byte as its documentation has it on the wire: `recorded/<name>.txt`."""
    return (RECORDED / f"{name}.txt").read_bytes()


class Ending(Enum):
    """What happens after the body."""

    WHOLE = "the response ends as HTTP wants it"
    CUT = "the connection is closed in the middle of the response"
    RESET = "the connection is reset"
    HELD = "the connection stays open, and nothing more comes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the vendor answers. `pieces`: the body in the pieces in which it is sent, or the size of equal ones; after
    each, a `pause` in seconds."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = "text/event-stream; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: int | Sequence[bytes] = 65536
    pause: float = 0.0
    ending: Ending = Ending.WHOLE
    #: No headers at all, only the ending.
    mute: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upstream:
    """The running vendor. `left` is set when a client closed a connection that was still being answered."""

    def __init__(self) -> None:
        self.url = ""
        self.reply = Reply()
        self.requests: list[Received] = []
        self.connections = 0
        self.left = asyncio.Event()
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while request := await _receive(reader):
                self.requests.append(request)
                await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        except _Over:
            pass
        finally:
            del self._open[task]
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """Break off what is still open, and wait until it is."""
        tasks = list(self._open)
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*tasks)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = self.reply
        if not reply.mute:
            head = {"Transfer-Encoding": "chunked", **reply.headers}
            if reply.content_type is not None:
                head["Content-Type"] = reply.content_type
            lines = [f"HTTP/1.1 {reply.status} Reply", *(f"{name}: {value}" for name, value in head.items()), "", ""]
            writer.write("\r\n".join(lines).encode("latin-1"))
            for piece in _pieces(reply):
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(reply.pause)
        match reply.ending:
            case Ending.WHOLE:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            case Ending.CUT:
                raise _Over
            case Ending.RESET:
                writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                raise _Over
            case Ending.HELD:
                await reader.read(1)  # returns when the client has gone
                self.left.set()
                raise _Over


class _Over(Exception):
    """The connection has had its ending."""


def _pieces(reply: Reply) -> Sequence[bytes]:
    if isinstance(reply.pieces, int):
        return [reply.body[at : at + reply.pieces] for at in range(0, len(reply.body), reply.pieces)]
    return reply.pieces


async def _receive(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None  # an idle connection was closed, as anyone may
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body)


@asynccontextmanager
async def running(tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream on a free port of this machine, gone afterwards."""
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=tls)
    upstream.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.stop()
        await server.wait_closed()
