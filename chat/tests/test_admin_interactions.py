"""The list of interactions in the admin, and the page of one."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from accounts.models import Membership, User
from accounts.tests.factories import MembershipFactory, UserFactory
from accounts.tests.fixtures import Person
from chat import walking
from chat.admin import filters
from chat.admin.interactions import InteractionAdmin
from chat.models import Attempt, Interaction, Status
from chat.tests.factories import MARKUP, TOOL_CALLS, ConversationFactory, InteractionFactory, id_at

LIST = "/admin/chat/interaction/"


def browser_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def page_of(row: Interaction) -> str:
    return reverse("admin:chat_interaction_change", args=[row.pk])


def shown(response: Any) -> list[UUID]:
    """The ids of the rows that a list shows, in its order."""
    assert response.status_code == 200
    return [row.pk for row in response.context["cl"].result_list]


def text_of(response: Any) -> str:
    """What a reader sees of the page's own part: without tags, in single spaces."""
    content = response.content.decode().split('id="content"', 1)[1]
    return " ".join(re.sub(r"<[^>]+>", " ", content).split())


@pytest.fixture
def operator(db: None) -> Client:
    return browser_of(UserFactory.create(username="operator", is_superuser=True))


def test_list_shows_what_matters_of_each_exchange(operator: Client, owner: Person) -> None:
    InteractionFactory.create(
        organization=owner.organization, id=UUID("019289e0-0000-7000-8000-000000000001"), rescued=True, streamed=True
    )
    assert (
        "2024-10-14 Succeeded How do I cancel my subscription? stream retry ×1 fallback Acme ana"
        " gemini-2.0-flash gemini 70 25 in, 45 out $0.0000205 2.84 s first 2.21 s"
    ) in text_of(operator.get(LIST))


def test_list_shows_the_error_of_a_failure(operator: Client) -> None:
    InteractionFactory.create(failed=True)
    assert "Failed provider_unavailable" in text_of(operator.get(LIST))


def test_unknown_cost_is_never_shown_as_nothing(operator: Client) -> None:
    InteractionFactory.create(unpriced=True)
    content = text_of(operator.get(LIST))
    assert "45 out unknown 812 ms" in content
    assert "$" not in content


def test_known_price_of_nothing_is_shown_as_such(operator: Client) -> None:
    InteractionFactory.create(cost=Decimal(0))
    assert "45 out $0 812 ms" in text_of(operator.get(LIST))


def test_newest_comes_first_whatever_order_is_asked_for(operator: Client) -> None:
    rows = [InteractionFactory.create(age=dt.timedelta(minutes=age)) for age in (3, 1, 2)]
    expected = [rows[1].pk, rows[2].pk, rows[0].pk]
    assert shown(operator.get(LIST)) == expected
    assert shown(operator.get(f"{LIST}?o=1.-3")) == expected


def test_number_of_queries_does_not_grow_with_the_rows(operator: Client, owner: Person) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            operator.get(LIST)
        return len(captured)

    InteractionFactory.create()
    one = queries()
    for _ in range(5):
        InteractionFactory.create(rescued=True, conversation=ConversationFactory.create())
    assert queries() == one


def test_list_fetches_no_long_column(operator: Client) -> None:
    InteractionFactory.create(long=True)
    with CaptureQueriesContext(connection) as captured:
        content = operator.get(LIST).content
    fetched = " ".join(query["sql"] for query in captured)
    assert [
        name
        for name in ("response", "system_prompt", "messages", "parameters", "reasoning", "tool_calls", "metadata")
        if f'"chat_interaction"."{name}"' in fetched
    ] == []
    assert len(content) < 200_000


def links(response: Any) -> dict[str, str]:
    """The foot's links to other pages by their names."""
    foot = response.content.decode().split('aria-label="Pages"')[1].split("</nav>")[0]
    return {name: LIST + unescape(address) for address, name in re.findall(r'<a href="([^"]+)"[^>]*>(\w+)</a>', foot)}


def test_pages_follow_each_other_both_ways(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InteractionAdmin, "list_per_page", 2)
    rows = [InteractionFactory.create().pk for _ in range(5)][::-1]
    InteractionFactory.create(user_id="ben")
    pages, url = [], f"{LIST}?user=ana"
    while url:
        response = operator.get(url)
        pages.append(shown(response))
        url = links(response).get("Older", "")
    assert pages == [rows[:2], rows[2:4], rows[4:]]
    assert "1 interaction," in text_of(response)
    last = links(response)
    assert set(last) == {"Newest", "Newer"}
    assert shown(operator.get(last["Newest"])) == rows[:2]
    middle = operator.get(last["Newer"])
    assert shown(middle) == rows[2:4]
    assert set(links(middle)) == {"Newest", "Newer", "Older", "Oldest"}
    assert shown(operator.get(links(middle)["Newer"])) == rows[:2]
    assert shown(operator.get(links(middle)["Oldest"])) == rows[3:]
    assert set(links(operator.get(f"{LIST}?user=ana"))) == {"Older", "Oldest"}


