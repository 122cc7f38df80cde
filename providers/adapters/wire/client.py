"""One provider's calls over the shared connections: what happens on the way becomes an error of our tree, within our
limits.

Refusals are classified from the head of their bodies, what is no answer is refused, and no redirect is followed,
because that would carry credentials elsewhere. It knows no dialect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from aiohttp.http_exceptions import ContentEncodingError
from multidict import CIMultiDict
from yarl import URL

from providers.adapters import boundary, classify
from providers.adapters.base import ProviderConfig
from providers.adapters.patience import within
from providers.adapters.wire.pool import SMALL, Lease
from providers.adapters.wire.post import Body, Post
from providers.errors import (
    ConnectionFailed,
    FirstByteTimeout,
    InvalidRequest,
    MalformedAnswer,
    NotConfigured,
    ProviderError,
    Stalled,
    TruncatedAnswer,
)
from providers.values import Json

_EVENT_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"
#: Addresses that are remembered: paths name models, and callers name those.
_MOST_PATHS: Final = 1000


class Client:
    """One provider's conversations on one event loop. `headers` are sent with every call; the provider's own go over
    them. `base_url` is the vendor's, for providers that name none."""

    def __init__(self, config: ProviderConfig, *, base_url: str, headers: Mapping[str, str]) -> None:
        self._config = config
        try:
            self._base = str(URL(config.base_url or base_url)).rstrip("/")
        except ValueError:
            raise boundary.not_sendable(config) from None
        limits = config.timeouts
        self._first_byte = limits.first_byte
        self._silence = max(limits.first_token, limits.between_chunks)
        self._connect = limits.connect
        self._timeout = aiohttp.ClientTimeout(connect=limits.connect)
        # An answer is short and its pieces are shorter: compressing costs both sides more than it saves
        self._headers = CIMultiDict({"User-Agent": "llmchat", "Accept": "*/*", "Accept-Encoding": "identity"})
        self._headers.update(headers)
        self._headers.update(config.headers)
        self._urls: dict[str, URL] = {}
        self._posts: dict[str, Post | None] = {}
        self._proxy = _proxy(self._url(""))
        self._lease = Lease(connections=config.connections)

    async def post(self, path: str, body: Json, *, headers: Mapping[str, str | None] | None = None) -> Answer:
        """Ask for an answer, whole or in pieces; the caller closes it. A header that is None is not sent.

        Raises ConnectionFailed, FirstByteTimeout, NotConfigured, MalformedAnswer, InvalidRequest for what no JSON can
        say, or what the refusal means.
        """
        response = await self._until_headers("POST", path, data=_encoded(body), headers=headers)
        try:
            if not 200 <= response.status < 300:
                raise await _refusal(response)
            kind = boundary.kind_of(response.headers.get("Content-Type", ""))
            if kind not in {_EVENT_STREAM, _JSON}:
                raise boundary.not_an_answer(kind, head=b"")
            return Answer(response, is_whole=kind == _JSON, silence=self._silence)
        except BaseException:
            response.close()
            raise

    async def get(self, path: str) -> None:
        """Ask for something whose only use is that it comes. Raises as `post`, and AnswerTooLarge."""
        response = await self._until_headers("GET", path)
        try:
            if not 200 <= response.status < 300:
                raise await _refusal(response)
            with closing(Answer(response, is_whole=True, silence=self._silence)) as answer:
                await answer.whole()
        finally:
            response.close()

    async def aclose(self) -> None:
        await self._lease.release()

    async def _until_headers(
        self, method: str, path: str, *, data: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> aiohttp.ClientResponse:
        try:
            if data is not None and not headers and len(data) <= SMALL and (post := self._post(path)) is not None:
                return await within(self._first_byte, post.send(data))
            return await within(
                self._first_byte,
                self._lease.session.request(
                    method,
                    self._url(path),
                    data=None if data is None else Body(data),
                    headers=self._with(headers) if headers else self._headers,
                    timeout=self._timeout,
                    allow_redirects=False,
                    proxy=self._proxy,
                ),
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectionFailed("no connection within the time limit.") from error
        except TimeoutError as error:
            raise FirstByteTimeout("no answer within the time limit.") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise boundary.not_sendable(self._config) from None
        except aiohttp.ClientResponseError as error:  # a proxy's refusal, or what is no HTTP
            raise ConnectionFailed(f"the connection failed: {error.message.rstrip('.')}.") from error
        except (aiohttp.ClientError, OSError) as error:
            told = str(error).rstrip(".") or type(error).__name__
            raise ConnectionFailed(f"the connection failed: {told}.") from error
        except ValueError:  # a header with a line end in it
            raise boundary.not_sendable(self._config) from None

    def _with(self, headers: Mapping[str, str | None]) -> CIMultiDict[str]:
        sent = self._headers.copy()
        for name, value in headers.items():
            sent.popall(name, None)
            if value is not None:
                sent[name] = value
        return sent

    def _post(self, path: str) -> Post | None:
        if self._proxy is not None:
            return None
        if path not in self._posts:
            if len(self._posts) >= _MOST_PATHS:
                self._posts.clear()
            self._posts[path] = Post.of(
                self._lease.session, self._url(path), headers=self._headers, connect=self._connect
            )
        return self._posts[path]

    def _url(self, path: str) -> URL:
        found = self._urls.get(path)
        if found is None:
            if len(self._urls) >= _MOST_PATHS:
                self._urls.clear()
            found = self._urls[path] = URL(f"{self._base}{path}", encoded=True)
        return found


class Answer:
    """A success whose body is still to be read: in one piece when `is_whole`, else chunk by chunk.

    `silence`: seconds without a byte after which it counts as stalled. One timer for the whole answer looks at the
    clock when it is due; aiohttp's own would be made and cancelled for each chunk.
    """

    def __init__(self, response: aiohttp.ClientResponse, *, is_whole: bool, silence: float) -> None:
        self.is_whole = is_whole
        self._response = response
        self._content = response.content
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self._is_stalled = False
        self._timer = self._loop.call_later(silence, self._look)

    async def chunk(self) -> bytes | None:
        """What has come since the last time, or comes next; None at the end. Raises Stalled, TruncatedAnswer,
        MalformedAnswer."""
        self._waiting_since = self._loop.time()
        try:
            return await self._content.readany() or None
        except aiohttp.ClientPayloadError as error:
            if isinstance(error.__cause__, ContentEncodingError):
                raise MalformedAnswer("the answer's compression is broken.") from error
            raise TruncatedAnswer("the connection broke in mid-answer.") from error
        except (aiohttp.ClientError, OSError) as error:
            if self._is_stalled:
                raise Stalled("silence in mid-answer.") from error
            raise TruncatedAnswer("the connection broke in mid-answer.") from error
        finally:
            self._waiting_since = None

    async def whole(self) -> bytes:
        """The whole body. Raises as `chunk`, and AnswerTooLarge."""
        pieces: list[bytes] = []
        size = 0
        while (piece := await self.chunk()) is not None:
            size += len(piece)
            if size > boundary.MAX_WHOLE_BYTES:
                raise boundary.too_large()
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the connection: for the next call when the answer was read to its end, else by closing it."""
        self._timer.cancel()
        self._response.close()

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self._waiting_since is None else self._waiting_since
        if now - since < self._silence * 0.99:  # timers may come a little early
            self._timer = self._loop.call_at(since + self._silence, self._look)
            return
        self._is_stalled = True
        self._response.close()


def _encoded(body: Json) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a number beyond 64 bits, half a surrogate pair: the vendor may judge them
        try:
            return json.dumps(body).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the request cannot be said in JSON: {error}.") from error


async def _refusal(response: aiohttp.ClientResponse) -> ProviderError:
    return classify.refusal(response.status, headers=response.headers, body=await _head(response))


async def _head(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of a body that is only wanted for its explanation; what cannot be read is not waited for."""
    head = bytearray()
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(boundary.EXPLANATION):
            while chunk := await response.content.readany():
                head += chunk
                if len(head) > boundary.MAX_REFUSAL_BYTES:
                    break
    return bytes(head[: boundary.MAX_REFUSAL_BYTES])


def _proxy(url: URL) -> str | None:
    """The proxy that the environment names for `url` (HTTPS_PROXY, NO_PROXY and kin)."""
    if not url.host or proxy_bypass(url.host):
        return None
    proxies: dict[str, Any] = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if found is None:
        return None
    address = found if "://" in found else f"http://{found}"
    if not address.startswith(("http://", "https://")):
        kind = address.partition("://")[0]
        raise NotConfigured(
            f"the proxy for {url.host} is of the kind {kind}. Set {url.scheme.upper()}_PROXY to one that speaks HTTP, "
            "or name the host in NO_PROXY."
        )
    return str(address)
