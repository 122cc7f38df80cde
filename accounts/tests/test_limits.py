"""Requests per hour, by plan and organization."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import pytest
from django.core.cache import caches
from pytest_django import Settings

from accounts.counters import Usage, count
from accounts.errors import LimitsUnavailable, RequestsPerHourExceeded
from accounts.limits import RateState, check_rate, check_rate_async
from accounts.tests.principals import principal
from llmchat.lib import redis_clients
from llmchat.lib.threads import in_thread
from llmchat.tests.needs import need
from llmchat.tests.servers import Redis, free_port, missing_programs

NOW = 1_750_000_000.0


@pytest.fixture
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: NOW)


@contextmanager
def redis_cache(settings: Settings, url: str) -> Iterator[None]:
    settings.CACHES = {
        "default": {
            "BACKEND": "llmchat.lib.caches.SharedRedisCache",
            "LOCATION": url,
            "OPTIONS": {"socket_timeout": 2, "socket_connect_timeout": 2},
        }
    }
    yield
    caches.close_all()


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    need(missing_programs())
    with Redis() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
def counters(request: pytest.FixtureRequest, settings: Settings) -> Iterator[str]:
    """Both places where counters may be."""
    if request.param == "memory":
        yield "memory"
        return
    with redis_cache(settings, request.getfixturevalue("redis").url):
        yield "redis"


def refused(asking: object) -> RequestsPerHourExceeded:
    with pytest.raises(RequestsPerHourExceeded) as error:
        check_rate(asking)  # type: ignore[arg-type]
    return error.value


@pytest.mark.usefixtures("time_stands_still")
def test_each_request_takes_one_of_the_hour(counters: str) -> None:
    asking = principal(requests_per_hour=3)
    reset = count("requests_per_hour", value=str(asking.organization_id), rate="3/h", increment=False).reset_seconds

    states = [check_rate(asking) for _ in range(3)]

    assert states == [RateState(limit=3, remaining=left, reset_seconds=reset) for left in (2, 1, 0)]


@pytest.mark.usefixtures("time_stands_still")
def test_request_beyond_the_limit_is_told_plan_limit_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = principal(requests_per_hour=1, organization_id=uuid4())
    state = check_rate(asking)
    assert state is not None
    # Ten minutes before the window's end.
    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: NOW + state.reset_seconds - 600)

    error = refused(asking)

    assert (error.status, error.type, error.code, error.message, error.headers) == (
        429,
        "rate_limit_error",
        "requests_per_hour_exceeded",
        (
            "The plan Free allows 1 request an hour, and your organization has made as many. "
            "Try again in 10 minutes, or ask for a larger plan."
        ),
        {"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "600", "Retry-After": "600"},
    )


def test_next_hour_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = principal(requests_per_hour=1)
    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: NOW)
    assert check_rate(asking) is not None
    wait = int(refused(asking).headers["Retry-After"])

    monkeypatch.setattr("django_ratelimit.core.time.time", lambda: NOW + wait + 1)

    state = check_rate(asking)
    assert state is not None
    assert state.remaining == 0


async def test_an_hour_does_not_come_again_when_the_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch, counters: str
) -> None:
    asking = principal(requests_per_hour=1, organization_id=uuid4())
    await check_rate_async(asking)
    now = time.time()
    for back in (60, 3600, 2 * 86_400):
        monkeypatch.setattr(time, "time", lambda back=back: now - back)
        with pytest.raises(RequestsPerHourExceeded) as refusal:
            await check_rate_async(asking)
        assert 0 <= int(refusal.value.headers["Retry-After"]) <= 3600


def test_organizations_count_apart_and_their_keys_together() -> None:
    ours, theirs = uuid4(), uuid4()
    first_key = principal(organization_id=ours, requests_per_hour=1)
    second_key = principal(organization_id=ours, requests_per_hour=1)
    check_rate(first_key)

    assert refused(second_key).code == "requests_per_hour_exceeded"
    assert check_rate(principal(organization_id=theirs, requests_per_hour=1)) is not None


def test_plan_without_limit_counts_nothing_and_needs_no_counter(settings: Settings) -> None:
    with redis_cache(settings, f"redis://127.0.0.1:{free_port()}"):
        assert check_rate(principal(requests_per_hour=None)) is None


def test_plan_with_limit_zero_admits_nothing() -> None:
    assert refused(principal(requests_per_hour=0)).status == 429


def test_exactly_the_limit_passes_under_concurrency(counters: str) -> None:
    asking = principal(requests_per_hour=100)

    def one(_: int) -> str:
        try:
            check_rate(asking)
        except RequestsPerHourExceeded:
            return "refused"
        return "passed"

    with ThreadPoolExecutor(16) as threads:
        outcomes = Counter(threads.map(one, range(300)))

    assert outcomes == {"passed": 100, "refused": 200}


async def test_exactly_the_limit_passes_on_the_event_loop(counters: str) -> None:
    asking = principal(requests_per_hour=20)

    outcomes = await asyncio.gather(*(check_rate_async(asking) for _ in range(50)), return_exceptions=True)

    assert Counter(type(outcome) for outcome in outcomes) == {RateState: 20, RequestsPerHourExceeded: 30}


async def test_threads_and_the_event_loop_count_together(counters: str) -> None:
    asking = principal(requests_per_hour=4)

    states = [await check_rate_async(asking), await in_thread(check_rate, asking), await check_rate_async(asking)]

    assert [state.remaining for state in states if state] == [3, 2, 1]
    assert len({state.limit for state in states if state}) == 1


async def test_the_event_loop_counts_without_a_thread_and_with_one_command(
    counters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = principal(requests_per_hour=4)
    await check_rate_async(asking)
    handed_over: list[object] = []
    monkeypatch.setattr(ThreadPoolExecutor, "submit", lambda _self, *work, **_: handed_over.append(work))
    before = await commands()

    state = await check_rate_async(asking)

    assert (state and state.remaining, handed_over) == (2, [])
    # The script, and what it does; the other is the question itself.
    assert await commands() - before == (3 if redis_clients.client() else 0)


async def test_a_counter_on_the_event_loop_goes_with_its_window(counters: str) -> None:
    asking = principal(requests_per_hour=4)
    await check_rate_async(asking)
    client = redis_clients.client()
    if client is not None:
        keys = await client.keys("*rl:*")
        assert keys
        assert all([0 < await client.ttl(key) <= 3605 for key in keys])


async def test_counting_on_the_event_loop_goes_on_when_redis_is_back(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    need(missing_programs())
    asking = principal(requests_per_hour=5)
    server = Redis()
    try:
        await in_thread(server.start)
        with redis_cache(settings, server.url):
            await check_rate_async(asking)
            await in_thread(server.stop)
            for _ in range(3):
                with pytest.raises(LimitsUnavailable):
                    await check_rate_async(asking)
            await in_thread(server.start)
            state = await check_rate_async(asking)
    finally:
        await in_thread(server.stop)
    assert state is not None
    assert state.remaining == 4
    assert [record.levelname for record in caplog.records if record.name == "accounts.counters"] == ["ERROR", "WARNING"]


async def commands() -> int:
    client = redis_clients.client()
    return int((await client.info("stats"))["total_commands_processed"]) if client is not None else 0


async def test_plan_without_limit_on_the_event_loop() -> None:
    assert await check_rate_async(principal(requests_per_hour=None)) is None


async def test_counter_that_cannot_be_reached_is_503_and_never_500(settings: Settings) -> None:
    with redis_cache(settings, f"redis://127.0.0.1:{free_port()}"), pytest.raises(LimitsUnavailable) as error:
        await check_rate_async(principal(requests_per_hour=5))

    assert (error.value.status, error.value.code, error.value.headers) == (
        503,
        "limits_unavailable",
        {"Retry-After": "5"},
    )


def test_counting_goes_on_when_redis_is_back(settings: Settings) -> None:
    need(missing_programs())
    asking = principal(requests_per_hour=5)
    with Redis() as server, redis_cache(settings, server.url):
        check_rate(asking)
        server.stop()
        with pytest.raises(LimitsUnavailable):
            check_rate(asking)
        server.start()

        state = check_rate(asking)

    assert state is not None
    assert state.remaining == 4


def test_looking_does_not_count(counters: str) -> None:
    assert [
        count("a", value="b", rate="9/h", increment=increment).count for increment in (False, True, False, True)
    ] == [0, 1, 1, 2]


def test_counter_that_vanishes_between_two_steps_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Redis does when a counter expires just after it was found."""
    usages = iter(
        [
            {"count": 0, "limit": 0, "should_limit": True, "time_left": -1},
            {"count": 1, "limit": 9, "should_limit": False, "time_left": 3600},
        ]
    )
    monkeypatch.setattr("accounts.counters.get_usage", lambda *_, **__: next(usages))

    assert count("a", value="b", rate="9/h") == Usage(count=1, limit=9, reset_seconds=3600)
