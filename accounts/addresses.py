"""Which address a request comes from, and what counts as one address.

Only as many entries of X-Forwarded-For are believed as there are proxies of ours (`TRUSTED_PROXIES`): the rest of that
header is whatever the client wrote.
"""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(request: HttpRequest) -> IPAddress | None:
    """The client's address; None when it is not known, as behind a Unix socket without a proxy's header.

    Each proxy appends the address that it was called from, so with N trusted proxies the client is the N-th from the
    right. A header that is too short or not readable is not believed at all.
    """
    remote = _parse(request.META.get("REMOTE_ADDR", ""))
    trusted: int = settings.TRUSTED_PROXIES
    if not trusted:
        return remote
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    return (_parse(forwarded[-trusted]) if len(forwarded) >= trusted else None) or remote


def network_of(address: IPAddress | None) -> str:
    """What limits by address count together: one IPv4 address, or the /64 that an IPv6 subscriber is given."""
    match address:
        case ipaddress.IPv6Address():
            return str(ipaddress.ip_network((address, 64), strict=False))
        case None:
            return "unknown"
        case _:
            return str(address)


def _parse(text: str) -> IPAddress | None:
    """Reads an address with or without a port, IPv6 in brackets then. An IPv4 address written as IPv6 is IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
