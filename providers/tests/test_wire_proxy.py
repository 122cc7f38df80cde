"""The vendors' HTTPS through a proxy of the environment: a real CONNECT, and TLS with the vendor itself inside it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from providers.adapters.base import Adapter
from providers.adapters.wire import pool
from providers.errors import ConnectionFailed, ProviderError
from providers.tests.certificates import write_certificate
from providers.tests.subjects import KEY, OPENAI, over
from providers.tests.upstream import Reply, Upstream, recorded, running
from providers.values import Event

pytestmark = pytest.mark.once

WIRE = over("wire", OPENAI)
#: Nobody but the proxy knows where it is.
VENDOR = "vendor.example"


class Proxy:
    """Tunnels every CONNECT to `target`, or refuses it with the status `refusal`. `heads`: what it was asked."""

    def __init__(self, target: Upstream) -> None:
        self.url = ""
        self.heads: list[str] = []
        self.refusal: str | None = None
        self._target = urlsplit(target.url).port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        if self.refusal is not None:
            writer.write(f"HTTP/1.1 {self.refusal}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def secured(certificate: Path) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with running(context) as found:
        found.reply = Reply(body=recorded("openai_plain"))
        yield found


@asynccontextmanager
async def behind_proxy(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, *, trusted: Path
) -> AsyncIterator[tuple[Adapter, Proxy, Upstream]]:
    """An adapter that reaches a vendor with this certificate through a proxy alone, and trusts that one."""
    monkeypatch.setattr(pool, "_TLS", ssl.create_default_context(cafile=trusted))
    async with secured(certificate) as vendor:
        proxy = Proxy(vendor)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        monkeypatch.setenv("https_proxy", proxy.url.replace("http://", "http://ann:word@"))
        adapter = WIRE.make(vendor, base_url=f"https://{VENDOR}/v1")
        try:
            yield adapter, proxy, vendor
        finally:
            await adapter.aclose()
            server.close()
            await server.wait_closed()


async def answered(adapter: Adapter) -> list[Event]:
    return [event async for event in adapter.stream(WIRE.request())]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "vendor.pem", host=VENDOR)


async def test_vendor_is_reached_through_a_tunnel_which_shows_the_proxy_nothing(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    async with behind_proxy(monkeypatch, certificate, trusted=certificate) as (adapter, proxy, vendor):
        assert await answered(adapter) == WIRE.plain_events
        (head,) = proxy.heads
        assert head.startswith(f"CONNECT {VENDOR}:443 HTTP/1.1\r\n")
        assert "Proxy-Authorization: Basic YW5uOndvcmQ=\r\n" in head
        assert KEY not in head
        (request,) = vendor.requests
        assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
        assert "proxy-authorization" not in request.headers


async def test_tunnel_is_used_again(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    async with behind_proxy(monkeypatch, certificate, trusted=certificate) as (adapter, proxy, vendor):
        assert await answered(adapter) == await answered(adapter) == WIRE.plain_events
        assert (len(proxy.heads), len(vendor.requests)) == (1, 2)


async def refusal_of(adapter: Adapter) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await answered(adapter)
    return caught.value


async def test_certificate_of_another_host_is_refused_inside_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = write_certificate(tmp_path / "other.pem", host="other.example")
    async with behind_proxy(monkeypatch, other, trusted=other) as (adapter, proxy, vendor):
        error = await refusal_of(adapter)
        assert type(error) is ConnectionFailed
        assert "certificate" in error.message
        assert (len(proxy.heads), vendor.requests) == (1, [])


async def test_certificate_that_nobody_vouches_for_is_refused_inside_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, tmp_path: Path
) -> None:
    trusted = write_certificate(tmp_path / "trusted.pem", host=VENDOR)
    async with behind_proxy(monkeypatch, certificate, trusted=trusted) as (adapter, _, vendor):
        error = await refusal_of(adapter)
        assert type(error) is ConnectionFailed
        assert "certificate" in error.message
        assert vendor.requests == []


async def test_proxy_that_refuses_the_tunnel_is_a_failed_connection(
    monkeypatch: pytest.MonkeyPatch, certificate: Path
) -> None:
    async with behind_proxy(monkeypatch, certificate, trusted=certificate) as (adapter, proxy, vendor):
        proxy.refusal = "407 Proxy Authentication Required"
        error = await refusal_of(adapter)
        assert type(error) is ConnectionFailed
        assert "word" not in error.message
        assert vendor.requests == []


async def test_vendor_that_is_to_have_no_proxy_is_asked_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = write_certificate(tmp_path / "here.pem", host="127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with behind_proxy(monkeypatch, certificate, trusted=certificate) as (_, proxy, vendor):
        adapter = WIRE.make(vendor)
        assert await answered(adapter) == WIRE.plain_events
        await adapter.aclose()
        assert (proxy.heads, len(vendor.requests)) == ([], 1)