@pytest.mark.parametrize("query", ["before=abc", "after=7"])
def test_page_that_is_not_there_leads_back_to_the_list(operator: Client, query: str) -> None:
    row = InteractionFactory.create()
    response = operator.get(f"{LIST}?user=ana&{query}", follow=True)
    assert response.redirect_chain == [(f"{LIST}?user=ana", 302)]
    assert shown(response) == [row.pk]
    assert "That page is not there. Here is the newest one." in response.content.decode()


def test_list_says_how_far_it_has_looked_and_goes_on(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "STEP", 3)
    monkeypatch.setattr(walking, "MOST", 3)
    wanted = InteractionFactory.create(failed=True, age=dt.timedelta(days=1))
    for _ in range(4):
        InteractionFactory.create()
    response = operator.get(f"{LIST}?status=failed")
    assert shown(response) == []
    assert re.search(r"Looked back to [\d-]+ [\d:]+ UTC, nothing found so far. Search older", text_of(response))
    assert shown(operator.get(links(response)["Older"])) == [wanted.pk]


def test_list_of_a_database_that_is_too_slow_says_what_to_do(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def page(*args: Any, **kwargs: Any) -> None:
        raise walking.TooSlow

    monkeypatch.setattr(walking, "page", page)
    assert "This was stopped after 2 seconds. Choose a shorter time" in text_of(operator.get(LIST))


def test_number_of_statements_about_the_record_is_small(operator: Client, owner: Person) -> None:
    InteractionFactory.create(organization=owner.organization)
    for query in ("", "status=failed", f"organization={owner.organization.pk}&user=ana", "q=parcel"):
        with CaptureQueriesContext(connection) as captured:
            operator.get(f"{LIST}?{query}")
        assert len([entry for entry in captured if '"chat_interaction"' in entry["sql"]]) <= 4, query


def test_nothing_is_counted_for_each_filter(operator: Client) -> None:
    InteractionFactory.create()
    with CaptureQueriesContext(connection) as plain:
        # Without any parameter it is looked for a filter that the person saved as the first.
        assert "Show counts" not in operator.get(f"{LIST}?q=").content.decode()
    with CaptureQueriesContext(connection) as asked:
        operator.get(f"{LIST}?_facets=True")
    assert len(asked) == len(plain)


def test_empty_list_says_what_will_come(operator: Client) -> None:
    content = text_of(operator.get(LIST))
    assert "No interactions yet" in content
    assert "Show all" not in content


def test_search_without_a_match_offers_everything(operator: Client) -> None:
    InteractionFactory.create()
    assert "Nothing matches No interaction fits this search and these filters. Show all" in text_of(
        operator.get(f"{LIST}?q=elephant")
    )


# --- Filters and search --------------------------------------------------------------------------------------------
@pytest.fixture
def kinds(owner: Person, stranger: Person) -> dict[str, Interaction]:
    mine, theirs = owner.organization, stranger.organization
    day = dt.timedelta(days=1)
    return {
        "plain": InteractionFactory.create(organization=mine),
        "old": InteractionFactory.create(organization=mine, age=10 * day, user_id="ben"),
        "failed": InteractionFactory.create(organization=mine, failed=True, age=2 * day),
        "cancelled": InteractionFactory.create(organization=mine, cancelled=True, age=2 * day),
        "rescued": InteractionFactory.create(organization=mine, rescued=True, age=2 * day),
        "tools": InteractionFactory.create(organization=mine, tools=True, age=2 * day),
        "unpriced": InteractionFactory.create(organization=theirs, unpriced=True, plan="free", age=2 * day),
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("period=hour", {"plain"}),
        ("period=week", {"plain", "failed", "cancelled", "rescued", "tools", "unpriced"}),
        ("status__exact=failed&status__exact=cancelled", {"failed", "cancelled"}),
        ("user=ben", {"old"}),
        ("user=be", set()),
        ("provider=ollama", {"unpriced"}),
        ("model=*QWEN*", {"unpriced"}),
        ("asked=groq/llama*", {"rescued"}),
        ("endpoint__exact=completions", {"tools"}),
        ("plan=free", {"unpriced"}),
        ("price=unpriced", {"unpriced"}),
        ("price=priced", {"plain", "old", "cancelled", "rescued", "tools"}),
        ("streamed__exact=1", {"cancelled"}),
        ("fallback__exact=1", {"rescued"}),
    ],
)
def test_filter(operator: Client, kinds: dict[str, Interaction], query: str, expected: set[str]) -> None:
    found = set(shown(operator.get(f"{LIST}?{query}")))
    assert {name for name, row in kinds.items() if row.pk in found} == expected


