"""The listening socket. The parent makes it and every web worker inherits it: connections that arrive while a worker is
replaced wait in its queue instead of being refused."""

from __future__ import annotations

import errno
import socket

#: Connections that may wait to be accepted.
BACKLOG = 2048


class CannotListen(Exception):
    """The message names what is wrong and the remedy."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host`, a name or an address; port 0 takes a free one. Raises `CannotListen`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except socket.gaierror:
        raise CannotListen(f"HOST={host} is not a name or address of this machine. Set it to one.") from None
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                problem = f"PORT={port} is in use on {host}. Stop what uses it, or choose another with --port."
            case errno.EACCES:
                problem = f"PORT={port} needs rights that this user does not have. Choose one above 1023 with --port."
            case errno.EADDRNOTAVAIL:
                problem = f"HOST={host} is not an address of this machine. Set it to one, such as 127.0.0.1."
            case _:
                problem = f"HOST={host} and PORT={port} cannot be used: {error.strerror}."
        raise CannotListen(problem) from None
    # Accepted connections inherit it. Without it small writes wait up to 40 ms for the other side's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of(listener: socket.socket) -> str:
    """`host:port`, as it stands in a URL."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
