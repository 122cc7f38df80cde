"""Answers as callers get them, whole values."""

import datetime as dt
from decimal import Decimal
from uuid import UUID

import pytest

from chat import payloads
from chat.models import Interaction, Status
from providers.values import Finished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta

ID = UUID("01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b11")
THREAD = UUID("01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b12")
SIGNED = {"extra_content": {"google": {"thought_signature": "CpUBAXLI2nw="}}}


def interaction(**fields: object) -> Interaction:
    values: dict[str, object] = {
        "id": ID,
        "user_id": "12345",
        "prompt": "What is the capital of France?",
        "response": "Paris.",
        "model": "gemini-2.0-flash",
        "provider": "gemini",
        "created_at": dt.datetime(2024, 6, 15, 14, 32, 0, 123_456, tzinfo=dt.UTC),
        "conversation_id": THREAD,
        "status": Status.SUCCEEDED,
        "finish_reason": "stop",
        "input_tokens": 25,
        "output_tokens": 45,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "cost": Decimal("0.0000123"),
        "latency_ms": 812.4,
        "provider_latency_ms": 809.9,
        "time_to_first_token_ms": 320.1,
        **fields,
    }
    return Interaction(**values)


def test_the_native_answer_is_the_contracts() -> None:
    assert payloads.native_answer(interaction()) == {
        "id": str(ID),
        "userId": "12345",
        "prompt": "What is the capital of France?",
        "response": "Paris.",
        "model": "gemini-2.0-flash",
        "timestamp": "2024-06-15T14:32:00.123Z",
        "provider": "gemini",
        "conversationId": str(THREAD),
        "finishReason": "stop",
        "usage": {"promptTokens": 25, "completionTokens": 45, "totalTokens": 70},
        "cost": {"amount": "0.00001230", "currency": "USD"},
        "performance": {
            "latencyMs": 812.4,
            "providerLatencyMs": 809.9,
            "timeToFirstTokenMs": 320.1,
            "retries": 0,
            "fallback": False,
            "cached": False,
        },
    }


@pytest.mark.parametrize(
    ("cost", "shown"),
    [
        (None, None),
        (Decimal(0), "0.00000000"),
        (Decimal("1.5"), "1.50000000"),
        (Decimal("0.000000000001"), "0.000000000001"),
        (Decimal("0.00000001230"), "0.0000000123"),
    ],
)
def test_an_unknown_cost_is_null_and_a_free_one_is_zero(cost: Decimal | None, shown: str | None) -> None:
    answer = payloads.native_answer(interaction(cost=cost))
    assert answer["cost"] == (shown and {"amount": shown, "currency": "USD"})


def test_unknown_usage_is_null_and_estimated_usage_says_so() -> None:
    assert payloads.native_answer(interaction(input_tokens=None))["usage"] is None
    assert payloads.native_answer(interaction(usage_estimated=True, cached_input_tokens=5, reasoning_tokens=7))[
        "usage"
    ] == {
        "promptTokens": 25,
        "completionTokens": 45,
        "totalTokens": 70,
        "cachedPromptTokens": 5,
        "reasoningTokens": 7,
        "estimated": True,
    }


def test_the_completion_is_openais() -> None:
    row = interaction(reasoning="Hm.")
    assert payloads.completion(row, logprobs=[], extra={"system_fingerprint": "fp"}) == {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion",
        "created": 1718461920,
        "model": "gemini-2.0-flash",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris.", "refusal": None, "reasoning_content": "Hm."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 25,
            "completion_tokens": 45,
            "total_tokens": 70,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "system_fingerprint": "fp",
    }


def test_a_completion_that_calls_tools_has_null_content() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    message = payloads.completion(interaction(response="", tool_calls=[call]), logprobs=[], extra={})["choices"][0][
        "message"
    ]
    assert message == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}


def test_an_empty_completion_has_empty_content() -> None:
    assert (
        payloads.completion(interaction(response=""), logprobs=[], extra={})["choices"][0]["message"]["content"] == ""
    )


def test_logprobs_of_the_pieces_are_joined() -> None:
    pieces = [{"content": [{"token": "Par"}]}, {"content": [{"token": "is"}]}]
    shown = payloads.completion(interaction(), logprobs=pieces, extra={})["choices"][0]["logprobs"]
    assert shown == {"content": [{"token": "Par"}, {"token": "is"}], "refusal": None}


@pytest.mark.parametrize(
    ("event", "delta", "finish_reason"),
    [
        (TextDelta("Par"), {"content": "Par"}, None),
        (ReasoningDelta("Hm."), {"reasoning_content": "Hm."}, None),
        (
            ToolCallDelta(index=0, id="c1", name="weather", arguments="{"),
            {
                "tool_calls": [
                    {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{"}}
                ]
            },
            None,
        ),
        (ToolCallDelta(index=0, arguments="}"), {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, None),
        (
            ToolCallDelta(index=0, id="c1", name="weather", arguments="{}", extra=SIGNED),
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": "{}"},
                        **SIGNED,
                    }
                ]
            },
            None,
        ),
        (Finished(reason=FinishReason.LENGTH), {}, "length"),
    ],
)
def test_chunks_are_openais(event, delta, finish_reason) -> None:
    assert payloads.chunk(interaction(), event) == {
        "id": f"chatcmpl-{ID}",
        "object": "chat.completion.chunk",
        "created": 1718461920,
        "model": "gemini-2.0-flash",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