def test_filter_by_organization(operator: Client, kinds: dict[str, Interaction], stranger: Person) -> None:
    response = operator.get(f"{LIST}?organization__id__exact={stranger.organization.pk}")
    assert shown(response) == [kinds["unpriced"].pk]
    assert "Umbrella" in response.content.decode().split('id="changelist-filter"')[1]


@pytest.mark.parametrize("query", ["id__lt=abc", "status__nonsense=1", "prompt__contains=x"])
def test_filter_that_makes_no_sense_leads_back_to_the_list(operator: Client, query: str) -> None:
    response = operator.get(f"{LIST}?{query}")
    assert (response.status_code, response.headers.get("Location")) == (302, f"{LIST}?e=1")


def test_days_of_a_range_are_both_included(operator: Client) -> None:
    moments = [
        dt.datetime(2026, 3, day, hour, minute, second, tzinfo=dt.UTC)
        for day, hour, minute, second in ((1, 23, 59, 59), (2, 0, 0, 0), (3, 23, 59, 59), (4, 0, 0, 0))
    ]
    rows = [InteractionFactory.create(id=id_at(moment)) for moment in moments]
    found = shown(operator.get(f"{LIST}?created_at_from=2026-03-02&created_at_to=2026-03-03"))
    assert found == [rows[2].pk, rows[1].pk]


def test_moments_of_a_span_are_exact(operator: Client) -> None:
    since = dt.datetime(2026, 3, 2, 14, tzinfo=dt.UTC)
    until = since + dt.timedelta(minutes=1)
    moments = (since - dt.timedelta(milliseconds=1), since, until - dt.timedelta(milliseconds=1), until)
    rows = [InteractionFactory.create(id=id_at(moment)) for moment in moments]
    assert shown(operator.get(LIST, {"span": filters.span(since, until)})) == [rows[2].pk, rows[1].pk]
    assert shown(operator.get(LIST, {"span": "2026-03-02 14:00/2026-03-02T16:01+02:00"})) == [rows[2].pk, rows[1].pk]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("span=yesterday", "is no interval. Give one such as"),
        ("span=a/b", "is no moment. Give one such as"),
        ("created_at_to=2026-02-30", "is no moment. Give one such as"),
        ("period=nonsense", "It is one of hour, day, week, month."),
        ("organization__id__exact=7", "There is no organization “7”."),
        ("q=a%00b", "has a NUL character in it"),
        ("q=%26+%7C", "There is no word in"),
        ("q=" + "x" * 100_000, "is too long"),
    ],
)
def test_filter_that_makes_no_sense_is_told_and_left_out(operator: Client, query: str, words: str) -> None:
    row = InteractionFactory.create()
    response = operator.get(f"{LIST}?user=ana&{query}", follow=True)
    assert response.redirect_chain == [(f"{LIST}?user=ana", 302)]
    assert words in unescape(response.content.decode())
    assert shown(response) == [row.pk]


def test_search_finds_words_of_prompt_response_and_user(operator: Client) -> None:
    row = InteractionFactory.create(prompt="Where is my parcel?", response="On its way.", user_id="zoe")
    InteractionFactory.create()
    for words in ("parcel", "WAY its", "zoe"):
        assert shown(operator.get(LIST, {"q": words})) == [row.pk]


def test_search_finds_ids(operator: Client) -> None:
    conversation = ConversationFactory.create()
    row = InteractionFactory.create(
        conversation=conversation, trace_id="trace-77", request_id="019289e0-0000-7000-8000-0000000000aa"
    )
    InteractionFactory.create(prompt=f"Why did {row.pk} fail?")
    for identifier in (row.pk, f" {row.pk} ", row.pk.hex, conversation.pk, "trace-77", row.request_id):
        assert shown(operator.get(LIST, {"q": str(identifier)})) == [row.pk]


def test_search_for_an_id_reads_no_text(operator: Client) -> None:
    row = InteractionFactory.create()
    with CaptureQueriesContext(connection) as captured:
        operator.get(LIST, {"q": str(row.pk)})
    assert [query["sql"] for query in captured if "LIKE" in query["sql"]] == []


