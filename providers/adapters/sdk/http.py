"""The HTTP client under all vendor libraries: what happens on the way becomes an error of our tree, within our limits.

The libraries take any httpx2 client. Ours classifies refusals itself (reading only the head of their bodies), refuses
what is no event stream, keeps our time limits whatever a library would set, and follows no redirect, because that
would carry credentials elsewhere. It knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2

from providers.adapters import boundary, classify
from providers.adapters.base import ProviderConfig
from providers.errors import ConnectionFailed, FirstByteTimeout, MalformedAnswer, Stalled, TruncatedAnswer

#: One for all clients, made at import: reading the certificate authorities takes a megabyte, and blocks.
TLS = httpx2.create_ssl_context()


class GuardedClient(httpx2.AsyncClient):
    """One provider's connections on one event loop."""

    def __init__(self, config: ProviderConfig) -> None:
        limits = config.timeouts
        super().__init__(
            verify=TLS,
            follow_redirects=False,
            # How many calls may run at once is decided before a call comes here
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30.0),
        )
        self._config = config
        self._limits = httpx2.Timeout(
            connect=limits.connect,
            read=max(limits.first_byte, limits.first_token, limits.between_chunks),
            write=limits.first_byte,
            pool=limits.connect,
        ).as_dict()

    async def send(self, request: httpx2.Request, *, stream: bool = False, **kwargs: Any) -> httpx2.Response:
        """Send `request`; with `stream`, the answer is an event stream that the caller closes.

        Raises ConnectionFailed, FirstByteTimeout, NotConfigured, MalformedAnswer, or what the refusal means.
        """
        request.extensions = {**request.extensions, "timeout": self._limits}
        response = await self._until_headers(request, **kwargs)
        try:
            if not response.is_success:
                raise classify.refusal(response.status_code, headers=response.headers, body=await _head(response))
            if stream:
                await _require_event_stream(response)
            guarded = self._guard(response, bounded=not stream)
            if not stream:
                await guarded.aread()
        except BaseException:
            await response.aclose()
            raise
        return guarded

    def clean(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What the library gets to read of a body's `chunks`; for libraries that break on an unreadable event."""
        return chunks

    async def _until_headers(self, request: httpx2.Request, **kwargs: Any) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._config.timeouts.first_byte):
                return await super().send(request, stream=True, **kwargs)
        except httpx2.ConnectTimeout as error:
            raise ConnectionFailed("no connection within the time limit.") from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise FirstByteTimeout("no answer within the time limit.") from error
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol):
            raise boundary.not_sendable(self._config) from None
        except httpx2.TransportError as error:
            raise ConnectionFailed(
                f"the connection failed: {str(error).rstrip('.') or type(error).__name__}."
            ) from error

    def _guard(self, response: httpx2.Response, *, bounded: bool) -> httpx2.Response:
        decoded = {"content-encoding", "content-length", "transfer-encoding"}
        return httpx2.Response(
            response.status_code,
            headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() not in decoded],
            stream=_Body(response, chunks=self.clean(_chunks(response, bounded=bounded))),
            request=response.request,
            extensions=response.extensions,
        )


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, *, chunks: AsyncIterator[bytes]) -> None:
        self._response = response
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def aclose(self) -> None:
        await self._response.aclose()


async def _chunks(response: httpx2.Response, *, bounded: bool) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if bounded and size > boundary.MAX_WHOLE_BYTES:
                raise boundary.too_large()
            yield chunk
    except httpx2.TimeoutException as error:
        raise Stalled("silence in mid-answer.") from error
    except httpx2.DecodingError as error:
        raise MalformedAnswer("the answer's compression is broken.") from error
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise TruncatedAnswer("the connection broke in mid-answer.") from error


async def _require_event_stream(response: httpx2.Response) -> None:
    kind = boundary.kind_of(response.headers.get("content-type", ""))
    if kind != "text/event-stream":
        raise boundary.not_an_answer(kind, head=await _head(response) if kind == "application/json" else b"")


async def _head(response: httpx2.Response) -> bytes:
    """The first bytes of a body that is only wanted for its explanation; what cannot be read is not waited for."""
    head = bytearray()
    with suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError):
        async with asyncio.timeout(boundary.EXPLANATION):
            async for chunk in response.aiter_bytes():
                head += chunk
                if len(head) > boundary.MAX_REFUSAL_BYTES:
                    break
    await response.aclose()
    return bytes(head[: boundary.MAX_REFUSAL_BYTES])
