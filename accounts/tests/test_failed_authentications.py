"""Whoever shows wrong keys again and again is refused by address, and nobody else is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.cache import cache
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.counters import count
from accounts.key_cache import KEYS, MAX_REFUSED
from accounts.tests.asking import Ask, ask_sync, code
from accounts.tests.fixtures import Person
from llmchat.tests.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True)

HERE, ELSEWHERE = "203.0.113.7", "203.0.113.8"


@pytest.fixture
def wrong_keys() -> Iterator[str]:
    return (f"llmc_{number:x>43}" for number in range(1_000_000))


@pytest.fixture(autouse=True)
def three_a_minute(settings: Settings) -> None:
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = 3


@pytest.fixture(autouse=True)
def within_one_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows begin at the turn of some minute, which would now and then fall into a test."""
    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: 1_750_000_000.0)


def test_address_with_too_many_wrong_keys_is_refused(ask: Ask, wrong_keys: Iterator[str]) -> None:
    responses = [ask(HERE, x_api_key=next(wrong_keys)) for _ in range(5)]

    assert [code(response) for response in responses] == [
        *[(401, "invalid_api_key")] * 3,
        *[(429, "too_many_failed_authentications")] * 2,
    ]
    assert [1 <= int(response["Retry-After"]) <= 60 for response in responses[3:]] == [True, True]


def test_the_same_wrong_key_again_counts_again(ask: Ask, wrong_keys: Iterator[str]) -> None:
    wrong = next(wrong_keys)

    assert [ask(HERE, x_api_key=wrong).status_code for _ in range(4)] == [401, 401, 401, 429]


def test_what_cannot_be_a_key_counts(ask: Ask) -> None:
    assert [ask(HERE, x_api_key="password123").status_code for _ in range(4)] == [401, 401, 401, 429]


def test_other_addresses_are_not_refused(ask: Ask, wrong_keys: Iterator[str]) -> None:
    for _ in range(4):
        ask(HERE, x_api_key=next(wrong_keys))

    assert code(ask(ELSEWHERE, x_api_key=next(wrong_keys))) == (401, "invalid_api_key")


def test_known_key_still_works_from_a_refused_address(ask: Ask, owner: Person, wrong_keys: Iterator[str]) -> None:
    assert ask(ELSEWHERE, x_api_key=owner.raw).status_code == 200
    for _ in range(4):
        ask(HERE, x_api_key=next(wrong_keys))

    assert ask(HERE, x_api_key=owner.raw).status_code == 200


def test_refused_address_costs_no_query(
    owner: Person, wrong_keys: Iterator[str], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(3):
        ask_sync(HERE, x_api_key=next(wrong_keys))

    with django_assert_num_queries(0):
        assert ask_sync(HERE, x_api_key=next(wrong_keys)).status_code == 429
        assert ask_sync(HERE, x_api_key=owner.raw).status_code == 429


def test_requests_without_key_and_good_keys_do_not_count(ask: Ask, owner: Person, wrong_keys: Iterator[str]) -> None:
    for _ in range(5):
        ask(HERE)
        ask(HERE, x_api_key=owner.raw)

    assert code(ask(HERE, x_api_key=next(wrong_keys))) == (401, "invalid_api_key")


def test_neighbours_in_one_ipv6_network_count_together(ask: Ask, wrong_keys: Iterator[str]) -> None:
    addresses = [f"2001:db8:0:7::{host}" for host in range(4)]

    assert [ask(address, x_api_key=next(wrong_keys)).status_code for address in addresses] == [401, 401, 401, 429]
    assert ask("2001:db8:0:8::1", x_api_key=next(wrong_keys)).status_code == 401


def test_address_behind_a_trusted_proxy_counts_on_its_own(
    ask: Ask, wrong_keys: Iterator[str], settings: Settings
) -> None:
    settings.TRUSTED_PROXIES = 1
    proxy = "10.0.0.1"
    for _ in range(4):
        ask(proxy, x_api_key=next(wrong_keys), x_forwarded_for=HERE)

    assert ask(proxy, x_api_key=next(wrong_keys), x_forwarded_for=HERE).status_code == 429
    assert ask(proxy, x_api_key=next(wrong_keys), x_forwarded_for=f"{HERE}, {ELSEWHERE}").status_code == 401


def test_address_cannot_be_made_up_without_a_trusted_proxy(ask: Ask, wrong_keys: Iterator[str]) -> None:
    statuses = [
        ask(HERE, x_api_key=next(wrong_keys), x_forwarded_for=f"198.51.100.{number}").status_code for number in range(4)
    ]

    assert statuses == [401, 401, 401, 429]


def test_thousands_of_wrong_keys_leave_little_behind(wrong_keys: Iterator[str], settings: Settings) -> None:
    looked_up = MAX_REFUSED + 200
    settings.FAILED_AUTHENTICATIONS_PER_MINUTE = looked_up

    statuses = [ask_sync(HERE, x_api_key=next(wrong_keys)).status_code for _ in range(looked_up + 2_000)]

    assert (statuses.count(401), statuses.count(429)) == (looked_up, 2_000)
    assert len(KEYS) == MAX_REFUSED
    assert count("failed_authentications", value=HERE, rate=f"{looked_up}/m", increment=False).count == looked_up


def test_good_key_is_let_in_although_failures_cannot_be_counted(
    ask: Ask, owner: Person, wrong_keys: Iterator[str], settings: Settings
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "llmchat.lib.caches.SharedRedisCache",
            "LOCATION": f"redis://127.0.0.1:{free_port()}",
        }
    }

    assert ask(HERE, x_api_key=owner.raw).status_code == 200
    assert code(ask(HERE, x_api_key=next(wrong_keys))) == (401, "invalid_api_key")
    cache.close()
