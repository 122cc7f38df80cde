"""The listening socket, and what connections get from it."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from llmchat.serve.listener import listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_accepted_connections_send_small_writes_at_once(host: str) -> None:
    try:
        listener = listen(host, 0)
    except Exception:
        if host == "::1":
            pytest.skip("this machine has no IPv6")
        raise
    with closing(listener), closing(socket.create_connection(listener.getsockname()[:2])):
        accepted, _ = listener.accept()
        with closing(accepted):
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
