"""Which interactions are meant: from texts to rows, and back."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from django.http import QueryDict
from django.utils import timezone

from accounts.tests.fixtures import Person
from chat import selection
from chat.models import Interaction
from chat.selection import Selection, SelectionError
from chat.tests.factories import ConversationFactory, InteractionFactory


def read(query: str) -> Selection:
    """The selection of a query string."""
    return selection.parse(dict(QueryDict(query).lists()))


@pytest.fixture
def kinds(owner: Person, stranger: Person) -> dict[str, Interaction]:
    mine, theirs = owner.organization, stranger.organization
    day = dt.timedelta(days=1)
    return {
        "plain": InteractionFactory.create(organization=mine, api_key=owner.key, trace_id="trace-1"),
        "old": InteractionFactory.create(organization=mine, age=40 * day, user_id="ben", request_id="mine-7"),
        "failed": InteractionFactory.create(organization=mine, failed=True, age=2 * day, model="", provider=""),
        "cancelled": InteractionFactory.create(
            organization=mine, cancelled=True, age=2 * day, metadata={"page": "a=b"}
        ),
        "rescued": InteractionFactory.create(organization=mine, rescued=True, age=2 * day, metadata={"1": "x"}),
        "tools": InteractionFactory.create(organization=mine, tools=True, age=2 * day, cached=True),
        "unpriced": InteractionFactory.create(organization=theirs, unpriced=True, plan="free", age=2 * day),
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("period=hour", {"plain"}),
        ("period=month", {"plain", "failed", "cancelled", "rescued", "tools", "unpriced"}),
        ("status=failed&status=cancelled", {"failed", "cancelled"}),
        ("user=ben", {"old"}),
        ("user=be", set()),
        ("organization=Acme&user=ben", {"old"}),
        ("organization=Umbrella", {"unpriced"}),
        ("provider=ollama", {"unpriced"}),
        ("provider=-", {"failed"}),
        ("model=ollama/qwen3:4b", {"unpriced"}),
        ("model=*QWEN*", {"unpriced"}),
        ("model=qwen", set()),
        ("model=-", {"failed"}),
        ("asked=groq/*instant", {"rescued"}),
        ("error=provider_unavailable", {"failed"}),
        ("error=*", {"failed"}),
        ("route=*FALLBACK_ORDER", {"rescued"}),
        ("endpoint=completions", {"tools"}),
        ("plan=free", {"unpriced"}),
        ("price=unpriced", {"unpriced"}),
        ("price=priced", {"plain", "old", "cancelled", "rescued", "tools"}),
        ("streamed=1", {"cancelled"}),
        ("fallback=yes", {"rescued"}),
        ("cached=true", {"tools"}),
        ("trace=trace-1", {"plain"}),
        ("request=mine-7", {"old"}),
        ("metadata=page", {"cancelled"}),
        ("metadata=page%3Da%3Db", {"cancelled"}),
        ("metadata=page%3Da", set()),
        ("metadata=1%3Dx", {"rescued"}),
        ("metadata=page&metadata=1", set()),
        ("metadata=%27%22%29--", set()),
        ("q=A-1042", {"tools"}),
        ('q="cancel my" settings', {"plain", "old", "cancelled", "rescued", "unpriced"}),
        ("q=subscription+-billing", {"failed", "cancelled"}),
        ("status=&user=&nonsense=1", {"plain", "old", "failed", "cancelled", "rescued", "tools", "unpriced"}),
    ],
)
def test_selects(kinds: dict[str, Interaction], query: str, expected: set[str]) -> None:
    chosen = read(query)
    found = set(chosen.rows().values_list("pk", flat=True))
    assert {name for name, row in kinds.items() if row.pk in found} == expected
    # There and back: as an address, and as JSON.
    assert read(chosen.parameters()) == chosen
    assert selection.parse(json.loads(json.dumps(chosen.values()))) == chosen


def test_selects_by_key_and_conversation(owner: Person) -> None:
    conversation = ConversationFactory.create(organization=owner.organization)
    row = InteractionFactory.create(organization=owner.organization, api_key=owner.key, conversation=conversation)
    InteractionFactory.create(organization=owner.organization)
    for query in (f"key={owner.key.pk}", f"conversation={conversation.pk}"):
        assert list(read(query).rows()) == [row]


def test_begins_with_since_and_ends_before_until() -> None:
    chosen = read("since=2026-03-02&until=2026-03-04T12:30:00.250%2B02:00")
    assert chosen.bounds() == (
        dt.datetime(2026, 3, 2, tzinfo=dt.UTC),
        dt.datetime(2026, 3, 4, 10, 30, 0, 250_000, tzinfo=dt.UTC),
    )
    assert read("since=2026-03-02T14:00 02:00") == read("since=2026-03-02T12:00Z")


def test_days_of_a_range_are_both_included() -> None:
    assert read("created_at_from=2026-03-02&created_at_to=2026-03-03") == read("since=2026-03-02&until=2026-03-04")


def test_interval_says_both_ends() -> None:
    assert read("span=2026-03-02T00:00Z/2026-03-04") == read("since=2026-03-02&until=2026-03-04")


def test_period_ends_now_and_a_later_beginning_holds() -> None:
    now = timezone.now()
    assert read("period=day").bounds(now=now) == (now - dt.timedelta(days=1), None)
    later = Selection(period="day", since=now - dt.timedelta(hours=1))
    assert later.bounds(now=now) == (now - dt.timedelta(hours=1), None)


@pytest.mark.parametrize(
    ("query", "name", "words"),
    [
        ("period=nonsense", "period", "It is one of hour, day, week, month."),
        ("since=yesterday", "since", "is no moment. Give one such as 2026-05-31"),
        ("since=2026-02-30", "since", "is no moment"),
        ("until=9999-12-31", "until", "is no moment"),
        ("created_at_to=0001-01-01", "created_at_to", "is no moment"),
        ("since=2026-03-02&created_at_from=2026-03-02", "created_at_from", "Give one of them"),
        ("since=2026-03-02&until=2026-03-02", "until", "is not before until"),
        ("span=2026-03-02", "span", "is no interval"),
        ("span=2026-03-02/", "span", "is no interval"),
        ("span=a/b", "since", "is no moment"),
        ("status=late", "status", "It is one of succeeded, failed, cancelled, interrupted."),
        ("organization=Nobody", "organization", "There is no organization “Nobody”."),
        ("key=7", "key", "is no id"),
        ("cached=perhaps", "cached", "It is yes or no."),
        ("user=ana&user=ben", "user", "was given 2 times"),
        ("user=a%00b", "user", "NUL"),
        ("metadata=%3Dx", "metadata", "names no key"),
        ("q=%26+%7C+%21+()+-+%22%22", "q", "There is no word in"),
        ("q=-only+-without", "q", "There is no word in"),
        ("q=" + "x" * 100_000, "q", "is too long: 1,000 characters at most."),
    ],
)
@pytest.mark.django_db
def test_what_makes_no_sense_is_refused_in_words(query: str, name: str, words: str) -> None:
    with pytest.raises(SelectionError) as refused:
        read(query)
    assert refused.value.name == name
    assert words in str(refused.value)


@pytest.mark.parametrize("value", [{"a": 1}, [1.5], [["x"]], 2.5])
def test_stored_value_of_another_shape_is_refused(value: Any) -> None:
    with pytest.raises(SelectionError, match="must be a text or a list of texts"):
        selection.parse({"user": value})


def test_only_the_names_asked_for_are_read() -> None:
    assert selection.parse({"user": "ana", "since": "rubbish"}, names=("user",)) == Selection(user="ana")
