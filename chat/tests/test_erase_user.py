"""One person's texts go from everywhere, at once or as they come; numbers, and everybody else's texts, stay."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import orjson
import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.tests.factories import UserFactory
from accounts.tests.fixtures import Person
from chat import erasure, quarantine, retention, rows, tasks, verification
from chat.journal import Journal
from chat.models import Attempt, Conversation, Interaction, QuarantinedExchange, Removal
from chat.rows import ExchangeRows
from chat.tests.factories import AttemptFactory, ConversationFactory, InteractionFactory
from chat.verification import Breach, Window
from llmchat.lib.uuid7 import floor_at

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch, settings, tmp_path) -> None:
    monkeypatch.setattr(retention, "PAUSE", 0)
    monkeypatch.setattr(retention, "BATCH", 2)
    settings.JOURNAL_DIR = tmp_path / "journal"


def erase(organization: str = "Acme", user: str = "eve", **options: Any) -> str:
    out = io.StringIO()
    call_command("erase_user", organization=organization, user=user, stdout=out, **options)
    return out.getvalue()


def exchange(owner: Person, *, user_id: str = "eve", **fields: Any) -> Interaction:
    return InteractionFactory.create(organization=owner.organization, user_id=user_id, age=HOUR, **fields)


def holds_texts(row: Interaction) -> bool:
    row.refresh_from_db()
    quotes = any(attempt.error_message for attempt in row.attempts.all())
    return bool(row.prompt or row.response or row.messages or row.metadata or row.error_message or quotes)


def breaches() -> list[Breach]:
    found = verification.verify(Window())
    return [breach for breach in found if isinstance(breach, Breach) and breach.invariant in {"erasure", "orphans"}]


def test_texts_go_everywhere_and_numbers_stay(owner: Person) -> None:
    thread = ConversationFactory.create(organization=owner.organization, user_id="eve")
    Conversation.objects.filter(id=thread.id).update(id=(old := floor_at(timezone.now() - HOUR)))
    theirs = [
        exchange(owner, conversation_id=old),
        *(exchange(owner) for _ in range(3)),
        exchange(owner, failed=True),
        exchange(owner, tools=True, metadata={"a": "b"}),
    ]
    figures = [(row.input_tokens, row.cost, row.latency_ms, row.user_id) for row in theirs]
    assert erase() == "Erased of eve of Acme: 6 interactions, 1 conversation, 0 exchanges in quarantine.\n"
    assert [holds_texts(row) for row in theirs] == [False] * 6
    assert [(row.input_tokens, row.cost, row.latency_ms, row.user_id) for row in theirs] == figures
    assert Attempt.objects.count() == 6
    assert not Conversation.objects.exists()
    assert breaches() == []
    removal = Removal.objects.get()
    assert (removal.kind, removal.organization, removal.user_id) == ("person", owner.organization, "eve")
    assert (removal.interactions, removal.conversations, removal.by) == (6, 1, "manage.py erase_user")


def test_nobody_elses_texts_go(owner: Person, stranger: Person) -> None:
    others = [exchange(owner, user_id="ana"), exchange(stranger, user_id="eve")]
    thread = ConversationFactory.create(organization=owner.organization, user_id="ana")
    erase()
    assert all(holds_texts(row) for row in others)
    assert list(Conversation.objects.all()) == [thread]


def test_a_dry_run_counts_and_changes_nothing(owner: Person) -> None:
    row = exchange(owner)
    assert erase(dry_run=True).startswith("Would be erased of eve of Acme: 1 interaction")
    assert holds_texts(row)
    assert not Removal.objects.exists()


def test_quarantine_keeps_numbers_alone(owner: Person) -> None:
    for user_id in ("eve", "ana"):
        row = InteractionFactory.build(organization=owner.organization, user_id=user_id, age=HOUR)
        attempt = AttemptFactory.build(interaction=row, failed=True)
        quarantine.put(ExchangeRows(interaction=row, attempts=[attempt]), reason=f"NUL in {row.prompt}")
    assert "1 exchange in quarantine" in erase()
    assert "0 exchanges in quarantine" in erase()
    kept = {
        rows.from_facts(orjson.loads(row.facts)).interaction.user_id: row for row in QuarantinedExchange.objects.all()
    }
    prompt = InteractionFactory.build().prompt
    assert prompt in kept["ana"].facts
    assert prompt not in kept["eve"].facts + kept["eve"].reason
    assert "Connection refused" not in kept["eve"].facts
    quarantine.release(kept["eve"])
    assert breaches() == []


def test_what_a_dead_process_left_is_erased_too(owner: Person, settings) -> None:
    row = InteractionFactory.build(organization=owner.organization, user_id="eve", age=HOUR)
    dead = Journal(settings.JOURNAL_DIR, max_bytes=10**6)
    facts = rows.as_facts(ExchangeRows(interaction=row, attempts=[AttemptFactory.build(interaction=row)]))
    dead.begin(row.id, facts)
    dead.end(row.id, facts)
    assert "Journals of running processes on this host hold 1 exchange of theirs." in erase()
    dead.close()
    assert erase().startswith("Erased of eve of Acme: 1 interaction")
    assert not holds_texts(Interaction.objects.get(id=row.id))
    assert list(settings.JOURNAL_DIR.iterdir()) == []


def test_what_was_on_its_way_is_erased_when_it_has_come(owner: Person) -> None:
    erase()
    late, after = exchange(owner), InteractionFactory.create(organization=owner.organization, user_id="eve")
    tasks.apply_retention()
    assert not holds_texts(late)
    assert holds_texts(after)
    assert [removal.by for removal in Removal.objects.order_by("id")] == ["manage.py erase_user", "retention"]


def test_what_is_left_when_the_time_is_over_follows(owner: Person) -> None:
    theirs = [exchange(owner) for _ in range(5)]
    done = erasure.erase_person(owner.organization, "eve", by="somebody", seconds=-1)
    assert not done.is_whole
    assert done.removal.interactions == 2
    tasks.apply_retention()
    assert not any(holds_texts(row) for row in theirs)


def test_an_unknown_organization_is_named(owner: Person) -> None:
    with pytest.raises(CommandError, match="There is no organization 'Acne'"):
        erase(organization="Acne")


# --- In the admin -----------------------------------------------------------------------------------------------------


def page_of(row: Interaction) -> str:
    return reverse("admin:chat_interaction_erase_person", args=[row.pk])


def test_an_owner_is_asked_before_anything_goes(client: Client, owner: Person) -> None:
    row = exchange(owner)
    client.force_login(owner.user)
    assert page_of(row) in client.get(reverse("admin:chat_interaction_change", args=[row.pk])).content.decode()
    asked = client.get(page_of(row)).content.decode()
    assert "Erase what eve of Acme said and was told?" in asked
    assert holds_texts(row)
    said = client.post(page_of(row), follow=True).content.decode()
    assert "Erased: 1 interaction of eve." in said
    assert not holds_texts(row)
    assert Removal.objects.get().by == owner.user.get_username()
    listed = client.get(reverse("admin:chat_removal_changelist")).content.decode()
    assert "Texts of a person" in listed
    entry = client.get(reverse("admin:chat_removal_change", args=[Removal.objects.get().pk]))
    assert entry.status_code == 200


def test_members_may_look_and_not_erase(client: Client, owner: Person, member: Person) -> None:
    row = exchange(owner)
    client.force_login(member.user)
    assert page_of(row) not in client.get(reverse("admin:chat_interaction_change", args=[row.pk])).content.decode()
    assert client.post(page_of(row)).status_code == 403
    assert holds_texts(row)


def test_strangers_do_not_even_learn_of_it(client: Client, owner: Person, stranger: Person) -> None:
    row = exchange(owner)
    Removal.objects.create(kind="person", organization=owner.organization, before=timezone.now(), by="x")
    client.force_login(stranger.user)
    assert client.post(page_of(row)).status_code == 404
    assert holds_texts(row)
    assert "Texts of a person" not in client.get(reverse("admin:chat_removal_changelist")).content.decode()


def test_only_the_operator_sees_partitions_go(client: Client) -> None:
    Removal.objects.create(
        kind="exchanges", partition="chat_interaction_2020_01", before=timezone.now(), by="retention"
    )
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    assert "Exchanges past their retention" in client.get(reverse("admin:chat_removal_changelist")).content.decode()
