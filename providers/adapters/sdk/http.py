"""The HTTP client under all vendor libraries: what happens on the way becomes an error of our tree, within our limits.

The libraries take any httpx2 client. Ours classifies refusals itself (reading only the head of their bodies), refuses
what is no event stream, keeps our time limits whatever a library would set, and follows no redirect, because that
would carry credentials elsewhere. It knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx2

from providers.adapters import classify
from providers.adapters.base import ProviderConfig
from providers.errors import (
    AnswerTooLarge,
    ConnectionFailed,
    FirstByteTimeout,
    MalformedAnswer,
    NotConfigured,
    ProviderError,
    Stalled,
    TruncatedAnswer,
)

#: An explanation is short; a refusal's error page need not be.
MAX_REFUSAL_BYTES = 64 * 1024
#: A list of models, at most.
MAX_WHOLE_BYTES = 20_000_000
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
            guarded = self._guard(response, max_bytes=None if stream else MAX_WHOLE_BYTES)
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
            # The library's message repeats the header or address at fault, which may hold a credential
            name = self._config.setting or self._config.slug.upper()
            raise NotConfigured(f"{name}_BASE_URL, {name}_API_KEY or its headers cannot be sent over HTTP.") from None
        except httpx2.TransportError as error:
            raise ConnectionFailed(
                f"the connection failed: {str(error).rstrip('.') or type(error).__name__}."
            ) from error

    def _guard(self, response: httpx2.Response, *, max_bytes: int | None) -> httpx2.Response:
        decoded = {"content-encoding", "content-length", "transfer-encoding"}
        return httpx2.Response(
            response.status_code,
            headers=[(name, value) for name, value in response.headers.multi_items() if name.lower() not in decoded],
            stream=_Body(response, chunks=self.clean(_chunks(response, max_bytes=max_bytes))),
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


@contextmanager
def only_our_errors(config: ProviderConfig) -> Iterator[None]:
    """Around every use of a library: what comes out is an error of our tree that names the provider and no secret."""
    try:
        yield
    except Exception as error:
        ours = _ours_behind(error)
        if ours is None:
            raise
        ours.provider = config.slug
        ours.message = f"{config.slug}: {classify.scrub(ours.message, secrets=_secrets(config))}"
        ours.args = (ours.message,)
        if ours is error:
            raise
        raise ours from None


def _ours_behind(error: BaseException) -> ProviderError | None:
    """The error of ours that a library may have wrapped in one of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ProviderError):
        cause = cause.__cause__
    return cause


def _secrets(config: ProviderConfig) -> list[str]:
    """The key, and those of the provider's headers whose name says that they are secret."""
    telling = ("auth", "key", "token", "secret", "cookie")
    headers = (value for name, value in config.headers.items() if any(word in name.lower() for word in telling))
    return [value for value in (config.api_key, *headers) if value]


async def _chunks(response: httpx2.Response, *, max_bytes: int | None) -> AsyncIterator[bytes]:
    size = 0
    try:
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if max_bytes is not None and size > max_bytes:
                raise AnswerTooLarge(f"the answer is larger than {max_bytes} bytes.")
            yield chunk
    except httpx2.TimeoutException as error:
        raise Stalled("silence in mid-answer.") from error
    except httpx2.DecodingError as error:
        raise MalformedAnswer("the answer's compression is broken.") from error
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise TruncatedAnswer("the connection broke in mid-answer.") from error


async def _require_event_stream(response: httpx2.Response) -> None:
    """Raise for a success that is no event stream: an error object sent as a 200, a captive portal's page."""
    content_type = response.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return
    if kind == "application/json":
        error = classify.hidden_refusal(await _head(response))
        if error is not None:
            raise error
    raise MalformedAnswer(f"it answered with {kind or 'no content type'} instead of an event stream.")


async def _head(response: httpx2.Response) -> bytes:
    """The first bytes of a body that is only wanted for its explanation; what cannot be read is not waited for."""
    head = bytearray()
    with suppress(TimeoutError, httpx2.HTTPError, httpx2.StreamError):
        async with asyncio.timeout(2.0):
            async for chunk in response.aiter_bytes():
                head += chunk
                if len(head) > MAX_REFUSAL_BYTES:
                    break
    await response.aclose()
    return bytes(head[:MAX_REFUSAL_BYTES])
