"""`POST /v1/chat`: the answer, its row, and what goes wrong."""

from decimal import Decimal
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async

from chat.models import Attempt, Conversation, Interaction, Status
from providers import catalogue
from providers.adapters.simulated import SimulatedAdapter
from providers.models import LanguageModel, Price

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def rows() -> list[Interaction]:
    return list(Interaction.objects.order_by("id").select_related("organization", "api_key", "conversation"))


@sync_to_async
def attempts_of(row: Interaction) -> list[Attempt]:
    return list(row.attempts.order_by("number"))


async def test_an_answer_is_a_row(owner, caller):
    response = await caller(owner.raw).chat(
        "What is the capital of France?",
        model="simulated/echo",
        systemPrompt="Be brief.",
        temperature=0,
        maxTokens=50,
        requestId="order-1",
        metadata={"screen": "help"},
    )
    assert response.status_code == 200, response.content
    answer = response.json()
    [row] = await rows()
    [attempt] = await attempts_of(row)

    assert answer == {
        "id": str(row.id),
        "userId": "u1",
        "prompt": "What is the capital of France?",
        "response": "What is the capital of France?",
        "model": "simulated/echo",
        "timestamp": row.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "provider": "simulated",
        "conversationId": str(row.conversation_id),
        "finishReason": "stop",
        "usage": answer["usage"],
        "cost": answer["cost"],
        "performance": {
            "latencyMs": row.latency_ms,
            "providerLatencyMs": row.provider_latency_ms,
            "timeToFirstTokenMs": row.time_to_first_token_ms,
            "retries": 0,
            "fallback": False,
            "cached": False,
        },
        "requestId": "order-1",
        "metadata": {"screen": "help"},
    }
    assert answer["usage"] == {
        "promptTokens": row.input_tokens,
        "completionTokens": row.output_tokens,
        "totalTokens": row.total_tokens,
    }
    assert row.status == Status.SUCCEEDED
    assert row.organization == owner.organization
    assert row.api_key == owner.key
    assert (row.system_prompt, row.messages, row.history_messages) == ("Be brief.", [], 0)
    assert row.parameters == {"temperature": 0, "max_tokens": 50}
    assert row.plan == owner.organization.plan_id
    assert (row.trace_id, row.request_id) == (response["X-Request-Id"], "order-1")
    assert row.model_requested == "simulated/echo"
    assert row.latency_ms >= row.provider_latency_ms >= attempt.time_to_first_token_ms >= 0
    assert (attempt.number, attempt.provider, attempt.model, attempt.status) == (
        1,
        "simulated",
        "echo",
        Status.SUCCEEDED,
    )
    assert (attempt.input_tokens, attempt.output_tokens, attempt.cost) == (
        row.input_tokens,
        row.output_tokens,
        row.cost,
    )
    assert row.conversation.title == "What is the capital of France?"


async def test_structured_messages_are_kept_as_given(owner, caller):
    messages = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": [{"type": "text", "text": "Three?"}]},
    ]
    response = await caller(owner.raw).post(
        "/v1/chat", {"userId": "u1", "messages": messages, "model": "simulated/echo"}
    )
    [row] = await rows()
    assert response.json()["response"] == "Three?"
    assert (row.prompt, row.messages) == ("Three?", messages)


async def test_a_provider_that_fails_gives_an_honest_error_and_a_row(owner, caller, settings, no_waiting):
    response = await caller(owner.raw).chat(model="simulated/503-forever")
    [row] = await rows()
    attempts = await attempts_of(row)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "provider_overloaded"
    assert response.json()["error"]["request_id"] == response["X-Request-Id"]
    assert (row.status, row.error_code, row.error_type) == (Status.FAILED, "provider_overloaded", "provider_error")
    assert (row.cost, row.input_tokens, row.response) == (None, None, "")
    assert [attempt.status for attempt in attempts] == [Status.FAILED] * len(attempts)
    assert len(attempts) == len(SimulatedAdapter.log) > 1
    assert row.retries == len(attempts) - 1


async def test_a_fallback_answers_and_the_row_says_so(owner, caller, settings, no_waiting):
    settings.FALLBACK_ORDER = ["simulated/echo"]
    response = await caller(owner.raw).chat("Hello?", model="simulated/503-forever")
    [row] = await rows()
    attempts = await attempts_of(row)
    assert response.status_code == 200
    assert response.json()["response"] == "Hello?"
    assert response.json()["model"] == "simulated/echo"
    assert response.json()["performance"]["fallback"] is True
    assert (row.model_requested, row.model, row.fallback) == ("simulated/503-forever", "simulated/echo", True)
    assert [(attempt.model, attempt.status, attempt.cost is not None) for attempt in attempts[-2:]] == [
        ("503-forever", Status.FAILED, False),
        ("echo", Status.SUCCEEDED, row.cost is not None),
    ]


