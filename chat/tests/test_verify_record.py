"""`manage.py verify_record`: a record that the engine made is right, and each way to break it is found and named."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from accounts.tests.factories import OrganizationFactory
from chat import durability, engine, journal, rows, services, verification
from chat.journal import Journal
from chat.models import Attempt, Conversation, Interaction, QuarantinedExchange, Status
from chat.tests.conftest import frames
from chat.tests.factories import AttemptFactory, ConversationFactory, InteractionFactory
from chat.verification import Breach, Checked, Window
from llmchat.lib.uuid7 import moment_of, uuid7
from providers import catalogue
from providers.models import LanguageModel, Price

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = dt.timedelta(days=30)


def found(window: Window | None = None) -> list[tuple[str, UUID | str, str]]:
    steps = verification.verify(window or Window())
    return [(step.invariant, step.row, step.what) for step in steps if isinstance(step, Breach)]


def checked() -> dict[str, int]:
    counts: dict[str, int] = {}
    for step in verification.verify(Window()):
        if isinstance(step, Checked):
            counts[step.subject] = counts.get(step.subject, 0) + step.rows
    return counts


@pytest.fixture(autouse=True)
def journals(settings: Any, tmp_path: Path) -> Iterator[Path]:
    """This process's journal, which lives, in a directory without other tests' remains."""
    durability.close()
    settings.JOURNAL_DIR = tmp_path / "journal"
    durability.committer()
    yield settings.JOURNAL_DIR
    durability.close()


def price_of(name: str, *, since: dt.timedelta = LONG_AGO, provider: str = "simulated", **fields: Any) -> Price:
    model, _ = LanguageModel.objects.get_or_create(
        provider=provider, upstream_id=name, defaults={"name": f"{provider}/{name}"}
    )
    moment = timezone.now() - since
    values = {"input_per_million": Decimal("0.5"), "output_per_million": Decimal("1.25"), **fields}
    return Price.objects.create(model=model, effective_from=moment, created_at=moment, **values)


@pytest.fixture
def row() -> Interaction:
    """A record of one exchange in which all is right: a priced success with a conversation, after a failed call."""
    price = price_of("echo")
    organization = OrganizationFactory.create()
    cost = Decimal("0.00006875")  # 25 tokens in, 45 out
    interaction = InteractionFactory.create(
        organization=organization,
        conversation=ConversationFactory.create(organization=organization),
        provider="simulated",
        model="simulated/echo",
        cost=cost,
        retries=1,
        age=dt.timedelta(minutes=10),
        attempt=None,
    )
    for number, fields in ((1, {"failed": True}), (2, {"price": price})):
        identifier = uuid7()
        AttemptFactory.create(
            id=identifier,
            started_at=moment_of(identifier),
            interaction=interaction,
            number=number,
            model="echo",
            cached_input_tokens=None if number == 1 else 0,
            reasoning_tokens=None if number == 1 else 0,
            **fields,
        )
    assert found() == []
    return interaction


def only(row: Interaction) -> Any:
    return Interaction.objects.filter(pk=row.pk)


def last(row: Interaction) -> Any:
    return Attempt.objects.filter(interaction=row, number=2)


def first(row: Interaction) -> Any:
    return Attempt.objects.filter(interaction=row, number=1)


@contextmanager
def constraints_off() -> Iterator[None]:
    """As in a database that was restored in parts."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys=OFF")
        else:
            cursor.execute("SET session_replication_role = replica")
        yield
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys=ON")
        else:
            cursor.execute("SET session_replication_role = origin")


def test_a_cost_beyond_what_sqlite_keeps_exactly_is_no_breach(row: Interaction):
    """$1,660.978516609775 has 16 digits, and SQLite's floats keep 15."""
    price = last(row).get().price_id
    Price.objects.filter(pk=price).update(input_per_million=Decimal("66439140.664391"), output_per_million=0)
    cost = Decimal("1660.978516609775")
    for attempts in (last(row), first(row)):
        attempts.update(price=price, cost=cost, input_tokens=25, output_tokens=45)
    only(row).update(cost=2 * cost)
    assert found() == []
    only(row).update(cost=2 * cost + Decimal("0.000001"))
    assert [breach[0] for breach in found()] == ["totals"]
    only(row).update(cost=2 * cost)
    last(row).update(cost=cost + Decimal("0.000001"))
    assert {breach[0] for breach in found()} == {"totals", "costs"}


# --- A record that the engine made --------------------------------------------------------------------------------

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


