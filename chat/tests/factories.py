"""Rows of the record, made for tests and for looking at: believable exchanges of every kind.

`InteractionFactory()` is a plain success; its traits are the other ways an exchange may go. Ids and times agree, as in
real rows: `age=timedelta(hours=3)` makes a row of three hours ago.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.utils import timezone
from factory.declarations import LazyAttribute, RelatedFactory, SelfAttribute, Sequence, SubFactory, Trait
from factory.django import DjangoModelFactory

from accounts.tests.factories import OrganizationFactory
from chat import changes
from chat.models import Attempt, Conversation, Interaction, Status
from llmchat.lib.uuid7 import floor_at, moment_of, uuid7

MARKUP = '<script>document.title = "hacked"</script><img src=x onerror="document.title = \'hacked\'"><b>bold</b>'

QUESTIONS = (
    ("How do I cancel my subscription?", "Open Settings, choose Billing, then Cancel plan. It ends with the month."),
    ("Summarise the attached minutes in three points.", "1. Launch in May.\n2. Ana owns pricing.\n3. Hire one."),
    ("Write a SQL query for the ten best customers.", "SELECT customer, SUM(total) FROM orders GROUP BY 1 LIMIT 10;"),
    ("What is the weather like in Lisbon in March?", "Mild: 11 to 18 °C, with some rain and a good deal of sun."),
    ("Translate to German: the meeting is at noon.", "Die Besprechung ist um zwölf Uhr."),
)

TOOL_CALLS = [
    {
        "id": "call_9f2c",
        "type": "function",
        "function": {"name": "find_order", "arguments": '{"order": "A-1042", "fields": ["status", "carrier"]}'},
    }
]


def id_at(moment: dt.datetime) -> UUID:
    """A new id of that moment: its time, and the rest of a fresh one."""
    rest = uuid7().int & ((1 << 80) - 1)
    return UUID(int=(floor_at(moment).int >> 80 << 80) | rest)


class ConversationFactory(DjangoModelFactory[Conversation]):
    organization = SubFactory(OrganizationFactory)
    user_id = "ana"
    title = "How do I cancel my subscription?"

    class Meta:
        model = Conversation


class InteractionFactory(DjangoModelFactory[Interaction]):
    class Params:
        age = dt.timedelta()
        failed = Trait(
            status=Status.FAILED,
            response="",
            finish_reason="",
            error_type="provider_error",
            error_code="provider_unavailable",
            error_message="gemini could not be reached: connection refused. Try again, or name another model.",
            time_to_first_token_ms=None,
            input_tokens=None,
            output_tokens=None,
            cost=None,
            attempt=RelatedFactory("chat.tests.factories.AttemptFactory", "interaction", failed=True),
        )
        cancelled = Trait(
            status=Status.CANCELLED,
            streamed=True,
            response="Open Settings, choose",
            finish_reason="",
            usage_estimated=True,
            output_tokens=6,
        )
        interrupted = Trait(
            status=Status.INTERRUPTED,
            response="",
            finish_reason="",
            latency_ms=None,
            provider_latency_ms=None,
            time_to_first_token_ms=None,
            finished_at=None,
            input_tokens=None,
            output_tokens=None,
            cost=None,
            error_type="server_error",
            error_code="interrupted",
            error_message="The server stopped while the answer was on its way.",
            attempt=RelatedFactory(
                "chat.tests.factories.AttemptFactory", "interaction", status=Status.INTERRUPTED, latency_ms=None
            ),
        )
        rescued = Trait(
            model_requested="groq/llama-3.1-8b-instant",
            retries=1,
            fallback=True,
            latency_ms=2840.7,
            provider_latency_ms=948.0,
            time_to_first_token_ms=2210.4,
            route_reason="asked for; then FALLBACK_ORDER",
            first=RelatedFactory(
                "chat.tests.factories.AttemptFactory",
                "interaction",
                failed=True,
                provider="groq",
                model="llama-3.1-8b-instant",
            ),
            second=RelatedFactory(
                "chat.tests.factories.AttemptFactory",
                "interaction",
                failed=True,
                number=2,
                after_ms=780,
                latency_ms=640.2,
                provider="groq",
                model="llama-3.1-8b-instant",
                error_code="provider_rate_limited",
                error_message="groq answered 429: too many requests; Retry-After 1.",
                upstream_status=429,
            ),
            attempt=RelatedFactory(
                "chat.tests.factories.AttemptFactory",
                "interaction",
                number=3,
                after_ms=1890,
                latency_ms=948.0,
                time_to_first_token_ms=318.2,
            ),
        )
        tools = Trait(
            endpoint=Interaction.Endpoint.COMPLETIONS,
            prompt="Where is order A-1042?",
            system_prompt="You are the shop's assistant.",
            messages=[
                {"role": "system", "content": "You are the shop's assistant."},
                {"role": "user", "content": [{"type": "text", "text": "Where is order A-1042?"}]},
            ],
            parameters={"temperature": 0.2, "tools": [{"type": "function", "function": {"name": "find_order"}}]},
            response="",
            tool_calls=TOOL_CALLS,
            finish_reason="tool_calls",
        )
        unpriced = Trait(
            model_requested="ollama/qwen3:4b",
            model="ollama/qwen3:4b",
            provider="ollama",
            cost=None,
            attempt=RelatedFactory(
                "chat.tests.factories.AttemptFactory", "interaction", provider="ollama", model="qwen3:4b", cost=None
            ),
        )
        long = Trait(prompt="Compare these two contracts clause by clause. " + "The party of the first part. " * 4000)
        markup = Trait(prompt=MARKUP, response=MARKUP, user_id="<i>eve</i>", metadata={"page": MARKUP})

    organization = SubFactory(OrganizationFactory)
    id = LazyAttribute(lambda row: id_at(timezone.now() - row.age))
    created_at = LazyAttribute(lambda row: moment_of(row.id))
    finished_at = LazyAttribute(lambda row: row.created_at + dt.timedelta(milliseconds=row.latency_ms or 0))
    user_id = "ana"
    plan = LazyAttribute(lambda row: row.organization.plan_id)
    endpoint = Interaction.Endpoint.CHAT
    streamed = False
    trace_id = Sequence(lambda number: f"req-{number:06d}")
    status = Status.SUCCEEDED
    model_requested = "gemini-2.0-flash"
    model = "gemini-2.0-flash"
    provider = "gemini"
    route_reason = "asked for"
    prompt = QUESTIONS[0][0]
    response = QUESTIONS[0][1]
    parameters = LazyAttribute(lambda row: {"temperature": 0.7})
    finish_reason = "stop"
    input_tokens = 25
    output_tokens = 45
    cached_input_tokens = 0
    reasoning_tokens = 0
    cost = Decimal("0.0000205")
    latency_ms = 812.4
    provider_latency_ms = 809.9
    time_to_first_token_ms = 320.1
    attempt: Any = RelatedFactory("chat.tests.factories.AttemptFactory", "interaction")

    class Meta:
        model = Interaction
        skip_postgeneration_save = True

    @classmethod
    def _create(cls, model_class: type[Interaction], *args: Any, **kwargs: Any) -> Interaction:
        row = super()._create(model_class, *args, **kwargs)
        changes.note([row.id])
        return row


class AttemptFactory(DjangoModelFactory[Attempt]):
    class Params:
        after_ms = 2
        failed = Trait(
            status=Status.FAILED,
            error_code="provider_unavailable",
            error_message="Connection refused.",
            upstream_status=None,
            upstream_request_id="",
            finish_reason="",
            raw_finish_reason="",
            time_to_first_token_ms=None,
            latency_ms=412.5,
            input_tokens=None,
            output_tokens=None,
            cost=None,
        )

    interaction = SubFactory(InteractionFactory, attempt=None)
    number = 1
    provider = SelfAttribute("interaction.provider")
    model = SelfAttribute("interaction.model")
    started_at = LazyAttribute(lambda row: row.interaction.created_at + dt.timedelta(milliseconds=row.after_ms))
    status = SelfAttribute("interaction.status")
    upstream_request_id = Sequence(lambda number: f"chatcmpl-{number:08x}")
    finish_reason = SelfAttribute("interaction.finish_reason")
    raw_finish_reason = "STOP"
    input_tokens = SelfAttribute("interaction.input_tokens")
    output_tokens = SelfAttribute("interaction.output_tokens")
    cost = SelfAttribute("interaction.cost")
    latency_ms: Any = SelfAttribute("interaction.provider_latency_ms")
    time_to_first_token_ms = SelfAttribute("interaction.time_to_first_token_ms")

    class Meta:
        model = Attempt
