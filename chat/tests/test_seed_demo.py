"""`manage.py seed_demo`: the same every time, whole or not at all, right by every invariant, never among real rows."""

from __future__ import annotations

import io
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.models import Count, Max
from pytest_django import Settings

from accounts.models import APIKey, Organization, Plan
from chat import partitions, verification
from chat.demo import bulk, echoes, shapes, story
from chat.models import Attempt, Change, Conversation, Interaction, Status
from chat.tests.factories import InteractionFactory
from chat.verification import Breach, Window

# Copying goes through a connection of its own.
pytestmark = pytest.mark.django_db(transaction=True)

UNTIL = "2026-11-20T12:00Z"


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "CHUNK", 250)


@pytest.fixture(autouse=True)
def _nothing_is_rolled_up(settings: Settings) -> None:
    """Adding up every hour's rows is what takes long in a proof, and is right as long as the hour is noted."""
    settings.RECORD_INVARIANTS = ["chat.verification.INVARIANTS"]


@pytest.fixture(autouse=True)
def _plans() -> None:
    for slug in ("free", "premium", "enterprise", "unlimited"):
        Plan.objects.get_or_create(slug=slug, defaults={"name": slug})


def seed(count: int = 1_000, **options: Any) -> str:
    out = io.StringIO()
    call_command("seed_demo", interactions=count, until=UNTIL, stdout=out, stderr=io.StringIO(), **options)
    return out.getvalue()


def breaches() -> list[Any]:
    """What is wrong with the record; and the hours with rows that nobody is told to roll up."""
    found = [found for found in verification.verify(Window()) if isinstance(found, Breach)]
    written, noted = (
        {moment.replace(minute=0, second=0, microsecond=0) for moment in moments}
        for moments in (
            Interaction.objects.values_list("created_at", flat=True),
            Change.objects.values_list("minute", flat=True),
        )
    )
    return [*found, *sorted(written - noted)]


def record() -> list[Any]:
    return [list(model.objects.order_by("id").values_list()) for model in (Conversation, Interaction, Attempt)]


def test_the_record_is_right_and_has_everything_in_it(settings: Settings) -> None:
    settings.RECORD_INVARIANTS = ["chat.verification.INVARIANTS", "analytics.verification.INVARIANTS"]
    said = seed(2_000, days=60)
    assert said.startswith("2,000 interactions of 4 organizations, 2026-09-21 to 2026-11-20")
    assert breaches() == []
    rows = Interaction.objects.all()
    assert rows.count() == 2_000
    assert set(rows.values_list("status", flat=True)) == set(Status.values)
    assert set(Organization.objects.values_list("plan_id", flat=True)) == set(rows.values_list("plan", flat=True))
    assert set(rows.values_list("plan", flat=True)) == {"free", "premium", "enterprise", "unlimited"}
    assert rows.filter(cost=None, status=Status.SUCCEEDED).exists()
    assert rows.filter(fallback=True).exists()
    assert rows.filter(retries__gt=0).exists()
    assert rows.filter(streamed=True).exists()
    assert rows.filter(prompt__contains="It concerns").exists()
    assert rows.values("provider").distinct().count() > 3
    assert Interaction.objects.values("conversation").annotate(n=Count("id")).aggregate(most=Max("n"))["most"] > 2
    assert Attempt.objects.exclude(price=None).exists()
    assert not APIKey.objects.exclude(organization__in=Organization.objects.all()).exists()


def test_it_lies_in_the_partitions_of_its_months() -> None:
    seed(500)
    if not partitions.is_partitioned():
        pytest.skip("SQLite keeps one table (remedy: --services)")
    names = [partition.name for partition in partitions.partitions("chat_interaction")]
    assert {f"chat_interaction_2026_{month:02d}" for month in (8, 9, 10, 11)} <= set(names)


def test_the_same_arguments_tell_the_same_story(monkeypatch: pytest.MonkeyPatch) -> None:
    seed()
    told = record()
    for model in (Attempt, Interaction, Conversation, APIKey, Organization):
        model.objects.all().delete()
    seed()
    assert record() == told
    assert len(told[1]) == 1_000


def test_another_seed_tells_another_story() -> None:
    seed(300, seed="one")
    first = set(Interaction.objects.values_list("id", flat=True))
    seed(300, seed="two", into_existing=True)
    assert Interaction.objects.count() == 600
    assert Interaction.objects.exclude(id__in=first).count() == 300
    assert breaches() == []


def test_real_rows_are_not_mixed_with_it_unasked() -> None:
    InteractionFactory.create()
    with pytest.raises(CommandError, match="--into-existing"):
        seed()
    assert Interaction.objects.count() == 1
    seed(300, into_existing=True)
    assert Interaction.objects.count() == 301


