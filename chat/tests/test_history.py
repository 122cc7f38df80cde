"""`/v1/interactions` and `/v1/conversations`: one's own record, and nobody else's."""

import datetime as dt

import pytest
from django.utils import timezone

from chat import payloads, walking
from chat.models import Conversation, Interaction
from chat.tests.factories import AttemptFactory, ConversationFactory, InteractionFactory
from llmchat.lib.uuid7 import moment_of

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
    assert as_(owner, "/v1/interactions").json() == {"data": [], "nextCursor": None, "lookedBackTo": None}
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
        ({"search": ""}, "search"),
        ({"search": "-not ..."}, "search"),
        ({"search": "x" * 1_001}, "search"),
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
    # On PostgreSQL within a transaction of its own, that ends it when it takes too long.
    with django_assert_max_num_queries(6) as queries:
        as_(owner, "/v1/interactions")
    # The ids that an index holds, then their rows.
    [ids, read] = [query["sql"] for query in queries.captured_queries if query["sql"].startswith("SELECT")]
    assert ids.startswith('SELECT "chat_interaction"."id" AS "id" FROM')
    assert '"messages"' not in read


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


# --- Search -----------------------------------------------------------------------------------------------------------
def said(person, prompt, response="Well.", **fields):
    return InteractionFactory.create(organization=person.organization, prompt=prompt, response=response, **fields)


def test_words_phrases_and_exclusions_are_found_in_prompts_and_responses(owner, as_):
    asked = said(owner, "Where is my parcel?")
    told = said(owner, "Well?", "Your parcel is on its way, no refund.")
    said(owner, "Something else.")

    def found(search):
        return [row["id"] for row in as_(owner, "/v1/interactions", {"search": search}).json()["data"]]

    assert found("parcel") == [str(told.id), str(asked.id)]
    assert found('"on its way"') == [str(told.id)]
    assert found("parcel -refund") == [str(asked.id)]
    assert found(str(asked.id)) == [str(asked.id)]
    assert found(asked.trace_id) == [str(asked.id)]
    assert found("nothing") == []


def test_search_goes_together_with_the_filters(owner, as_):
    said(owner, "parcel", user_id="ben")
    wanted = said(owner, "parcel", user_id="ada", model="claude-haiku")
    for query in ({"userId": "ada"}, {"model": "claude-*"}, {"model": "claude-haiku", "status": "succeeded"}):
        rows = as_(owner, "/v1/interactions", {"search": "parcel", **query}).json()["data"]
        assert [row["id"] for row in rows] == [str(wanted.id)], query


def test_search_finds_the_own_organization_alone(owner, member, stranger, as_):
    row = said(owner, "parcel", trace_id="request-of-acme")
    for search in ("parcel", str(row.id), str(row.conversation_id or row.id), "request-of-acme", row.user_id):
        assert as_(stranger, "/v1/interactions", {"search": search}).json()["data"] == []
    assert [found["id"] for found in as_(member, "/v1/interactions", {"search": "parcel"}).json()["data"]] == [
        str(row.id)
    ]


def test_erased_texts_are_not_found(owner, as_):
    said(owner, "", response="", erased_at=timezone.now(), user_id="parcels")
    assert as_(owner, "/v1/interactions", {"search": "parcel"}).json()["data"] == []


@pytest.mark.parametrize("query", [{"search": "parcel"}, {"model": "rare"}])
def test_answer_says_how_far_it_has_looked_and_goes_on_from_there(owner, as_, monkeypatch, query):
    monkeypatch.setattr(walking, "STEP", 2)
    monkeypatch.setattr(walking, "MOST", 4)
    wanted = said(owner, "parcel", model="rare")
    newer = [said(owner, "Something else.") for _ in range(5)]
    page = as_(owner, "/v1/interactions", query).json()
    assert (page["data"], page["nextCursor"]) == ([], str(newer[1].id))
    assert page["lookedBackTo"] == payloads.timestamp(moment_of(newer[1].id))
    page = as_(owner, "/v1/interactions", {**query, "cursor": page["nextCursor"]}).json()
    assert ([row["id"] for row in page["data"]], page["nextCursor"], page["lookedBackTo"]) == (
        [str(wanted.id)],
        None,
        None,
    )


def test_what_takes_too_long_says_what_to_do(owner, as_, monkeypatch):
    def too_slow(*args, **kwargs):
        raise walking.TooSlow

    monkeypatch.setattr(walking, "page", too_slow)
    response = as_(owner, "/v1/interactions", {"search": "parcel"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "query_too_slow")
    assert "since" in response.json()["error"]["message"]
    assert response["Retry-After"] == "2"
