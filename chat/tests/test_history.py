"""`/v1/interactions` and `/v1/conversations`: one's own record, and nobody else's."""

import datetime as dt

import pytest
from django.utils import timezone

from chat.models import Conversation, Interaction
from chat.tests.factories import AttemptFactory, ConversationFactory, InteractionFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def as_(client):
    def get(person, path, query=None, method="get"):
        return getattr(client, method)(path, query or {}, headers={"Authorization": f"Bearer {person.raw}"})

    return get


def test_pages_run_from_newest_to_oldest_and_end(owner, as_):
    made = sorted(str(InteractionFactory.create(organization=owner.organization).id) for _ in range(5))
    seen, cursor = [], None
    for _ in range(3):
        page = as_(owner, "/v1/interactions", {"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["nextCursor"]
    assert (seen, cursor) == (made[::-1], None)


def test_an_empty_record_is_an_empty_page(owner, as_):
    assert as_(owner, "/v1/interactions").json() == {"data": [], "nextCursor": None}
    assert as_(owner, "/v1/conversations").json() == {"data": [], "nextCursor": None}


def test_filters_narrow(owner, as_):
    thread = ConversationFactory.create(organization=owner.organization, user_id="ada")
    wanted = InteractionFactory.create(
        organization=owner.organization,
        conversation=thread,
        user_id="ada",
        model="gpt-4o",
        status="failed",
        error_code="provider_overloaded",
        request_id="r-1",
    )
    InteractionFactory.create(
        organization=owner.organization, user_id="bob", model="other", request_id="r-2", conversation=None
    )
    for query in (
        {"userId": "ada"},
        {"model": "gpt-4o"},
        {"status": "failed"},
        {"requestId": "r-1"},
        {"conversationId": str(thread.id)},
    ):
        rows = as_(owner, "/v1/interactions", query).json()["data"]
        assert [row["id"] for row in rows] == [str(wanted.id)], query


def test_times_narrow(owner, as_):
    InteractionFactory.create(organization=owner.organization)
    later = (timezone.now() + dt.timedelta(minutes=1)).isoformat()
    assert as_(owner, "/v1/interactions", {"since": later}).json()["data"] == []
    assert len(as_(owner, "/v1/interactions", {"until": later}).json()["data"]) == 1


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"status": "x"}, "status"),
        ({"since": "x"}, "since"),
        ({"model": "\x00"}, "model"),
        ({"colour": "x"}, "colour"),
    ],
)
def test_a_wrong_query_is_named(owner, as_, query, param):
    response = as_(owner, "/v1/interactions", query)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_the_detail_has_its_attempts_and_error(owner, as_):
    row = InteractionFactory.create(
        organization=owner.organization,
        attempt=None,
        status="failed",
        error_type="provider_error",
        error_code="provider_overloaded",
        error_message="Too much.",
    )
    AttemptFactory.create(interaction=row, number=1)
    body = as_(owner, f"/v1/interactions/{row.id}").json()
    assert [attempt["number"] for attempt in body["attempts"]] == [1]
    assert body["error"] == {"type": "provider_error", "code": "provider_overloaded", "message": "Too much."}


def test_a_member_sees_what_the_owner_sees(owner, member, as_):
    row = InteractionFactory.create(organization=owner.organization)
    assert as_(member, f"/v1/interactions/{row.id}").status_code == 200


def test_a_stranger_cannot_see_that_it_exists(owner, stranger, as_):
    row = InteractionFactory.create(organization=owner.organization)
    thread = ConversationFactory.create(organization=owner.organization)
    for path, code in (
        (f"/v1/interactions/{row.id}", "interaction_not_found"),
        (f"/v1/conversations/{thread.id}", "conversation_not_found"),
    ):
        response = as_(stranger, path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, code)
    assert as_(stranger, f"/v1/conversations/{thread.id}", method="delete").status_code == 404
    assert as_(stranger, "/v1/interactions").json()["data"] == []
    assert as_(stranger, "/v1/conversations").json()["data"] == []
    assert Conversation.objects.filter(id=thread.id).exists()


def test_a_conversation_is_shown_with_its_thread(owner, as_):
    thread = ConversationFactory.create(organization=owner.organization)
    rows = [InteractionFactory.create(organization=owner.organization, conversation=thread) for _ in range(3)]
    body = as_(owner, f"/v1/conversations/{thread.id}").json()
    assert [row["id"] for row in body["interactions"]] == [str(row.id) for row in rows]
    assert body["title"] == thread.title


def test_deleting_a_conversation_erases_texts_and_keeps_numbers(owner, as_):
    thread = ConversationFactory.create(organization=owner.organization)
    row = InteractionFactory.create(organization=owner.organization, conversation=thread, metadata={"a": "b"})
    other = InteractionFactory.create(organization=owner.organization)
    assert as_(owner, f"/v1/conversations/{thread.id}", method="delete").status_code == 204
    erased = Interaction.objects.get(id=row.id)
    assert (erased.prompt, erased.response, erased.system_prompt, erased.messages, erased.metadata) == (
        "",
        "",
        "",
        [],
        {},
    )
    assert (erased.cost, erased.input_tokens, erased.output_tokens) == (row.cost, row.input_tokens, row.output_tokens)
    assert erased.erased_at is not None
    assert Interaction.objects.get(id=other.id).prompt == other.prompt
    assert as_(owner, f"/v1/conversations/{thread.id}").status_code == 404


def test_a_list_reads_no_long_columns_and_no_row_twice(owner, as_, django_assert_max_num_queries):
    InteractionFactory.create_batch(10, organization=owner.organization)
    as_(owner, "/v1/interactions")
    with django_assert_max_num_queries(1) as queries:
        as_(owner, "/v1/interactions")
    assert '"messages"' not in queries.captured_queries[0]["sql"]


def test_a_key_without_the_scope_is_refused(owner, as_):
    owner.key.scopes = ["chat"]
    owner.key.save()
    response = as_(owner, "/v1/interactions")
    assert (response.status_code, response.json()["error"]["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize("moment", ["1900-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z"])
def test_moments_far_away_are_moments(owner, as_, moment):
    for name in ("since", "until"):
        assert as_(owner, "/v1/interactions", {name: moment}).status_code in {200, 400}


@pytest.mark.parametrize(
    "query", [{"userId": ""}, {"model": " "}, {"requestId": "a\x00b"}, {"limit": "0"}, {"page": "2"}]
)
def test_a_wrong_filter_is_named(owner, as_, query):
    response = as_(owner, "/v1/interactions", query)
    assert (response.status_code, response.json()["error"]["param"]) == (400, next(iter(query)))