async def test_what_the_engine_leaves_is_right(owner, caller, settings, no_waiting) -> None:
    settings.FALLBACK_ORDER = ["simulated/echo"]
    for name in ("ok", "echo", "slow"):
        await sync_to_async(price_of)(name)
    await sync_to_async(price_of)("reasoning", input_per_million=Decimal(0), output_per_million=Decimal(0))
    catalogue.forget()
    person = caller(owner.raw)

    answer = (await person.chat(model="simulated/ok")).json()
    await person.chat("And then?", model="simulated/echo", conversationId=answer["conversationId"])
    for model in (
        "500-once",
        "429-once",
        "503-forever",
        "context-length",
        "content-policy",
        "content-filter",
        "unknown-reason",
        "cut",
        "reset-once",
        "garbage",
        "empty-200",
        "key-refused",
        "no-usage",
        "reports-cost",
        "reasoning",
        "ok?tokens=0",
        "slow?delay=0&tokens=3",
    ):
        await person.chat(model=f"simulated/{model}")
    await person.chat(model="simulated/ok", maxTokens=1)
    await person.post(
        "/v1/chat/completions",
        {"model": "simulated/tool-call", "messages": [{"role": "user", "content": "Rain?"}], "tools": [TOOL]},
    )
    for model in ("ok", "cut", "503-forever", "error-in-stream"):
        response = await person.chat(model=f"simulated/{model}", stream=True)
        if response.streaming:
            await frames(response)
    for model in ("slow", "slow-first-token?wait=30"):
        asking = asyncio.ensure_future(person.chat(model=f"simulated/{model}"))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait([asking])
    response = await person.chat(model="simulated/slow", stream=True)
    parts = aiter(response)
    await anext(parts)
    await parts.aclose()
    await engine.drain()

    statuses = await sync_to_async(lambda: set(Interaction.objects.values_list("status", flat=True)))()
    assert statuses == {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}
    priced = await sync_to_async(lambda: Attempt.objects.filter(price__isnull=False, cost__gt=0).count())()
    assert priced > 10
    assert await sync_to_async(found)() == []
    counted = await sync_to_async(checked)()
    assert counted["interactions"] == await Interaction.objects.acount() > 25
    assert counted["attempts"] == await Attempt.objects.acount()


async def test_what_a_recovery_leaves_is_right(owner, caller, no_waiting) -> None:
    response = await caller(owner.raw).chat(model="simulated/slow", stream=True)
    parts = aiter(response)
    await anext(parts)

    def recover() -> None:
        [segment] = journal.segments(durability.committer().journal.path)
        [begun] = journal.read(segment, on_damage=pytest.fail)
        rows.store([rows.interrupted(begun.facts)])

    await sync_to_async(recover)()
    await parts.aclose()
    await engine.drain()
    assert [row.status async for row in Interaction.objects.all()] == [Status.INTERRUPTED]
    assert await sync_to_async(found)() == []


async def test_a_deleted_conversation_leaves_it_right(owner, caller, no_waiting) -> None:
    await caller(owner.raw).chat(model="simulated/content-policy")
    await engine.drain()
    await sync_to_async(lambda: services.delete_conversation(Conversation.objects.get()))()
    assert await Interaction.objects.filter(erased_at__isnull=False).acount() == 1
    assert await sync_to_async(found)() == []


def test_an_empty_record_is_right() -> None:
    assert found() == []


def test_batches_join(row, monkeypatch) -> None:
    monkeypatch.setattr(verification, "BATCH", 2)
    rows = [InteractionFactory.create(attempt=None, cancelled=True, cost=None) for _ in range(4)]
    only(rows[3]).update(retries=5)
    assert found() == [("routes", rows[3].id, "retries is 5, its attempts show 0")]
    assert checked()["interactions"] == 5


# --- What breaks it -----------------------------------------------------------------------------------------------

Break = Callable[[Interaction], object]