# --- The page of one ------------------------------------------------------------------------------------------------
def test_page_tells_the_whole_exchange(operator: Client, owner: Person) -> None:
    conversation = ConversationFactory.create(organization=owner.organization, title="Weather")
    row = InteractionFactory.create(
        organization=owner.organization,
        api_key=owner.key,
        conversation=conversation,
        rescued=True,
        system_prompt="Be brief.",
        history_messages=2,
        reasoning="They want the steps.",
        metadata={"page": "/billing"},
        request_id="mine-1",
    )
    response = operator.get(page_of(row))
    content = text_of(response)
    for words in (
        "Succeeded groq/llama-3.1-8b-instant → gemini-2.0-flash by gemini retry ×1 fallback",
        "Cost $0.0000205 Tokens 70 25 in, 45 out Latency 2.84 s provider 948 ms First token 2.21 s Finish reason stop",
        "2 earlier messages of the conversation went along. System Copy Be brief. User Copy How do I cancel",
        "Answer Copy Reasoning They want the steps. Open Settings, choose Billing",
        "Organization Acme Plan then unlimited User ana API key owner",
        "Conversation Weather Endpoint /v1/chat",
        "Caller's request id mine-1",
        "page /billing",
        '{ "temperature": 0.7 }',
        "1 llama-3.1-8b-instant groq Failed provider_unavailable Connection refused.",
        "2 llama-3.1-8b-instant groq Failed provider_rate_limited · 429",
        "3 gemini-2.0-flash gemini Succeeded STOP",
    ):
        assert escape(words).replace("&#x27;", "&#x27;") in content or words in content, words
    links = re.findall(r'<dd><a href="([^"]+)"', response.content.decode())
    assert links == [
        reverse("admin:accounts_organization_change", args=[owner.organization.pk]),
        reverse("admin:accounts_apikey_change", args=[owner.key.pk]),
        reverse("admin:chat_conversation_change", args=[conversation.pk]),
    ]


def test_page_of_a_failure_shows_the_error(operator: Client) -> None:
    row = InteractionFactory.create(failed=True)
    content = text_of(operator.get(page_of(row)))
    assert "provider_unavailable provider_error gemini could not be reached: connection refused." in content
    assert "No answer came." in content


def test_page_of_a_broken_answer_says_that_it_ends_there(operator: Client) -> None:
    row = InteractionFactory.create(cancelled=True)
    assert "The answer ends here: the exchange was cancelled." in text_of(operator.get(page_of(row)))


def test_page_lays_out_tool_calls(operator: Client) -> None:
    row = InteractionFactory.create(tools=True)
    content = operator.get(page_of(row)).content.decode()
    assert escape(json.dumps(json.loads(TOOL_CALLS[0]["function"]["arguments"]), indent=2)) in content


def test_page_of_an_interaction_without_attempts_or_texts(operator: Client) -> None:
    row = InteractionFactory.create(
        attempt=None, prompt="", response="", parameters={}, latency_ms=None, erased_at=timezone.now()
    )
    content = text_of(operator.get(page_of(row)))
    assert "The texts of this interaction were erased on" in content
    assert "No text is on record" in content
    assert "No provider was called." in content
    assert "Copy as curl" not in content


def test_stored_markup_is_shown_as_text(operator: Client, owner: Person) -> None:
    row = InteractionFactory.create(
        markup=True,
        organization=owner.organization,
        model=MARKUP[:200],
        system_prompt=MARKUP,
        reasoning=MARKUP,
        error_code="<b>",
        error_message=MARKUP,
        tool_calls=[{"function": {"name": MARKUP, "arguments": MARKUP}}],
        parameters={"stop": MARKUP},
        conversation=ConversationFactory.create(organization=owner.organization, title=MARKUP),
    )
    Attempt.objects.update(error_code="<b>", error_message=MARKUP, model=MARKUP[:200], upstream_request_id=MARKUP[:200])
    for path in (LIST, page_of(row), reverse("admin:chat_conversation_change", args=[row.conversation_id]), "/admin/"):
        content = operator.get(path).content.decode()
        assert "<script>document.title" not in content
        assert "<img src=x" not in content
        assert "<b>" not in content


def test_long_text_is_cut_on_the_page_and_whole_in_the_download(operator: Client) -> None:
    row = InteractionFactory.create(long=True, response="")
    page = operator.get(page_of(row))
    hidden = len(row.prompt) - 50_000
    assert hidden > 0
    assert f"{hidden} more characters are not shown." in text_of(page)
    assert json.loads(operator.get(f"{LIST}{row.pk}/download/").content)["prompt"] == row.prompt


