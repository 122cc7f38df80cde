"""Signed messages to other people's web servers, without letting them, or whoever names them, into our own network.

The name is looked up once, every address it has is judged, and the connection goes to an address that was judged: a
name that answers differently the second time gains nothing. Redirects are not followed.

A receiver proves a message with the secret: `X-Llmchat-Signature` is "sha256=" and the HMAC-SHA256, in hexadecimal, of
the timestamp header, a full stop and the body; messages with an old `X-Llmchat-Timestamp` are replays.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Bytes of an answer that are read; nobody needs more.
_ANSWER_BYTES: Final = 1024
#: IPv6 that carries an IPv4 address behind it (RFC 6052); Python unwraps the other kinds.
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class WebhookError(Exception):
    """It did not arrive. `is_permanent`: trying again would not help."""

    def __init__(self, message: str, *, is_permanent: bool) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of `X-Llmchat-Signature`."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def parts_of(url: str) -> SplitResult:
    """The parts of an address that a message can be sent to. Raises WebhookError, with the remedy."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise WebhookError("The webhook is no web address. Begin it with https://.", is_permanent=True)
    if parts.username or parts.password:
        raise WebhookError(
            "The webhook's address holds a user name or password. Take it out: messages are signed.", is_permanent=True
        )
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise WebhookError(
            "The webhook's address has blanks or letters beyond ASCII. Encode them as %20 and so on.", is_permanent=True
        )
    return parts


def post(url: str, body: bytes, *, secret: str, headers: Mapping[str, str], seconds: float, allow_private: bool) -> int:
    """Sends JSON and returns the answer's status, which is one of success. Raises WebhookError.

    seconds: for all of it, but for looking up the name. allow_private: whether addresses of this machine and of private
    networks may be called.
    """
    parts = parts_of(url)
    timestamp = str(int(time.time()))
    sent = {
        "Content-Type": "application/json",
        "User-Agent": "llmchat",
        "X-Llmchat-Timestamp": timestamp,
        "X-Llmchat-Signature": signature(secret, timestamp, body),
        **headers,
    }
    connection = _connection(parts, _checked(parts, allow_private=allow_private), seconds)
    # A receiver that sends a byte now and then would never run into the socket's own limit.
    alarm = threading.Timer(seconds, _cut, (connection,))
    alarm.daemon = True
    alarm.start()
    try:
        connection.request("POST", f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", body, sent)
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise WebhookError(
            f"{parts.hostname} could not be reached: {_reason(error, seconds)}.", is_permanent=False
        ) from error
    finally:
        alarm.cancel()
        connection.close()
    return _judged(answer.status, parts.hostname or "")


def _judged(status: int, host: str) -> int:
    if 200 <= status < 300:
        return status
    if 300 <= status < 400:
        raise WebhookError(
            f"{host} answered {status}, a redirect, which is not followed. Set the address it leads to.",
            is_permanent=True,
        )
    # Too early, too many, a time-out: it says itself that later is better.
    is_permanent = 400 <= status < 500 and status not in {408, 425, 429}
    raise WebhookError(f"{host} answered {status}.", is_permanent=is_permanent)


def _checked(parts: SplitResult, *, allow_private: bool) -> list[str]:
    """The addresses of the name, each of them one that may be called."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise WebhookError(f"The name {host} is not known.", is_permanent=False) from error
    if not allow_private and not all(is_public(ipaddress.ip_address(address)) for address in found):
        raise WebhookError(
            f"{host} is an address of this machine or of a private network, which is not called. An operator may allow "
            "it with WEBHOOK_PRIVATE_ADDRESSES=true.",
            is_permanent=True,
        )
    return list(dict.fromkeys(found))


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the internet, whatever it is wrapped in."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _connection(parts: SplitResult, addresses: list[str], seconds: float) -> http.client.HTTPConnection:
    """A connection that says the name and goes to the checked addresses."""
    host = parts.hostname or ""
    if parts.scheme == "https":
        secure = http.client.HTTPSConnection(host, parts.port, timeout=seconds, context=ssl.create_default_context())
        secure._create_connection = _to(addresses)  # type: ignore[attr-defined]  # noqa: SLF001
        return secure
    plain = http.client.HTTPConnection(host, parts.port, timeout=seconds)
    plain._create_connection = _to(addresses)  # type: ignore[attr-defined]  # noqa: SLF001
    return plain


def _to(addresses: list[str]) -> object:
    """In the place of `socket.create_connection`, which would look the name up again."""

    def connect(address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        trouble: OSError | None = None
        for checked in addresses:
            try:
                return socket.create_connection((checked, address[1]), timeout)
            except OSError as error:
                trouble = error
        raise trouble or OSError("no address")

    return connect


def _cut(connection: http.client.HTTPConnection) -> None:
    with suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception, seconds: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {seconds:g} seconds"
    return " ".join(str(error).split()) or type(error).__name__