async def test_a_cut_answer_is_never_a_success(owner, caller, no_waiting):
    response = await caller(owner.raw).chat(model="simulated/cut")
    [row] = await rows()
    assert response.status_code == 502
    assert row.status == Status.FAILED
    assert row.finish_reason == ""


async def test_our_refused_credentials_are_not_the_callers_401(owner, caller, no_waiting):
    response = await caller(owner.raw).chat(model="simulated/key-refused")
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "provider_credentials_rejected"


async def test_the_vendors_reason_for_refusing_content_reaches_the_caller(owner, caller, no_waiting):
    response = await caller(owner.raw).chat(model="simulated/content-policy")
    [row] = await rows()
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "content_policy_violation"
    assert len(await attempts_of(row)) == 1


async def test_an_unknown_price_is_null_and_never_zero(owner, caller):
    response = await caller(owner.raw).chat(model="simulated/echo")
    [row] = await rows()
    assert response.json()["cost"] is None
    assert row.cost is None


async def test_a_known_price_is_frozen_with_its_version(owner, caller):
    model = await LanguageModel.objects.acreate(name="simulated/ok", provider="simulated", upstream_id="ok")
    priced = await Price.objects.acreate(model=model, input_per_million="0.5", output_per_million="1.25")
    await priced.arefresh_from_db()
    catalogue.forget()
    response = await caller(owner.raw).chat(model="simulated/ok")
    [row] = await rows()
    [attempt] = await attempts_of(row)
    expected = (row.input_tokens * priced.input_per_million + row.output_tokens * priced.output_per_million) / 10**6
    assert attempt.price_id == priced.id
    assert row.cost == attempt.cost == expected.quantize(Decimal("1e-12"))
    assert Decimal(response.json()["cost"]["amount"]) == row.cost


async def test_the_conversation_carries_its_history(owner, caller, sent):
    person = caller(owner.raw)
    first = (await person.chat("My name is Ada.", systemPrompt="Be kind.", model="simulated/echo")).json()
    second = (await person.chat("Who am I?", conversationId=first["conversationId"], model="simulated/echo")).json()
    assert second["conversationId"] == first["conversationId"]
    _, row = await rows()
    assert row.history_messages == 2
    sent = sent[-1].messages
    assert [(message.role, message.text) for message in sent] == [
        ("system", "Be kind."),
        ("user", "My name is Ada."),
        ("assistant", "My name is Ada."),
        ("user", "Who am I?"),
    ]
    assert await Conversation.objects.acount() == 1


@pytest.mark.parametrize("other", ["stranger", "another user"])
async def test_a_conversation_of_somebody_else_does_not_exist(owner, stranger, caller, other):
    first = (await caller(owner.raw).chat()).json()
    person = stranger if other == "stranger" else owner
    fields = {} if other == "stranger" else {"userId": "u2"}
    response = await caller(person.raw).chat(conversationId=first["conversationId"], **fields)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "conversation_not_found"
    assert len(await rows()) == 1


async def test_a_model_outside_the_plan_is_refused_before_anything_is_spent(owner, caller):
    owner.organization.plan.allowed_models = ["local/*"]
    await owner.organization.plan.asave()
    response = await caller(owner.raw).chat(model="simulated/ok")
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "model_not_allowed"
    assert await rows() == []
    assert not SimulatedAdapter.log


async def test_a_fallback_outside_the_plan_is_not_tried(owner, caller, settings, no_waiting):
    settings.FALLBACK_ORDER = ["simulated/echo"]
    owner.organization.plan.allowed_models = ["simulated/500*"]
    await owner.organization.plan.asave()
    response = await caller(owner.raw).chat(model="simulated/503-forever")
    assert response.status_code == 403


async def test_the_request_limit_of_the_plan_holds(owner, caller):
    owner.organization.plan.requests_per_hour = 2
    await owner.organization.plan.asave()
    person = caller(owner.raw)
    answers = [await person.chat() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer["X-RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
    assert int(answers[-1]["Retry-After"]) >= 1
    assert len(await rows()) == 2


async def test_prompts_and_answers_are_not_kept_when_switched_off(owner, caller, settings):
    settings.LOG_PROMPTS = settings.LOG_RESPONSES = False
    response = await caller(owner.raw).chat("Secret question", model="simulated/echo", systemPrompt="Secret rules")
    [row] = await rows()
    assert response.json()["response"] == "Secret question"
    assert (row.prompt, row.system_prompt, row.messages, row.response) == ("", "", [], "")
    assert row.input_tokens > 0
    conversation = await Conversation.objects.aget()
    assert conversation.title == ""


async def test_the_ids_of_a_response_are_its_rows(owner, caller):
    person = caller(owner.raw)
    response = await person.post(
        "/v1/chat",
        {"userId": "u", "prompt": "x", "model": "simulated/ok"},
        X_Request_Id="trace.1",
        Idempotency_Key="k-1",
    )
    [row] = await rows()
    assert response["X-Request-Id"] == "trace.1"
    assert (row.trace_id, row.request_id) == ("trace.1", "k-1")
    assert UUID(response.json()["id"]) == row.id