def test_download_holds_row_and_attempts(operator: Client) -> None:
    row = InteractionFactory.create(rescued=True)
    response = operator.get(f"{LIST}{row.pk}/download/")
    assert response.headers["Content-Disposition"] == f'attachment; filename="interaction-{row.pk}.json"'
    found = json.loads(response.content)
    assert set(found) == {
        field.attname.removesuffix("_id") if field.is_relation else field.name
        for field in Interaction._meta.concrete_fields
    } | {"attempts"}
    assert found["cost"] == "0.000020500000"
    assert [attempt["error_code"] for attempt in found["attempts"]] == [
        "provider_unavailable",
        "provider_rate_limited",
        "",
    ]


# --- Who may what ---------------------------------------------------------------------------------------------------
def test_facts_cannot_be_changed_by_anybody(operator: Client, owner: Person) -> None:
    row = InteractionFactory.create(organization=owner.organization)
    before = Interaction.objects.values().get()
    for client in (operator, browser_of(owner.user)):
        assert client.get(f"{LIST}add/").status_code == 403
        assert client.get(f"{LIST}{row.pk}/delete/").status_code == 403
        assert client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"}).status_code == 403
        assert client.post(page_of(row), {"prompt": "changed", "status": "failed"}).status_code == 403
        client.post(LIST, {"action": "delete_selected", "_selected_action": [str(row.pk)], "post": "yes"})
        content = client.get(page_of(row)).content.decode()
        assert 'name="_save"' not in content
        assert "deletelink" not in content
        offered = re.findall(r'<option value="(\w+)"', client.get(LIST).content.decode().split('name="action"')[1])
        assert offered[:1] == ["compare_selected"]
        assert "delete_selected" not in offered
    assert Interaction.objects.values().get() == before
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize("role", Membership.Role.values)
def test_every_role_reads_its_organizations_record_and_no_other(owner: Person, stranger: Person, role: str) -> None:
    mine = InteractionFactory.create(organization=owner.organization)
    theirs = InteractionFactory.create(organization=stranger.organization, prompt="A secret of Umbrella")
    client = browser_of(MembershipFactory.create(organization=owner.organization, role=role).user)
    assert shown(client.get(LIST)) == [mine.pk]
    assert client.get(page_of(mine)).status_code == 200
    assert client.get(f"{LIST}{mine.pk}/download/").status_code == 200
    refused = client.get(page_of(theirs), follow=True)
    assert refused.redirect_chain == [(reverse("admin:index"), 302)]
    assert "A secret of Umbrella" not in refused.content.decode()
    assert client.get(f"{LIST}{theirs.pk}/download/").status_code == 404
    for query in (
        {"q": str(theirs.pk)},
        {"q": "secret"},
        {"organization__id__exact": str(stranger.organization.pk)},
    ):
        response = client.get(LIST, query)
        assert shown(response) == []
        assert "Umbrella" not in text_of(response)


def test_member_of_several_organizations_filters_by_them_only(owner: Person, stranger: Person) -> None:
    member = MembershipFactory.create(organization=owner.organization).user
    MembershipFactory.create(user=member, organization__name="Initech")
    InteractionFactory.create(organization=owner.organization)
    client = browser_of(member)
    assert "Acme" in client.get(LIST, {"organization__id__exact": str(owner.organization.pk)}).content.decode()
    response = client.get(LIST, {"organization__id__exact": str(stranger.organization.pk)})
    assert "Umbrella" not in response.content.decode()


def test_staff_without_an_organization_see_no_record(db: None) -> None:
    row = InteractionFactory.create()
    client = browser_of(UserFactory.create())
    assert client.get(LIST).status_code == 403
    assert client.get(page_of(row)).status_code in {302, 403}
    assert client.get(f"{LIST}{row.pk}/download/").status_code == 404


def test_people_who_are_no_staff_are_sent_to_the_log_in(owner: Person) -> None:
    row = InteractionFactory.create(organization=owner.organization)
    User.objects.filter(pk=owner.user.pk).update(is_staff=False)
    client = browser_of(User.objects.get(pk=owner.user.pk))
    for path in (LIST, page_of(row), f"{LIST}{row.pk}/download/"):
        assert client.get(path).headers["Location"].startswith("/admin/login/")


def test_reference_to_a_row_that_is_gone_is_left_out(operator: Client, owner: Person) -> None:
    conversation = ConversationFactory.create(organization=owner.organization, title="Gone")
    row = InteractionFactory.create(organization=owner.organization, conversation=conversation)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM chat_conversation")
    content = text_of(operator.get(page_of(row)))
    assert "Conversation" not in content.split("Facts", 1)[1].split("Endpoint")[0]
    assert row.status == Status.SUCCEEDED
