"""A conversation is deleted while an answer in it is on its way: it lands without texts, as its siblings are."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from django.conf import settings
from django.db import connection, connections, transaction

from chat import recovery, rows, services
from chat.journal import Journal
from chat.models import Attempt, Conversation, Interaction, Status
from chat.rows import ExchangeRows
from chat.tests.conftest import frames
from chat.tests.factories import AttemptFactory, ConversationFactory, InteractionFactory

pytestmark = pytest.mark.django_db(transaction=True)


async def test_the_caller_gets_the_answer_and_the_record_only_its_numbers(owner, caller):
    person = caller(owner.raw)
    first = (await person.chat(prompt="Once.")).json()
    thread = first["conversationId"]
    asked = {
        "userId": "u1",
        "prompt": "Go on.",
        "model": "simulated/slow?delay=0.02&tokens=8",
        "conversationId": thread,
    }
    response = await person.post("/v1/chat/stream", {**asked, "metadata": {"tab": "7"}})
    assert (await person.delete(f"/v1/conversations/{thread}")).status_code == 204
    _, done = (await frames(response))[-1]
    assert done["response"]
    row = await Interaction.objects.aget(id=done["id"])
    texts = (row.prompt, row.system_prompt, row.messages, row.parameters, row.response, row.metadata)
    assert texts == ("", "", [], {}, "", {})
    assert (row.status, row.conversation_id, row.output_tokens) == (Status.SUCCEEDED, None, 8)
    assert row.erased_at is not None
    assert row.finished_at is not None
    assert not await Conversation.objects.aexists()


async def test_what_a_provider_said_of_it_is_not_kept_either(owner, caller, monkeypatch):
    person = caller(owner.raw)
    thread = (await person.chat(prompt="Once.")).json()["conversationId"]
    conversation = await Conversation.objects.aget()

    real = rows.store

    def delete_first(batch):
        services.delete_conversation(conversation)
        real(batch)

    monkeypatch.setattr(rows, "store", delete_first)
    failed = await person.chat(prompt="Go on.", model="simulated/content-policy", conversationId=thread)
    assert failed.status_code == 400
    row = await Interaction.objects.order_by("-id").afirst()
    attempt = await Attempt.objects.order_by("-id").afirst()
    assert (row.status, row.error_code, row.error_message) == (Status.FAILED, "content_policy_violation", "")
    assert (attempt.error_code, attempt.error_message) == ("content_policy_violation", "")


@pytest.fixture
def thread_of_its_own() -> Iterator[Callable[..., Future[None]]]:
    """Runs a function beside the test's transaction, on a connection of its own."""
    with ThreadPoolExecutor(1) as pool:

        def start(function: Callable[..., object], *arguments: object) -> Future[None]:
            begun = threading.Event()

            def run() -> None:
                begun.set()
                try:
                    function(*arguments)
                finally:
                    connections.close_all()

            future = pool.submit(run)
            assert begun.wait(10)
            return future

        yield start


def exchange_in(conversation: Conversation) -> ExchangeRows:
    """One that has ended and is not stored."""
    interaction = InteractionFactory.build(
        organization=conversation.organization, conversation=conversation, prompt="Secret?", response="Secret."
    )
    return ExchangeRows(interaction=interaction, attempts=[AttemptFactory.build(interaction=interaction)])


def assert_erased(row: Interaction) -> None:
    assert (row.prompt, row.response, row.conversation_id) == ("", "", None)
    assert row.erased_at is not None


def test_a_deletion_that_is_not_committed_yet_is_waited_for(owner, thread_of_its_own):
    conversation = ConversationFactory.create(organization=owner.organization)
    exchange = exchange_in(conversation)
    with transaction.atomic():
        services.delete_conversation(copy.copy(conversation))
        storing = thread_of_its_own(rows.store, [exchange])
    storing.result(30)
    assert_erased(Interaction.objects.get())
    assert exchange.interaction.response == "Secret."


def test_a_deletion_waits_for_a_row_that_is_not_committed_yet(owner, thread_of_its_own):
    conversation = ConversationFactory.create(organization=owner.organization)
    with transaction.atomic():
        rows.store([exchange_in(conversation)])
        deleting = thread_of_its_own(services.delete_conversation, copy.copy(conversation))
        if connection.vendor == "postgresql":
            # It has its snapshot from before the row; only the lock makes it see it.
            threading.Event().wait(0.3)
    deleting.result(30)
    assert_erased(Interaction.objects.get())


def test_a_conversation_goes_on_to_be_touched(owner):
    conversation = ConversationFactory.create(organization=owner.organization)
    exchange = exchange_in(conversation)
    rows.store([exchange])
    row = Interaction.objects.get()
    conversation.refresh_from_db()
    assert (row.prompt, row.erased_at) == ("Secret?", None)
    assert conversation.updated_at >= row.created_at


def test_a_replay_brings_no_deleted_conversation_back(owner, tmp_path):
    conversation = ConversationFactory.build(organization=owner.organization, title="Secret title")
    exchange = exchange_in(conversation)
    exchange = ExchangeRows(interaction=exchange.interaction, attempts=exchange.attempts, new_conversation=conversation)
    journal = Journal(tmp_path, max_bytes=settings.JOURNAL_MAX_BYTES)
    journal.begin(exchange.id, rows.as_facts(exchange))
    journal.end(exchange.id, rows.as_facts(exchange))
    rows.store([exchange])
    services.delete_conversation(Conversation.objects.get())
    # The process ends before it has settled the exchange.
    journal.close()
    report = recovery.replay(tmp_path)
    assert (report.ended, report.complaints) == (1, [])
    assert not Conversation.objects.exists()
    assert_erased(Interaction.objects.get())
