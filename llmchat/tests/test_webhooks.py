"""Webhooks: signed, never into our own network by whatever name, never for longer than they are given."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Any

import pytest

from llmchat.lib import webhooks
from llmchat.lib.webhooks import WebhookError

SENT: dict[str, Any] = {"secret": "s" * 16, "headers": {}, "seconds": 5.0, "allow_private": False}


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "2002:a00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_addresses_of_our_own_are_no_public_ones(address: str) -> None:
    assert not webhooks.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert webhooks.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "0"])
def test_this_machine_is_not_called_however_it_is_written(host: str) -> None:
    with pytest.raises(WebhookError, match=r"is not called|is not known") as refused:
        webhooks.post(f"http://{host}:1/", b"{}", **SENT)
    assert refused.value.is_permanent or "not known" in str(refused.value)


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "file:///etc/passwd", "gopher://example.com/", "https://", "http://a:99999/", "http://[::1"],
)
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(WebhookError, match="no web address"):
        webhooks.parts_of(url)


def test_line_breaks_in_an_address_are_refused() -> None:
    with pytest.raises(WebhookError):
        webhooks.parts_of("http://example.com/\r\nX-Other: 1")


def test_name_that_has_one_private_address_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(WebhookError, match="private network"):
        webhooks.post("http://example.com/", b"{}", **SENT)


def test_connection_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers with another address the second time."""
    answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 80))]]
    called: list[Any] = []

    def connect(address: Any, *_: Any) -> Any:
        called.append(address)
        raise ConnectionRefusedError("closed")

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers.pop())
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(WebhookError, match="could not be reached: closed"):
        webhooks.post("http://example.com/", b"{}", **SENT)
    assert called == [("93.184.216.34", 80)]


def test_receiver_that_never_ends_is_left() -> None:
    """It sends a byte now and then, and so never runs into the limit of a single read."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip() -> None:
        client, _ = listener.accept()
        with client:
            try:
                while not done.wait(0.05):
                    client.sendall(b"H")
            except OSError:
                pass

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(WebhookError) as left:
            webhooks.post(url, b"{}", **{**SENT, "seconds": 0.5, "allow_private": True})
        assert not left.value.is_permanent
    finally:
        done.set()
        thread.join()
        listener.close()
