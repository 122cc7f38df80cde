"""What plans keep no longer goes, whole months at once, and nothing else; the record stays right and says what went."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import orjson
import pytest
from django.core.management import call_command
from django.utils import timezone

from accounts.models import Organization, Plan
from accounts.tests.factories import OrganizationFactory
from chat import partitions, quarantine, retention, rows, tasks, verification
from chat.models import Attempt, Change, Conversation, Interaction, QuarantinedExchange, Removal
from chat.rows import ExchangeRows
from chat.tests.factories import ConversationFactory, InteractionFactory
from chat.verification import Breach, Window
from llmchat.lib.uuid7 import floor_at

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE", 0)
    monkeypatch.setattr(retention, "BATCH", 3)


def organization(**keeps: int | None) -> Organization:
    plan = Plan.objects.create(slug=f"plan{Plan.objects.count()}", name="A plan", **keeps)
    return OrganizationFactory.create(plan=plan)


def interaction(of: Organization, *, days: float, **fields: Any) -> Interaction:
    created: Interaction = InteractionFactory.create(organization=of, age=days * DAY, **fields)
    as_if_rolled_up()
    return created


def as_if_rolled_up() -> None:
    """Until it is, an exchange stays (analytics/tests/test_rolling.py)."""
    Change.objects.all().delete()


def removed() -> list[tuple[Any, ...]]:
    return [
        (removal.kind, removal.organization, removal.interactions, removal.conversations)
        for removal in Removal.objects.order_by("id")
    ]


def breaches() -> list[Breach]:
    """What removing could have broken; the factories' rows have faults of their own."""
    at_stake = {"orphans", "tenants", "erasure", "answers", "numbers", "conversations"}
    found = verification.verify(Window())
    return [breach for breach in found if isinstance(breach, Breach) and breach.invariant in at_stake]


def apply(**options: Any) -> str:
    out = io.StringIO()
    call_command("apply_retention", stdout=out, **options)
    return out.getvalue()


def test_without_retention_everything_stays() -> None:
    interaction(organization(), days=5000)
    assert apply() == "Nothing is past its retention.\n"
    assert Interaction.objects.count() == Attempt.objects.count() == 1


def test_exchanges_past_their_plans_days_go_with_their_attempts_and_nobody_elses() -> None:
    short, long = organization(retention_days=30), organization(retention_days=400)
    old = [interaction(short, days=31 + n / 10) for n in range(8)]
    kept = [interaction(short, days=29), interaction(long, days=399), interaction(organization(), days=3000)]
    assert apply().startswith(f"{short}: 8 exchanges, from before {timezone.now() - 30 * DAY:%Y-%m-%d}")
    assert set(Interaction.objects.all()) == set(kept)
    assert not Attempt.objects.filter(interaction_id__in=[row.id for row in old]).exists()
    assert Attempt.objects.count() == 3
    assert removed() == [("exchanges", short, 8, 0)]
    assert breaches() == []


def test_conversations_go_when_nothing_is_left_of_them() -> None:
    owner = organization(retention_days=30)
    moment = timezone.now() - 40 * DAY
    over, goes_on = (
        ConversationFactory.create(
            organization=owner, id=floor_at(moment + n * DAY), created_at=moment, updated_at=moment
        )
        for n in (0, 1)
    )
    interaction(owner, days=39, conversation=over)
    interaction(owner, days=38, conversation=goes_on)
    newest = interaction(owner, days=1, conversation=goes_on)
    Conversation.objects.filter(id=goes_on.id).update(updated_at=newest.created_at)
    Conversation.objects.filter(id=over.id).update(updated_at=moment + DAY)
    apply()
    assert list(Conversation.objects.all()) == [goes_on]
    assert removed() == [("exchanges", owner, 2, 1)]
    assert breaches() == []


def test_texts_go_and_numbers_stay() -> None:
    owner = organization(texts_retention_days=7)
    old = [interaction(owner, days=8 + n / 10, failed=n == 0, tools=n == 1) for n in range(5)]
    new = interaction(owner, days=6)
    titled = ConversationFactory.create(
        organization=owner, id=floor_at(timezone.now() - 9 * DAY), updated_at=timezone.now() - 8 * DAY
    )
    apply()
    for row in old:
        before = (row.input_tokens, row.cost, row.latency_ms, row.user_id)
        row.refresh_from_db()
        assert (row.input_tokens, row.cost, row.latency_ms, row.user_id) == before
        assert (row.prompt, row.response, row.messages, row.tool_calls, row.error_message) == ("", "", [], [], "")
        assert row.erased_at is not None
        assert row.attempts.get().error_message == ""
    new.refresh_from_db()
    assert new.prompt
    titled.refresh_from_db()
    assert titled.title == ""
    assert removed() == [("texts", owner, 5, 1)]
    assert apply() == "Nothing is past its retention.\n"
    assert breaches() == []


