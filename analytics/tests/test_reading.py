"""Questions over all organizations, and for the largest groups alone."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Organization
from accounts.tests.factories import APIKeyFactory, OrganizationFactory
from analytics import rolling
from analytics.models import Cube, Grain
from analytics.questions import Answer, Question
from analytics.reading import answer
from analytics.tests.record import exchange, some_exchanges, store
from analytics.totals import Totals

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


@pytest.fixture
def two(organization: Organization) -> tuple[Organization, Organization]:
    """Acme's ana asked five times in two months and bo twice, Beta's ana thrice, once dearly; all but today's is
    rolled up."""
    beta = OrganizationFactory.create(name="Beta")
    now = timezone.now()
    month_ago = now - 31 * DAY
    store([exchange(organization, month_ago, user_id="ana", model="gpt-4o") for _ in range(3)])
    store([exchange(organization, month_ago, user_id="bo") for _ in range(2)])
    store([exchange(beta, now - 2 * DAY, user_id="ana", cost=cost) for cost in ("0.5", "0.1")])
    rolling.roll_up()
    store([exchange(organization, now - dt.timedelta(seconds=1), user_id="ana") for _ in range(2)])
    store([exchange(beta, now - dt.timedelta(seconds=1), user_id="ana", status="failed", error_code="boom")])
    return organization, beta


def ask(**asked: Any) -> Answer:
    now = timezone.now()
    question = {"organization_id": None, "since": now - 60 * DAY, "until": now + DAY, **asked}
    return answer(Question(**question))[0]


def requests(found: Answer) -> dict[Any, int]:
    return {group: totals.requests for group, totals in found.groups.items()}


@pytest.mark.usefixtures("organization")
def test_all_organizations_are_told_apart(two: tuple[Organization, Organization]) -> None:
    acme, beta = two
    assert requests(ask(by=("organization_id",))) == {(None, acme.id): 7, (None, beta.id): 3}
    of_one = ask(by=("organization_id",), only={"organization_id": beta.id})
    assert requests(of_one) == {(None, beta.id): 3}
    assert sum(of_one.groups[None, beta.id].latencies.values()) == 3


def test_organizations_by_status_and_by_model(two: tuple[Organization, Organization]) -> None:
    acme, beta = two
    assert requests(ask(by=("organization_id", "status"), only={"status": ["failed"]})) == {
        (None, beta.id, "failed"): 1
    }
    assert requests(ask(by=("organization_id", "model"), only={"model": "gpt-4o"})) == {(None, acme.id, "gpt-4o"): 3}


def test_organizations_by_the_month(two: tuple[Organization, Organization]) -> None:
    found = ask(by=("organization_id",), interval=Grain.MONTH)
    assert sum(totals.requests for group, totals in found.groups.items() if group[1] == two[0].id) == 7
    assert all(group[0].day == 1 for group in found.groups)


def test_keys_of_all_organizations(organization: Organization) -> None:
    key = APIKeyFactory.create(organization=organization)
    store([exchange(organization, timezone.now() - DAY, api_key_id=key.id)])
    rolling.roll_up()
    assert requests(ask(by=("api_key_id",))) == {(None, key.id): 1}


def test_the_top_users_of_all_organizations_and_what_the_others_add_up_to(
    two: tuple[Organization, Organization],
) -> None:
    acme, beta = two
    found = ask(by=("organization_id", "user_id"), limit=1)
    assert requests(found) == {(None, acme.id, "ana"): 5}
    assert found.rest is not None
    assert found.rest.requests == 5
    dearest = ask(by=("organization_id", "user_id"), limit=2, top="cost")
    assert list(requests(dearest)) == [(None, beta.id, "ana"), (None, acme.id, "ana")]


def test_the_top_users_of_one_organization(two: tuple[Organization, Organization]) -> None:
    found = ask(organization_id=two[0].id, by=("user_id",), limit=1)
    assert requests(found) == {(None, "ana"): 5}
    assert found.rest is not None
    assert found.rest.requests == 2


def test_the_same_name_in_two_organizations_is_one_group_when_only_names_are_asked_for(
    two: tuple[Organization, Organization],
) -> None:
    assert requests(ask(by=("user_id",), limit=5)) == {(None, "ana"): 8, (None, "bo"): 2}


def test_without_times_only_counters_are_told(two: tuple[Organization, Organization]) -> None:
    (totals,) = ask(times=False).groups.values()
    assert (totals.requests, totals.latencies, totals.first_tokens) == (10, {}, {})
    assert totals.latency == ask().groups[None,].latency


def test_questions_of_one_range_read_its_rows_once(
    two: tuple[Organization, Organization],
) -> None:
    now = timezone.now()
    asked = [
        Question(organization_id=None, since=now - DAY, until=now, by=by, only=only, times=False)
        for by, only in ((("model",), {}), (("status",), {}), (("provider", "status"), {"status": ["failed"]}))
    ]
    reads = []
    for some in (asked[:1], asked):
        with CaptureQueriesContext(connection) as context:
            found = answer(*some)
        statements = [each["sql"] for each in context]
        assert len([sql for sql in statements if 'FROM "chat_change"' in sql]) == 1
        reads.append(len([sql for sql in statements if 'FROM "chat_interaction"' in sql]))
    assert [sum(requests(each).values()) for each in found] == [3, 3, 1]
    assert reads[0] == reads[1] > 0


def test_each_answer_has_sums_of_its_own(two: tuple[Organization, Organization]) -> None:
    now = timezone.now()
    asked = Question(organization_id=None, since=now - DAY, until=now, by=("model",))
    first, by_status = answer(asked, Question(organization_id=None, since=now - DAY, until=now, by=("status",)))
    assert sum(requests(first).values()) == sum(requests(by_status).values()) == 3
    assert requests(answer(asked)[0]) == requests(first)


@pytest.mark.parametrize(
    ("by", "cube"),
    [
        ((), Cube.TOTAL),
        (("status", "cached"), Cube.OVERVIEW),
        (("organization_id", "status"), Cube.TENANT),
        (("api_key_id",), Cube.KEY),
        (("error_code",), Cube.EVERYTHING),
        (("organization_id", "user_id"), Cube.USER),
        (("organization_id", "model"), Cube.ORGANIZATION),
    ],
)
def test_a_question_is_answered_from_the_fewest_cells(by: tuple[str, ...], cube: Cube) -> None:
    now = timezone.now()
    assert Question(organization_id=None, since=now - DAY, until=now, by=by).cube is cube


@pytest.mark.parametrize("is_rolled_up", [True, False])
def test_the_top_users_are_those_of_all(organization: Organization, is_rolled_up: bool) -> None:
    now = timezone.now()
    others = OrganizationFactory.create(name="Beta")
    store(some_exchanges([organization, others], 80, since=now - 40 * DAY, until=now, seed=9))
    if is_rolled_up:
        rolling.roll_up()
        store(some_exchanges([organization, others], 20, since=now - DAY / 24, until=now, seed=10))
    scopes = ((None, ("organization_id", "user_id")), (organization.id, ("user_id",)))
    for (organization_id, by), top in itertools.product(scopes, ("requests", "cost", "output_tokens")):
        asked = Question(
            organization_id=organization_id, since=now - 60 * DAY, until=now, by=by, limit=3, top=top, times=False
        )
        every = answer(replace(asked, limit=None))[0].groups
        ordered = sorted(every, key=lambda group: (-getattr(every[group], top), str(group)))
        found = answer(asked)[0]
        assert found.groups == {group: every[group] for group in ordered[:3]}
        assert found.rest == Totals.sum(every[group] for group in ordered[3:])
