"""Whose address a request carries, with and without proxies of ours before it."""

from __future__ import annotations

import pytest
from django.test import RequestFactory
from pytest_django import Settings

from accounts.addresses import client_address, network_of


def address_of(remote: str, forwarded: str | None = None) -> str:
    request = RequestFactory().get("/", headers={"X-Forwarded-For": forwarded} if forwarded is not None else None)
    request.META["REMOTE_ADDR"] = remote
    return str(client_address(request))


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (0, None, "10.0.0.1"),
        (0, "203.0.113.7", "10.0.0.1"),
        (1, "203.0.113.7", "203.0.113.7"),
        (1, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        (2, "198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        (2, "203.0.113.7", "10.0.0.1"),
        (1, None, "10.0.0.1"),
        (1, "", "10.0.0.1"),
        (1, "unknown", "10.0.0.1"),
        (1, "203.0.113.7:51234", "203.0.113.7"),
        (1, "[2001:db8::7]:51234", "2001:db8::7"),
        (1, "2001:db8::7", "2001:db8::7"),
        (1, "fe80::7%eth0", "fe80::7"),
        (1, "::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
def test_client_is_the_address_that_the_outermost_trusted_proxy_saw(
    settings: Settings, proxies: int, forwarded: str | None, expected: str
) -> None:
    settings.TRUSTED_PROXIES = proxies

    assert address_of("10.0.0.1", forwarded) == expected


def test_client_behind_a_unix_socket_is_not_known() -> None:
    assert address_of("") == "None"


@pytest.mark.parametrize(
    ("remote", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:0:7:1:2:3:4", "2001:db8:0:7::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", "unknown"),
    ],
)
def test_what_counts_as_one_address(remote: str, network: str) -> None:
    request = RequestFactory().get("/")
    request.META["REMOTE_ADDR"] = remote

    assert network_of(client_address(request)) == network
