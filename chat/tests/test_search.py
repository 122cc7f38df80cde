"""Words of prompts and responses: rows that have them, page by page, on either database."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.fixtures import Person
from chat import search_index, services, tasks, walking
from chat.models import Interaction, SearchState
from chat.search import Term, terms
from chat.selection import Selection
from chat.tests.factories import ConversationFactory, InteractionFactory

pytestmark = pytest.mark.django_db


def found(q: str = "", **chosen: Any) -> list[Interaction]:
    """What a search finds on its first page, once everything is indexed."""
    search_index.fill()
    return walking.page(Interaction.objects.all(), Selection(q=q, **chosen)).rows


def all_pages(chosen: Selection, *, limit: int, is_rising: bool = False) -> list[list[Any]]:
    """The ids of each page, following it to the end."""
    pages: list[list[Any]] = []
    cursor: dict[str, Any] = {"after": walking.FIRST} if is_rising else {}
    for _ in range(200):
        page = walking.page(Interaction.objects.all(), chosen, limit=limit, **cursor)
        pages.append([row.pk for row in page.rows])
        if page.has_more:
            cursor = {"after": page.rows[0].pk} if is_rising else {"before": page.rows[-1].pk}
        elif page.looked_to is not None:
            cursor = {"after" if is_rising else "before": page.looked_to}
        else:
            return pages
    raise AssertionError("The pages do not end.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("parcel", [Term("parcel")]),
        ('parcel "on  its way" -refund', [Term("parcel"), Term("on its way"), Term("refund", is_excluded=True)]),
        ('-"on its way" lost', [Term("on its way", is_excluded=True), Term("lost")]),
        ('"never closed', [Term("never closed")]),
        ("a a", [Term("a")]),
        ("& | ! () :* <-> '' % \\", []),
        ("-only", []),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[Term]) -> None:
    assert terms(text) == expected


def test_a_search_has_no_end_of_terms() -> None:
    assert len(terms(" ".join(f"word{number}" for number in range(1000)))) == 20


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("parcel", {"lost", "late"}),
        ("PARCEL late", {"late"}),
        ('"is my parcel"', {"lost"}),
        ('"my is parcel"', set()),
        ("parcel -late", {"lost"}),
        ('parcel -"on its way"', {"late"}),
        ("Ünïcode", {"odd"}),
        ("O'Reilly", {"odd"}),
        ("zoe", {"odd"}),
        ("req/7", {"odd"}),
        ("foreign-1", {"odd"}),
        ("'; DROP TABLE chat_interaction; --", set()),
        ("par_el", set()),
        ("a:* & !b <-> c", set()),
        ("=o" + "0" * 32, set()),
    ],
)
def test_search(q: str, expected: set[str]) -> None:
    rows = {
        "lost": InteractionFactory.create(prompt="Where is my parcel?", response="On its way."),
        "late": InteractionFactory.create(prompt="The parcel", response="comes late, on its own way."),
        "odd": InteractionFactory.create(
            prompt="Ünïcode, by O'Reilly", user_id="zoe", request_id="req/7", trace_id="foreign-1"
        ),
        "plain": InteractionFactory.create(),
    }
    pks = {row.pk for row in found(q)}
    assert {name for name, row in rows.items() if row.pk in pks} == expected


def test_search_and_filters_go_together(owner: Person, stranger: Person) -> None:
    mine = InteractionFactory.create(organization=owner.organization, prompt="A parcel", failed=True)
    InteractionFactory.create(organization=owner.organization, prompt="A parcel")
    theirs = InteractionFactory.create(organization=stranger.organization, prompt="A parcel", user_id="zoe")
    assert found("parcel", organization=owner.organization.pk, status=("failed",)) == [mine]
    assert found("parcel", user="zoe") == [theirs]
    assert found("parcel", user="zoe", organization=owner.organization.pk) == []


def test_metadata_user_and_foreign_request_id_are_found(owner: Person) -> None:
    row = InteractionFactory.create(
        metadata={"page": "/it's=here", "long": "x" * 900}, user_id="it's", trace_id="a'b\\c"
    )
    InteractionFactory.create(metadata={"page": "/"})
    for chosen in (
        {"metadata": ("page=/it's=here",)},
        {"metadata": ("long",)},
        {"metadata": ("long=" + "x" * 900,)},
        {"user": "it's"},
        {"trace": "a'b\\c"},
    ):
        assert found(**chosen) == [row]
    assert found(metadata=("long=" + "x" * 899,)) == []


@pytest.mark.parametrize("is_rising", [False, True])
@pytest.mark.parametrize("text", ["parcel", ""])
def test_pages_have_each_row_once_and_in_order(monkeypatch: pytest.MonkeyPatch, text: str, is_rising: bool) -> None:
    monkeypatch.setattr(walking, "STEP", 2)
    monkeypatch.setattr(walking, "MOST", 5)
    monkeypatch.setattr(search_index, "NEAR", 3)
    monkeypatch.setattr(search_index, "MOST", 4)
    monkeypatch.setattr(search_index, "BATCH", 7)
    ages = [dt.timedelta(hours=hours) for hours in (0, 1, 2, 30, 31, 80, 200, 201, 202, 203, 204, 2000, 9000)]
    rows = [
        InteractionFactory.create(age=age, prompt="A parcel" if number % 3 else "Nothing", cached=bool(number % 3))
        for number, age in enumerate(ages)
    ]
    search_index.fill()
    wanted = [row.pk for number, row in enumerate(rows) if number % 3]
    chosen = Selection(q=text) if text else Selection(cached=True)
    for limit in (1, 2, 5, 50):
        pages = all_pages(chosen, limit=limit, is_rising=is_rising)
        if is_rising:
            pages.reverse()
        assert [pk for page in pages for pk in page] == wanted


def test_page_tells_how_far_it_has_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "STEP", 2)
    monkeypatch.setattr(walking, "MOST", 4)
    rows = [InteractionFactory.create() for _ in range(9)]
    page = walking.page(Interaction.objects.all(), Selection(error="never"))
    assert page == walking.Page(rows=[], has_more=False, looked_to=rows[5].pk)


def test_rows_of_several_organizations_come_in_one_order(owner: Person, stranger: Person) -> None:
    organizations = [owner.organization, stranger.organization]
    rows = [InteractionFactory.create(organization=organizations[number % 2]) for number in range(5)]
    InteractionFactory.create()
    page = walking.page(
        Interaction.objects.all(), Selection(), organizations=[row.pk for row in organizations], limit=3
    )
    assert (page.rows, page.has_more) == (rows[:1:-1], True)
    assert walking.page(Interaction.objects.all(), Selection(), organizations=[]).rows == []


def test_statements_of_a_page_stay_few(owner: Person) -> None:
    for _ in range(3):
        InteractionFactory.create()
    with CaptureQueriesContext(connection) as captured:
        walking.page(Interaction.objects.all(), Selection(error="never"))
    assert len([query for query in captured if "chat_interaction" in query["sql"]]) == 2


# --- PostgreSQL's index ----------------------------------------------------------------------------------------------
@pytest.fixture
def entries() -> Any:
    """The number of entries in the index."""
    if connection.vendor != "postgresql":
        pytest.skip("Only PostgreSQL has an index of words")

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM chat_searchentry")
            return cursor.fetchone()[0]

    return count


def test_what_comes_late_is_indexed_too(entries: Any) -> None:
    InteractionFactory.create()
    assert search_index.fill() == 1
    assert search_index.is_ready()
    InteractionFactory.create(age=dt.timedelta(days=40))
    assert search_index.fill() == 1
    assert search_index.fill() == 0


def test_what_has_its_words_costs_a_round_nothing(entries: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "BATCH", 2)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert search_index.fill() == 0
        return len(captured)

    InteractionFactory.create_batch(3)
    assert search_index.fill() == 3
    few = queries()
    InteractionFactory.create_batch(30)
    assert search_index.fill() == 30
    assert (entries(), queries()) == (33, few)


def test_filling_stops_in_time_and_goes_on(entries: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "BATCH", 2)
    for number in range(7):
        InteractionFactory.create(age=dt.timedelta(days=number))
    search_index.fill(seconds=0)
    assert (entries(), search_index.is_ready()) == (2, False)
    while not search_index.is_ready():
        search_index.fill(seconds=0)
    assert entries() == 7


def test_erased_words_leave_the_index_at_once(entries: Any) -> None:
    conversation = ConversationFactory.create()
    InteractionFactory.create(conversation=conversation, prompt="A parcel")
    gone = InteractionFactory.create(prompt="A parcel")
    assert len(found("parcel")) == 2
    services.delete_conversation(conversation)
    Interaction.objects.filter(pk=gone.pk).delete()
    assert (entries(), found("parcel")) == (0, [])


def test_what_an_erasure_left_behind_is_cleaned_up(entries: Any) -> None:
    row = InteractionFactory.create(prompt="A parcel", erased_at=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO chat_searchentry VALUES (%s, to_tsvector('simple', 'parcel'))", [row.pk])
    search_index.fill()
    assert entries() == 0


def test_a_rare_word_is_looked_for_in_the_index(entries: Any) -> None:
    InteractionFactory.create(prompt="A parcel", age=dt.timedelta(days=9))
    InteractionFactory.create()
    search_index.fill()
    position = InteractionFactory.create().pk
    with CaptureQueriesContext(connection) as captured:
        list(search_index.steps(Selection(q="parcel"), position=position, is_rising=False))
    assert SearchState.objects.get().is_whole
    assert len(captured) < 40


def test_words_take_one_thread_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are for the roll-ups, however many words wait."""
    rounds: list[str] = []

    def fill(**_: Any) -> int:
        rounds.append("outer" if not rounds else "inner")
        tasks.index_words()
        return 0

    monkeypatch.setattr(search_index, "fill", fill)
    tasks.index_words()
    assert rounds == ["outer"]
    tasks.index_words()
    assert rounds == ["outer", "inner"]
