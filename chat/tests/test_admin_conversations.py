"""Conversations in the admin: the list, and the page that reads as a thread."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import Person
from chat.admin import conversations
from chat.admin.beside import comparison_of
from chat.models import Conversation
from chat.tests.factories import ConversationFactory, InteractionFactory
from chat.tests.test_admin_interactions import browser_of, shown, text_of
from chat.walking import FIRST

LIST = "/admin/chat/conversation/"


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(is_superuser=True))


def page_of(row: Conversation) -> str:
    return reverse("admin:chat_conversation_change", args=[row.pk])


def test_list_tells_how_long_each_conversation_is(operator: Client, owner: Person) -> None:
    empty = ConversationFactory.create(organization=owner.organization, title="Nothing said")
    busy = ConversationFactory.create(organization=owner.organization, title="", user_id="ben")
    for _ in range(3):
        InteractionFactory.create(organization=owner.organization, conversation=busy)
    response = operator.get(LIST)
    assert shown(response) == [busy.pk, empty.pk]
    content = text_of(response)
    assert f"{busy.pk} Acme ben 3" in content
    assert "Nothing said Acme ana 0" in content


def test_list_counts_no_more_of_a_conversation_than_so_many(
    operator: Client, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "COUNTED", 2)
    for number in (2, 3, 5):
        row = ConversationFactory.create(organization=owner.organization, title=f"Of {number}.")
        for _ in range(number):
            InteractionFactory.create(organization=owner.organization, conversation=row)
    with CaptureQueriesContext(connection) as captured:
        content = text_of(operator.get(LIST))
    assert [words in content for words in ("Of 2. Acme ana 2 ", "Of 3. Acme ana 2+ ", "Of 5. Acme ana 2+ ")] == [
        True
    ] * 3
    assert all("LIMIT 3" in query["sql"] for query in captured if 'FROM "chat_interaction"' in query["sql"])


def test_number_of_queries_does_not_grow_with_the_rows(operator: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            operator.get(LIST)
        return len(captured)

    InteractionFactory.create(conversation=ConversationFactory.create())
    one = queries()
    for _ in range(5):
        InteractionFactory.create(conversation=ConversationFactory.create())
    assert queries() == one


def test_search_by_title_user_and_id(operator: Client) -> None:
    row = ConversationFactory.create(title="Trip to Lisbon", user_id="zoe")
    ConversationFactory.create()
    for words in ("lisbon", "zoe", str(row.pk)):
        assert shown(operator.get(LIST, {"q": words})) == [row.pk]


def test_page_reads_as_a_thread(operator: Client, owner: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization, title="Trip")
    for age, prompt in ((2, "Where to?"), (1, "And when?")):
        InteractionFactory.create(
            organization=owner.organization, conversation=row, prompt=prompt, age=dt.timedelta(hours=age)
        )
    InteractionFactory.create(organization=owner.organization, conversation=row, failed=True, prompt="Hello?")
    InteractionFactory.create(organization=owner.organization, prompt="Elsewhere")
    content = text_of(operator.get(page_of(row)))
    assert [content.index(words) for words in ("Where to?", "And when?", "Hello?")] == sorted(
        content.index(words) for words in ("Where to?", "And when?", "Hello?")
    )
    assert "Elsewhere" not in content
    assert "Failed No answer came. provider_unavailable" in content
    assert not {"Earlier", "Later"} & set(content.split())


def test_long_thread_is_read_page_by_page(operator: Client, owner: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "PAGE_LENGTH", 2)
    row = ConversationFactory.create(organization=owner.organization)
    said = [InteractionFactory.create(organization=owner.organization, conversation=row) for _ in range(5)]
    pages, url = [], page_of(row)
    while url:
        response = operator.get(url)
        pages.append([entry["row"].pk for entry in response.context["thread"]])
        earlier = response.context["earlier"]
        assert earlier is None or f"?before={earlier}" in response.content.decode()
        url = f"{page_of(row)}?before={earlier}" if earlier else ""
    assert pages == [[said[3].pk, said[4].pk], [said[1].pk, said[2].pk], [said[0].pk]]


def test_long_thread_is_read_from_its_beginning(
    operator: Client, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_LENGTH", 2)
    row = ConversationFactory.create(organization=owner.organization)
    said = [InteractionFactory.create(organization=owner.organization, conversation=row) for _ in range(5)]
    pages, url = [], f"{page_of(row)}?after={FIRST}"
    while url:
        response = operator.get(url)
        pages.append([entry["row"].pk for entry in response.context["thread"]])
        later = response.context["later"]
        assert later is None or f"?after={later}" in response.content.decode()
        url = f"{page_of(row)}?after={later}" if later else ""
    assert pages == [[said[0].pk, said[1].pk], [said[2].pk, said[3].pk], [said[4].pk]]
    first = operator.get(f"{page_of(row)}?after={FIRST}")
    assert (first.context["earlier"], operator.get(f"{page_of(row)}?before={said[2].pk}").context["later"]) == (
        None,
        said[1].pk,
    )


def test_figures_are_of_the_whole_thread_whatever_the_page(
    operator: Client, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_LENGTH", 1)
    row = ConversationFactory.create(organization=owner.organization)
    common = {"organization": owner.organization, "conversation": row, "input_tokens": 10, "output_tokens": 5}
    InteractionFactory.create(**common, cost=Decimal("0.25"), latency_ms=100.0)
    InteractionFactory.create(**common, cost=None, latency_ms=300.0)
    InteractionFactory.create(
        **{**common, "output_tokens": 0}, cost=Decimal("0.5"), latency_ms=200.0, status="cancelled"
    )
    content = text_of(operator.get(page_of(row)))
    for words in (
        "Interactions 3",
        "Without a whole answer 1",
        "Cost $0.750 1 at an unknown price",
        "Tokens 40 30 in, 10 out",
        "Latency, on average 200 ms at most 300 ms",
    ):
        assert words in content
    # One row more is the sign that there are others; no page reads all of them.
    with CaptureQueriesContext(connection) as captured:
        operator.get(page_of(row))
    assert sum("LIMIT 2" in query["sql"] for query in captured) >= 1


def test_how_each_exchange_ended_is_told(operator: Client, owner: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization)
    common = {"organization": owner.organization, "conversation": row}
    InteractionFactory.create(**common, failed=True)
    InteractionFactory.create(**common, status="cancelled", response="Half of", streamed=True)
    InteractionFactory.create(**common, prompt="", response="", erased_at=timezone.now())
    content = text_of(operator.get(page_of(row)))
    assert "No answer came. provider_unavailable" in content
    assert "Cancelled Half of The answer ends here: the exchange was cancelled." in content
    assert "stream" in content
    assert "The texts were erased on" in content


def test_turn_leads_to_the_comparison_with_the_one_before(operator: Client, owner: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization)
    one, other = (InteractionFactory.create(organization=owner.organization, conversation=row) for _ in range(2))
    first, second = operator.get(page_of(row)).context["thread"]
    assert (first["compare"], second["compare"]) == (None, comparison_of(one.pk, other.pk))
    assert operator.get(second["compare"]).status_code == 200


def test_place_in_the_thread_that_makes_no_sense_is_ignored(operator: Client) -> None:
    row = ConversationFactory.create()
    for query in ("before=yesterday", "after=tomorrow", "after="):
        assert operator.get(f"{page_of(row)}?{query}").status_code == 200


def test_long_texts_are_cut_in_the_thread(operator: Client) -> None:
    row = ConversationFactory.create()
    said = InteractionFactory.create(organization=row.organization, conversation=row, long=True)
    response = operator.get(page_of(row))
    assert f"{len(said.prompt) - conversations.TURN_LIMIT} more characters" in text_of(response)
    assert len(response.content) < 100_000


def test_conversations_cannot_be_changed_by_anybody(operator: Client, owner: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization, title="As it was")
    for client in (operator, browser_of(owner.user)):
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.post(page_of(row), {"title": "changed"}).status_code == 403
        client.post(LIST, {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
    assert Conversation.objects.get().title == "As it was"


def test_stranger_cannot_read_a_conversation(owner: Person, stranger: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization, title="Acme's plans")
    client = browser_of(stranger.user)
    assert shown(client.get(LIST)) == []
    response = client.get(page_of(row), follow=True)
    assert response.redirect_chain == [(reverse("admin:index"), 302)]
    assert "plans" not in response.content.decode()


def test_member_reads_a_conversation_of_the_organization(owner: Person, member: Person) -> None:
    row = ConversationFactory.create(organization=owner.organization)
    client = browser_of(member.user)
    assert shown(client.get(LIST)) == [row.pk]
    assert client.get(page_of(row)).status_code == 200