SAID: list[tuple[str, Break, list[tuple[str, str, str]]]] = [
    (
        "a gap in the numbers",
        lambda row: last(row).update(number=3),
        [("numbers", "row", "its attempts have the numbers 1, 3")],
    ),
    (
        "a success without a finish reason",
        lambda row: only(row).update(finish_reason=""),
        [("endings", "row", "it succeeded without a finish reason")],
    ),
    (
        "a success whose last attempt failed",
        lambda row: last(row).update(status=Status.FAILED, error_code="x"),
        [("endings", "row", "it succeeded, but its last attempt is failed")],
    ),
    (
        "a success without attempts",
        lambda row: (Attempt.objects.all().delete(), only(row).update(cost=None, retries=0)),
        [("endings", "row", "it succeeded, but it has no attempt")],
    ),
    (
        "a failure without an error code",
        lambda row: only(row).update(status=Status.FAILED, finish_reason=""),
        [("endings", "row", "it failed without an error code")],
    ),
    (
        "a cancelled one with a finish reason",
        lambda row: only(row).update(status=Status.CANCELLED),
        [("endings", "row", "it is cancelled, but has the finish reason stop")],
    ),
    (
        "an interrupted one with a finish reason",
        lambda row: only(row).update(status=Status.INTERRUPTED, finished_at=None),
        [("endings", "row", "it is interrupted, but has the finish reason stop")],
    ),
    (
        "a succeeded attempt without a finish reason",
        lambda row: last(row).update(finish_reason=""),
        [("endings", "last", "it succeeded without a finish reason")],
    ),
    (
        "a failed attempt without an error code",
        lambda row: first(row).update(error_code=""),
        [("endings", "first", "it failed without an error code")],
    ),
    (
        "a success without an answer",
        lambda row: only(row).update(response=""),
        [("answers", "row", "it succeeded and its first token came, but no answer is kept")],
    ),
    (
        "a success without an end",
        lambda row: only(row).update(finished_at=None),
        [("times", "row", "it is succeeded, but has no finished_at")],
    ),
    (
        "an end before the beginning",
        lambda row: only(row).update(finished_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
        [("times", "row", "it finished at 2020-01-01T00:00:00+00:00, before it began")],
    ),
    (
        "other tokens than the last attempt's",
        lambda row: only(row).update(output_tokens=46, reasoning_tokens=None),
        [
            ("tokens", "row", "output_tokens is 46, its last attempt's is 45"),
            ("tokens", "row", "reasoning_tokens is unknown, its last attempt's is 0"),
        ],
    ),
    (
        "another cost than the attempts'",
        lambda row: only(row).update(cost=Decimal("0.00006876")),
        [("totals", "row", "cost is 0.000068760000, its attempts' make 0.000068750000")],
    ),
    (
        "a cost although an attempt's is unknown",
        lambda row: first(row).update(input_tokens=25, output_tokens=45),
        [("totals", "row", "cost is 0.000068750000, its attempts' make unknown")],
    ),
    (
        "an attempt that costs too much",
        lambda row: (last(row).update(cost=1), only(row).update(cost=1)),
        [("costs", "last", "cost is 1.000000000000, tokens and price make 0.000068750000")],
    ),
    (
        "an attempt that is free with a price",
        lambda row: (last(row).update(cost=0), only(row).update(cost=0)),
        [("costs", "last", "cost is 0.000000000000, tokens and price make 0.000068750000")],
    ),
    (
        "a cost without a price",
        lambda row: last(row).update(price=None),
        [("costs", "last", "cost is 0.000068750000 without a price or a provider's report")],
    ),
    (
        "free without a price",
        lambda row: (last(row).update(price=None, cost=0), only(row).update(cost=0)),
        [("costs", "last", "cost is 0.000000000000 without a price or a provider's report")],
    ),
    (
        "a reported cost that is unknown",
        lambda row: (last(row).update(price=None, cost=None, cost_reported=True), only(row).update(cost=None)),
        [("costs", "last", "the provider is said to have reported the cost, but it is unknown")],
    ),
    (
        "a price that is not on record",
        lambda row: last(row).update(price=UUID(int=1)),
        [("costs", "last", "its price 00000000-0000-0000-0000-000000000001 is not on record")],
    ),
    (
        "another model's price",
        lambda row: last(row).update(price=price_of("slow")),
        [("prices", "last", "its price is that of simulated/slow")],
    ),
    (
        "a price that came later",
        lambda row: Price.objects.update(effective_from=dt.datetime(2990, 1, 1, tzinfo=dt.UTC)),
        [("prices", "last", "its price came into force later, at 2990-01-01T00:00:00+00:00")],
    ),
    (
        "wrong counts of retries and fallback",
        lambda row: only(row).update(retries=0, fallback=True),
        [
            ("routes", "row", "retries is 0, its attempts show 1"),
            ("routes", "row", "fallback is True, its attempts show False"),
        ],
    ),
]


@pytest.mark.parametrize(("break_it", "said"), [case[1:] for case in SAID], ids=[case[0] for case in SAID])
def test_what_breaks_the_record_is_named(row, break_it: Break, said: list[tuple[str, str, str]]) -> None:
    ids = {"row": row.id, "first": first(row).get().id, "last": last(row).get().id}
    break_it(row)
    assert found() == [(invariant, ids[who], what) for invariant, who, what in said]


def test_an_attempt_without_its_interaction_is_named() -> None:
    interaction = InteractionFactory.create(failed=True)
    attempt = Attempt.objects.get()
    with constraints_off():
        Interaction.objects.filter(pk=interaction.pk).update(id=(other := uuid7()), created_at=moment_of(other))
        breaches = found()
        Attempt.objects.all().delete()
    assert ("orphans", attempt.id, f"its interaction {interaction.id} is not on record") in breaches


def test_an_interaction_without_its_organization_is_named(row) -> None:
    nobody = uuid7()
    only(row).update(organization_id=nobody)
    assert ("tenants", row.id, f"its organization {nobody} does not exist") in found()


def test_moments_are_those_of_the_ids(row) -> None:
    moment = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    only(row).update(created_at=moment)
    last(row).update(started_at=moment + LONG_AGO, price=None, cost=None)
    only(row).update(cost=None)
    attempt = last(row).get()
    assert found() == [
        ("ids", row.id, f"created_at is 2020-01-01T00:00:00+00:00, its id was made at {moment_of(row.id).isoformat()}"),
        (
            "ids",
            attempt.id,
            f"started_at is 2020-01-31T00:00:00+00:00, its id was made at {moment_of(attempt.id).isoformat()}",
        ),
    ]


def test_ids_of_another_kind_are_named(row) -> None:
    last(row).update(id=(other := uuid4()))
    assert found() == [("ids", other, "its id is not a UUIDv7")]


def test_a_price_that_was_replaced_long_before_is_named(row) -> None:
    newer = price_of("echo", since=dt.timedelta(days=1))
    attempt = last(row).get()
    said = f"its price was no longer in force; the newer one was set at {newer.created_at.isoformat()}"
    assert found() == [("prices", attempt.id, said)]


def test_a_price_that_was_replaced_a_moment_before_may_still_be_used(row) -> None:
    price_of("echo", since=dt.timedelta(minutes=10, seconds=5))
    assert found() == []


def test_a_provider_may_report_what_it_likes(row) -> None:
    last(row).update(price=None, cost=Decimal("0.5"), cost_reported=True)
    only(row).update(cost=Decimal("0.5"))
    assert found() == []


def test_a_conversation_that_was_deleted_is_named_by_nothing(row) -> None:
    gone = row.conversation_id
    Conversation.objects.all().delete()
    only(row).update(conversation_id=gone)
    assert found() == [("conversations", row.id, f"its conversation {gone} is not on record")]


def test_a_conversation_is_its_interactions_own(row) -> None:
    other = ConversationFactory.create(user_id="eve", updated_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    only(row).update(conversation=other)
    assert found() == [
        ("conversations", row.id, f"its conversation {other.id} is another organization's"),
        ("conversations", row.id, f"its conversation {other.id} is another user's"),
        ("conversations", row.id, f"its conversation {other.id} was last updated before it"),
    ]


@pytest.mark.parametrize("key", [(), (b"k" * 32,)], ids=["plain", "encrypted"])
def test_texts_of_an_erased_interaction_are_named(row, settings, key) -> None:
    settings.TEXT_ENCRYPTION_KEYS = key
    interaction = Interaction.objects.get()
    interaction.metadata = {"kept": "word"}
    interaction.parameters, interaction.response = {}, ""
    interaction.save()
    only(row).update(erased_at=timezone.now())
    assert found() == [
        ("erasure", row.id, "it is erased, but holds prompt, metadata"),
        ("erasure", first(row).get().id, "it is erased, but holds error_message"),
    ]


def test_an_organization_may_want_no_answers_kept(row, settings) -> None:
    only(row).update(response="")
    settings.LOG_RESPONSES = False
    assert found() == []
    settings.LOG_RESPONSES = True
    row.organization.log_responses = True
    row.organization.save()
    assert found() == []


def test_what_is_in_quarantine_is_named() -> None:
    kept = QuarantinedExchange.objects.create(id=uuid7(), reason="a secret reason", facts="{}")
    said = f"the database refused it at {kept.created_at.isoformat()}; the admin says why"
    assert found() == [("quarantine", kept.id, said)]


# --- Journals -----------------------------------------------------------------------------------------------------


def test_the_journal_of_a_living_process_is_its_own(journals: Path) -> None:
    living = Journal(journals, max_bytes=10**7)
    living.begin(uuid7(), {})
    assert found() == []
    assert checked()["journals"] == 2
    living.close()


def test_the_journal_of_a_dead_process_is_named(journals: Path) -> None:
    dead = Journal(journals, max_bytes=10**7)
    dead.begin(uuid7(), {})
    dead.close()
    said = f"{dead.size} bytes of a dead process are in {dead.path}; manage.py replay_journal stores them"
    assert found() == [("journals", UUID(dead.path.name), said)]


def test_a_damaged_segment_is_named(journals: Path) -> None:
    path = journals / str(uuid7())
    path.mkdir(parents=True)
    (path / "00000001.damaged").write_bytes(b"?")
    said = f"{path / '00000001.damaged'} is damaged; what could be read of it was replayed"
    assert found() == [("journals", UUID(path.name), said)]


def test_looking_at_a_journal_leaves_no_trace(journals: Path) -> None:
    path = journals / str(uuid7())
    path.mkdir(parents=True)
    (path / "00000001.journal").write_bytes(b"?")
    found()
    assert [file.name for file in path.iterdir()] == ["00000001.journal"]


# --- The command --------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[str, int]:
    """What it prints, and its exit code."""
    said = StringIO()
    try:
        call_command("verify_record", *arguments, stdout=said, no_color=True)
    except CommandError as error:
        return said.getvalue(), error.returncode
    return said.getvalue(), 0


def test_a_right_record_ends_well(row) -> None:
    said, code = run()
    lines = said.splitlines()
    assert code == 0
    assert [line.split()[:3] for line in lines[1:-1]] == [
        [
            invariant.name,
            {"interactions": "1", "attempts": "2", "journals": "1"}.get(invariant.subject, "0"),
            "0",
        ]
        for invariant in verification.invariants_on_record()
    ]
    assert lines[-1].startswith("1 interaction with 2 attempts verified in ")


def test_breaches_are_counted_beyond_the_limit() -> None:
    rows = [InteractionFactory.create(attempt=None, cancelled=True, cost=None, retries=1) for _ in range(3)]
    said, code = run("--limit", "2")
    lines = said.splitlines()
    assert code == 1
    assert lines[:2] == [f"routes: {row.id}: retries is 1, its attempts show 0" for row in rows[:2]]
    assert lines[2].split() == ["invariant", "checked", "breaches"]
    assert [line.split()[:3] for line in lines if line.startswith("routes ")] == [["routes", "3", "3"]]


def test_json_says_the_same() -> None:
    row = InteractionFactory.create(attempt=None, cancelled=True, cost=None, retries=1)
    printed, code = run("--json")
    said = json.loads(printed)
    assert code == 1
    assert said["breaches"] == [
        {"invariant": "routes", "id": str(row.id), "what": "retries is 1, its attempts show 0"},
    ]
    assert {each["name"]: (each["checked"], each["breaches"]) for each in said["invariants"]} == {
        each.name: (int(each.subject in {"interactions", "journals"}), int(each.name == "routes"))
        for each in verification.invariants_on_record()
    }
    assert set(said) == {"since", "until", "seconds", "invariants", "breaches"}


def test_the_window_is_by_the_moment_of_the_ids() -> None:
    rows = [
        InteractionFactory.create(attempt=None, cancelled=True, cost=None, retries=1, age=dt.timedelta(days=days))
        for days in (3, 2, 1)
    ]
    moments = [row.created_at.isoformat() for row in rows]
    said, code = run("--since", moments[1], "--until", moments[2])
    assert code == 1
    assert said.splitlines()[0].startswith(f"routes: {rows[1].id}: ")
    assert said.splitlines()[-1].startswith("1 interaction ")
    assert run("--since", timezone.now().date().isoformat(), "--until", "2990-01-01")[1] == 0


@pytest.mark.parametrize("text", ["yesterday", "2026-02-30", "2026-05-31T99:00"])
def test_what_is_no_moment_is_an_error_in_words(text: str) -> None:
    with pytest.raises(CommandError, match=f"--since '{text}' is not a moment"):
        call_command("verify_record", "--since", text)


def test_a_database_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "DATABASE_URL": "postgres://u:p@127.0.0.1:9/none"}
    environment["DATABASE_CONNECT_SECONDS"] = "1"
    done = subprocess.run(
        [sys.executable, "manage.py", "verify_record"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("CommandError: The database cannot be read: ")


def test_a_database_without_tables_is_one_line(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "empty.sqlite3").close()
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "DATABASE_URL": f"sqlite:///{tmp_path}/empty.sqlite3"}
    done = subprocess.run(
        [sys.executable, "manage.py", "verify_record"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == "CommandError: The database cannot be read: no such table: chat_interaction\n"
    assert done.returncode == 2
