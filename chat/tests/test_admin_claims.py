"""Request ids in the admin: a list to read, each organization its own."""

from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Organization
from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import Person
from chat.admin import listing
from chat.models import IdempotencyClaim, Interaction, Status
from chat.tests.factories import InteractionFactory
from chat.tests.test_admin_interactions import browser_of, page_of, shown, text_of
from llmchat.lib.uuid7 import uuid7

LIST = "/admin/chat/idempotencyclaim/"


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


def claim_of(organization: Organization, key: str, *, row: Interaction | None = None) -> IdempotencyClaim:
    return IdempotencyClaim.objects.create(
        organization=organization, key=key, fingerprint="f", interaction_id=row.id if row else uuid7()
    )


def test_list_says_what_each_id_stands_for(operator: Client, owner: Person, settings) -> None:
    settings.IDEMPOTENCY_HOURS = 24
    answered = InteractionFactory.create(organization=owner.organization)
    failed = InteractionFactory.create(organization=owner.organization, failed=True)
    claims = [
        claim_of(owner.organization, "order-1", row=answered),
        claim_of(owner.organization, "order-2", row=failed),
        claim_of(owner.organization, "order-3"),
    ]
    old = claim_of(owner.organization, "order-4", row=answered_again(owner))
    IdempotencyClaim.objects.filter(pk=old.pk).update(created_at=timezone.now() - dt.timedelta(hours=25))
    response = operator.get(LIST)
    content = text_of(response)
    assert shown(response) == [old.pk, *(claim.pk for claim in reversed(claims))]
    begun = claims[0].created_at
    until = begun + dt.timedelta(days=1)
    assert f"order-1 Acme Answered {answered.id} {begun:%Y-%m-%d %H:%M:%S} {until:%Y-%m-%d %H:%M:%S}" in content
    assert f"order-2 Acme Failed: free {failed.id}" in content
    assert f"order-3 Acme Under way {claims[2].interaction_id}" in content
    assert "order-4 Acme Expired" in content
    links = response.content.decode()
    assert page_of(answered) in links
    assert str(claims[2].interaction_id) + "/change" not in links


def answered_again(owner: Person) -> Interaction:
    row: Interaction = InteractionFactory.create(organization=owner.organization, status=Status.SUCCEEDED)
    return row


def test_an_id_is_found_by_itself_and_by_its_interaction(operator: Client, owner: Person) -> None:
    claim = claim_of(owner.organization, "order-1")
    claim_of(owner.organization, "order-11")
    for words in ("order-1", str(claim.interaction_id)):
        assert shown(operator.get(LIST, {"q": words})) == [claim.pk]
    assert shown(operator.get(LIST, {"q": "order"})) == []


def test_people_see_their_own_organizations_ids(owner: Person, stranger: Person) -> None:
    mine = claim_of(owner.organization, "mine")
    theirs = claim_of(stranger.organization, "theirs")
    browser = browser_of(owner.user)
    assert shown(browser.get(LIST)) == [mine.pk]
    assert shown(browser.get(LIST, {"q": "theirs"})) == []
    assert browser.get(f"{LIST}{theirs.pk}/change/").status_code == 302


def test_nothing_can_be_changed(operator: Client, owner: Person) -> None:
    claim = claim_of(owner.organization, "order-1")
    for path in (f"{LIST}add/", f"{LIST}{claim.pk}/delete/"):
        assert operator.get(path).status_code == 403
    operator.post(f"{LIST}{claim.pk}/change/", {"key": "other"})
    assert IdempotencyClaim.objects.get().key == "order-1"


def test_a_long_list_goes_on_by_id_and_counts_no_further_than_it_must(
    operator: Client, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNT_LIMIT", 100)
    claims = [claim_of(owner.organization, f"order-{number}") for number in range(120)]
    with CaptureQueriesContext(connection) as captured:
        second = operator.get(LIST, {"p": 2})
    assert shown(second)[-1] == claims[20].pk
    third = operator.get(second.context["cl"].older_url.join([LIST, ""]))
    assert shown(third) == [claim.pk for claim in reversed(claims[:20])]
    assert not [
        query for query in captured.captured_queries if "COUNT(*)" in query["sql"] and "LIMIT" not in query["sql"]
    ]


def test_number_of_queries_does_not_grow_with_the_rows(operator: Client, owner: Person) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            operator.get(LIST)
        return len(captured)

    claim_of(owner.organization, "one")
    one = queries()
    for number in range(5):
        claim_of(owner.organization, f"more-{number}", row=answered_again(owner))
    assert queries() == one