def test_what_broke_off_goes_on_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    tell, calls = story.Teller.tell, []

    def break_off(teller: story.Teller, chunk: int) -> shapes.Chunk:
        calls.append(chunk)
        if len(calls) == 3:
            raise OperationalError("the database went away")
        return tell(teller, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(story.Teller, "tell", break_off)
        with pytest.raises(CommandError, match=r"went away\. Go on with: manage\.py seed_demo --interactions=1000"):
            seed()
    stored = Interaction.objects.count()
    # Months are there as a whole.
    assert 0 < stored < 500 if partitions.is_partitioned() else stored == 500
    assert breaches() == []
    said = seed()
    assert partitions.is_partitioned() or said.startswith("500 interactions")
    assert Interaction.objects.count() == 1_000
    assert seed().startswith("0 interactions")
    assert breaches() == []


def test_a_month_that_cannot_be_stored_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if not partitions.is_partitioned():
        pytest.skip("SQLite has no months (remedy: --services)")
    attach, attached = partitions.attach, []

    def refuse(table: str, month: Any) -> None:
        attached.append(table)
        if attached.count("chat_interaction") == 2:
            raise OperationalError("the disk is full")
        attach(table, month)

    with monkeypatch.context() as patch:
        patch.setattr(partitions, "attach", refuse)
        with pytest.raises(CommandError, match="the disk is full"):
            seed()
    assert Interaction.objects.values("created_at__month").distinct().count() == 1
    assert breaches() == []
    seed()
    assert Interaction.objects.count() == 1_000
    assert breaches() == []


def test_most_chunks_of_a_long_story_are_echoes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "CHUNK", 50)
    monkeypatch.setattr(echoes, "FULL", 3)
    tell, told = story.Teller.tell, []

    def note(teller: story.Teller, chunk: int) -> Any:
        told.append(chunk)
        return tell(teller, chunk)

    monkeypatch.setattr(story.Teller, "tell", note)
    seed(1_020, days=200)
    rows = Interaction.objects.all()
    assert rows.count() == 1_020
    assert rows.values("trace_id").distinct().count() == 1_020
    assert len(told) < 10
    assert rows.values("prompt").distinct().count() > 200
    assert list(rows.order_by("id").values_list("id")) == list(rows.order_by("created_at", "id").values_list("id"))
    assert breaches() == []
    before = record()
    for model in (Attempt, Interaction, Conversation, APIKey, Organization):
        model.objects.all().delete()
    seed(1_020, days=200)
    assert record() == before


def test_some_answers_are_from_the_cache() -> None:
    seed()
    cached = Interaction.objects.filter(cached=True)
    assert cached.exists()
    assert set(cached.values_list("status", "cost")) == {("succeeded", Decimal(0))}
    assert not Attempt.objects.filter(interaction__in=cached).exists()


def test_texts_are_encrypted_when_there_is_a_key(settings) -> None:
    settings.TEXT_ENCRYPTION_KEYS = (b"k" * 32,)
    seed(300)
    prompt = Interaction.objects.order_by("id").values_list("prompt", flat=True).first()
    assert prompt
    settings.TEXT_ENCRYPTION_KEYS = ()
    assert prompt != Interaction.objects.order_by("id").values_list("prompt", flat=True).first()
    assert breaches() == []


def test_what_makes_no_sense_is_refused() -> None:
    for options in ({"count": 0}, {"days": 0}, {"days": 9999}):
        with pytest.raises(CommandError, match="must be"):
            seed(**options)
    with pytest.raises(CommandError, match="is not a moment"):
        call_command("seed_demo", interactions=1, until="yesterday")


@pytest.mark.parametrize("cost", ["0", "0.000000000001", "0.000012300000", "1", "99.999999999999", "8012.5"])
def test_costs_are_copied_to_the_last_place(cost: str) -> None:
    row = InteractionFactory.create(attempt=None)
    values = Interaction.objects.filter(id=row.id).values_list(*shapes.INTERACTION)[0]
    raw = {
        name: value.int if isinstance(value, UUID) else value
        for name, value in zip(shapes.INTERACTION, values, strict=True)
    }
    for name in ("created_at", "finished_at"):
        raw[name] = int(raw[name].timestamp() * 1000)
    raw |= {"id": raw["id"] + 1, "cost": int(Decimal(cost).scaleb(12))}
    raw |= {"messages": "[]", "tool_calls": "[]", "parameters": "{}", "metadata": "{}"}
    with bulk.writer() as writer:
        writer.write(shapes.Chunk(interactions=[tuple(raw.values())]))
    assert Interaction.objects.get(id=UUID(int=raw["id"])).cost == Decimal(cost)
