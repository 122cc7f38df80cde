"""How long this process believes what it once found out about a key, and what it does while the database fails."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import AsyncRequestFactory
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from accounts import authentication, key_cache, services
from accounts.errors import InvalidAPIKey
from accounts.key_cache import KEYS, Finding, KeyCache
from accounts.models import APIKey, Organization
from accounts.principals import PlanLimits, Principal
from accounts.tests.asking import Ask, AsyncView, ask_sync, body, code
from accounts.tests.conftest import BrokenDatabase, Clock
from accounts.tests.fixtures import Person
from llmchat.lib import threads
from llmchat.lib.threads import in_thread

WRONG = "llmc_" + "x" * 43

whole_stack = pytest.mark.django_db(transaction=True)


def good(digest: str) -> Finding:
    principal = Principal(
        organization_id=uuid4(),
        organization_name="Acme",
        api_key_id=uuid4(),
        key_name="test",
        scopes=frozenset(),
        plan=PlanLimits(slug="free", name="Free"),
    )
    return Finding(digest=digest, principal=principal)


@whole_stack
def test_what_another_process_changes_is_noticed_when_the_life_is_over(ask: Ask, owner: Person, clock: Clock) -> None:
    assert ask(x_api_key=owner.raw).status_code == 200
    APIKey.objects.update(revoked_at=owner.key.created_at)

    clock.now += settings.API_KEY_CACHE_SECONDS * 0.49
    assert ask(x_api_key=owner.raw).status_code == 200

    clock.now += settings.API_KEY_CACHE_SECONDS
    assert code(ask(x_api_key=owner.raw)) == (401, "api_key_revoked")


@whole_stack
def test_life_is_a_setting(ask: Ask, owner: Person, clock: Clock, settings: Settings) -> None:
    settings.API_KEY_CACHE_SECONDS = 100.0
    assert ask(x_api_key=owner.raw).status_code == 200
    APIKey.objects.update(revoked_at=owner.key.created_at)

    clock.now += 49
    assert ask(x_api_key=owner.raw).status_code == 200
    clock.now += 52
    assert code(ask(x_api_key=owner.raw)) == (401, "api_key_revoked")


@whole_stack
def test_plan_of_the_organization_follows_when_it_is_changed_here(ask: Ask, owner: Person) -> None:
    assert body(ask(x_api_key=owner.raw))["plan"] == "unlimited"

    Organization.objects.update(plan_id="premium")
    services.forget_cached_keys()

    assert body(ask(x_api_key=owner.raw))["plan"] == "premium"


@whole_stack
def test_known_key_stays_good_for_an_hour_while_the_database_fails(
    ask: Ask, owner: Person, clock: Clock, broken_database: BrokenDatabase
) -> None:
    assert ask(x_api_key=owner.raw).status_code == 200
    with broken_database():
        clock.now += settings.API_KEY_CACHE_SECONDS + 1
        assert ask(x_api_key=owner.raw).status_code == 200
        clock.now += 3500
        assert ask(x_api_key=owner.raw).status_code == 200
        clock.now += 100
        assert code(ask(x_api_key=owner.raw)) == (503, "database_unavailable")


@whole_stack
def test_unknown_key_gets_503_and_never_401_while_the_database_fails(
    ask: Ask, owner: Person, clock: Clock, broken_database: BrokenDatabase
) -> None:
    with broken_database() as tries:
        first = ask(x_api_key=owner.raw)
        second = ask(x_api_key=owner.raw)
        assert len(tries) == 1, "the second one did not wait for a database that has just failed"

    assert [code(first), code(second)] == [(503, "database_unavailable")] * 2
    assert first["Retry-After"] == second["Retry-After"] == "5"

    clock.now += key_cache.PROBE_SECONDS
    assert ask(x_api_key=owner.raw).status_code == 200


@whole_stack
def test_outage_is_over_as_soon_as_one_question_is_answered(
    ask: Ask, owner: Person, stranger: Person, clock: Clock, broken_database: BrokenDatabase
) -> None:
    assert ask(x_api_key=owner.raw).status_code == 200
    with broken_database():
        assert code(ask(x_api_key=stranger.raw)) == (503, "database_unavailable")
        assert KEYS.failing
    clock.now += key_cache.PROBE_SECONDS

    assert ask(x_api_key=stranger.raw).status_code == 200

    assert not KEYS.failing


@whole_stack
def test_request_without_key_lives_through_an_outage_too(
    ask: Ask, clock: Clock, settings: Settings, broken_database: BrokenDatabase
) -> None:
    settings.REQUIRE_API_KEY = False
    assert ask().status_code == 200
    with broken_database():
        clock.now += settings.API_KEY_CACHE_SECONDS + 1
        assert ask().status_code == 200


@whole_stack
def test_wrong_key_is_remembered_for_a_moment_only(
    owner: Person, clock: Clock, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    assert code(ask_sync(x_api_key=WRONG)) == (401, "invalid_api_key")
    with django_assert_num_queries(0):
        assert code(ask_sync(x_api_key=WRONG)) == (401, "invalid_api_key")

    APIKey.objects.filter(id=owner.key.id).update(digest=services.digest_of(WRONG))
    clock.now += key_cache.REFUSED_SECONDS

    assert ask_sync(x_api_key=WRONG).status_code == 200


@whole_stack
def test_last_use_is_noted_once_a_minute(owner: Person, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    start = timezone.now()
    elapsed = timedelta()
    monkeypatch.setattr("accounts.authentication.timezone.now", lambda: start + elapsed)
    noted = []
    for _ in range(7):
        assert ask_sync(x_api_key=owner.raw).status_code == 200
        owner.key.refresh_from_db()
        noted.append(owner.key.last_used_at)
        elapsed += timedelta(seconds=11)
        clock.now += 11

    assert noted == [start] * 6 + [start + timedelta(seconds=66)]


@whole_stack
async def test_last_use_is_noted_behind_the_request(owner: Person) -> None:
    view = AsyncView.as_view({"get": "show"})
    assert (await view(AsyncRequestFactory().get("/", headers=owner.headers))).status_code == 200

    for _ in range(1000):
        await asyncio.sleep(0.005)
        await in_thread(owner.key.refresh_from_db)
        if owner.key.last_used_at is not None:
            return
    pytest.fail("the use was never noted")


@whole_stack
async def test_many_first_requests_at_once_ask_the_database_little(
    owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = authentication._stored_finding
    monkeypatch.setattr(
        authentication,
        "_stored_finding",
        lambda digest: asked.append(digest) or original(digest),  # type: ignore[func-returns-value]
    )
    view = AsyncView.as_view({"get": "show"})
    requests = [AsyncRequestFactory().get("/", headers=owner.headers) for _ in range(200)]

    responses = await asyncio.gather(*(view(request) for request in requests))

    assert {response.status_code for response in responses} == {200}
    assert len(asked) <= threads.THREADS


def test_wrong_keys_neither_grow_the_cache_without_bound_nor_push_good_ones_out() -> None:
    cache = KeyCache()
    cache.store(good("good"), generation=0)

    for number in range(10_000):
        cache.store(Finding(digest=f"wrong{number}"), generation=0)

    assert len(cache) == key_cache.MAX_REFUSED + 1
    assert cache.usable("good") is not None
    assert cache.refused("wrong9999") is not None
    assert cache.refused("wrong0") is None


def test_good_keys_beyond_the_room_push_out_the_longest_unused() -> None:
    cache = KeyCache()
    for number in range(key_cache.MAX_GOOD):
        cache.store(good(f"key{number}"), generation=0)
    cache.store(good("key0"), generation=0)

    cache.store(good("one more"), generation=0)

    assert len(cache) == key_cache.MAX_GOOD
    assert cache.usable("key0") is not None
    assert cache.usable("key1") is None


def test_answer_from_before_a_key_was_forgotten_is_not_kept() -> None:
    cache = KeyCache()
    generation = cache.generation
    cache.forget("key")

    cache.store(good("key"), generation=generation)

    assert cache.usable("key") is None


def test_one_caller_refreshes_at_half_the_life(clock: Clock) -> None:
    cache = KeyCache()
    cache.clock = clock
    cache.store(good("key"), generation=0)
    finding = cache.usable("key")
    assert finding is not None

    clock.now += settings.API_KEY_CACHE_SECONDS / 2 - 0.001
    early = cache.claims_refresh(finding)
    clock.now += 0.001
    due = [cache.claims_refresh(finding) for _ in range(3)]

    assert (early, due) == (False, [True, False, False])


def test_one_caller_at_a_time_asks_a_failing_database(clock: Clock) -> None:
    cache = KeyCache()
    cache.clock = clock
    cache.database_failed()
    at_once = cache.may_ask()
    clock.now += key_cache.PROBE_SECONDS
    later = [cache.may_ask(), cache.may_ask()]
    cache.database_failed()
    clock.now += key_cache.PROBE_SECONDS
    after_the_probe_failed = cache.may_ask()

    assert (at_once, later, after_the_probe_failed) == (False, [True, False], True)


def test_good_key_that_is_now_refused_is_no_longer_in_reserve() -> None:
    cache = KeyCache()
    cache.store(good("key"), generation=0)

    cache.store(Finding(digest="key", refusal=InvalidAPIKey), generation=0)

    assert (cache.usable("key"), cache.in_reserve("key")) == (None, None)