def test_what_comes_late_from_a_journal_loses_its_texts_too() -> None:
    owner = organization(texts_retention_days=7)
    interaction(owner, days=8)
    apply()
    late = interaction(owner, days=10)
    apply()
    late.refresh_from_db()
    assert late.prompt == ""


def test_quarantine_is_no_way_around_it() -> None:
    short, other = organization(retention_days=30), organization()
    for owner in (short, other):
        row = InteractionFactory.build(organization=owner, age=40 * DAY)
        quarantine.put(ExchangeRows(interaction=row, attempts=[]), reason="too long")
    apply()
    (kept,) = QuarantinedExchange.objects.all()
    assert rows.from_facts(orjson.loads(kept.facts)).interaction.organization_id == other.pk
    assert Removal.objects.get().quarantined == 1


def test_a_dry_run_says_it_and_changes_nothing() -> None:
    owner = organization(retention_days=30, texts_retention_days=7)
    for days in (40, 50, 8):
        interaction(owner, days=days)
    said = apply(dry_run=True)
    assert f"Would go: {owner}: 2 exchanges" in said
    assert f"Would go: {owner}: texts of 3 interactions" in said
    assert Interaction.objects.exclude(prompt="").count() == 3
    assert removed() == []


def test_a_run_whose_time_is_over_is_gone_on_with() -> None:
    owner = organization(retention_days=30)
    for n in range(7):
        interaction(owner, days=40 + n)
    assert [removal.interactions for removal in retention.apply(seconds=-1)] == []
    tasks.apply_retention()
    assert Interaction.objects.count() == 0


def test_what_goes_is_said_even_if_the_process_dies_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = organization(retention_days=30)
    for n in range(7):
        interaction(owner, days=40 + n)
    naps: list[float] = []

    def die_in_the_second(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("chat.retention.time.sleep", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        list(retention.apply())
    assert Interaction.objects.count() == 1
    assert removed() == [("exchanges", owner, 6, 0)]


def test_a_month_that_nobody_needs_goes_as_a_whole() -> None:
    if not partitions.is_partitioned():
        pytest.skip("SQLite keeps one table (remedy: --services)")
    Organization.objects.all().delete()
    short, for_ever = organization(retention_days=30), organization()
    partitions.make(timezone.now() - 200 * DAY, until=timezone.now())
    old = [interaction(short, days=190), interaction(short, days=191)]
    shared = interaction(short, days=100)
    needed = interaction(for_ever, days=100)
    dropped = f"chat_interaction_{old[0].created_at:%Y_%m}"
    said = apply()
    assert f"partition {dropped}: 2 exchanges" in said
    names = [partition.name for partition in partitions.partitions("chat_interaction")]
    assert dropped not in names
    assert f"chat_interaction_{needed.created_at:%Y_%m}" in names
    assert f"chat_interaction_{timezone.now():%Y_%m}" in names
    assert not Interaction.objects.filter(id=shared.id).exists()
    assert list(Interaction.objects.all()) == [needed]
    assert Removal.objects.get(partition=dropped).interactions == 2
    assert breaches() == []


@pytest.mark.django_db(transaction=True)
def test_the_whole_record_is_right_afterwards() -> None:
    for slug, keeps in {
        "free": {"retention_days": 20},
        "premium": {"texts_retention_days": 5},
        "enterprise": {},
    }.items():
        Plan.objects.update_or_create(slug=slug, defaults={"name": slug, **keeps})
    call_command("seed_demo", interactions=300, days=30, stdout=io.StringIO(), stderr=io.StringIO())
    call_command("roll_up", stdout=io.StringIO(), stderr=io.StringIO())
    apply()
    assert Removal.objects.filter(kind="exchanges").exists()
    assert Removal.objects.filter(kind="texts").exists()
    assert 0 < Interaction.objects.count() < 300
    assert [found for found in verification.verify(Window()) if isinstance(found, Breach)] == []
