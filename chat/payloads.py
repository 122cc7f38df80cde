"""Answers as callers get them: the native object, and OpenAI's objects and chunks. From facts to JSON, nothing else."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, assert_never

from chat.models import Attempt, Conversation, Interaction
from providers.values import Event, Finished, FinishReason, Json, ReasoningDelta, TextDelta, ToolCallDelta


def native_answer(row: Interaction) -> dict[str, Any]:
    """The answer of `/v1/chat`; costs in US dollars, times in milliseconds."""
    answer: dict[str, Any] = {
        "id": str(row.id),
        "userId": row.user_id,
        "prompt": row.prompt,
        "response": row.response,
        "model": row.model,
        "timestamp": timestamp(row.created_at),
        "provider": row.provider,
        "conversationId": str(row.conversation_id) if row.conversation_id else None,
        "finishReason": row.finish_reason or None,
        "usage": _native_usage(row),
        "cost": _cost(row.cost),
        "performance": {
            "latencyMs": row.latency_ms,
            "providerLatencyMs": row.provider_latency_ms,
            "timeToFirstTokenMs": row.time_to_first_token_ms,
            "retries": row.retries,
            "fallback": row.fallback,
            "cached": row.cached,
        },
    }
    if row.tool_calls:
        answer["toolCalls"] = row.tool_calls
    if row.request_id is not None:
        answer["requestId"] = row.request_id
    if row.metadata:
        answer["metadata"] = row.metadata
    return answer


def stored_interaction(row: Interaction) -> dict[str, Any]:
    """An interaction out of the record: the native answer, and what only the record knows."""
    return {
        **native_answer(row),
        "status": row.status,
        "modelRequested": row.model_requested,
        "error": (
            {"type": row.error_type, "code": row.error_code, "message": row.error_message} if row.error_code else None
        ),
    }


def stored_attempt(row: Attempt) -> dict[str, Any]:
    return {
        "number": row.number,
        "provider": row.provider,
        "model": row.model,
        "status": row.status,
        "errorCode": row.error_code or None,
        "latencyMs": row.latency_ms,
        "usage": _native_usage(row),
        "cost": _cost(row.cost),
    }


def stored_conversation(row: Conversation) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "userId": row.user_id,
        "title": row.title,
        "createdAt": timestamp(row.created_at),
        "updatedAt": timestamp(row.updated_at),
    }


def timestamp(moment: dt.datetime) -> str:
    """ISO 8601 in UTC with milliseconds and a Z."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _native_usage(row: Interaction | Attempt) -> dict[str, Any] | None:
    if row.input_tokens is None or row.output_tokens is None:
        return None
    usage: dict[str, Any] = {
        "promptTokens": row.input_tokens,
        "completionTokens": row.output_tokens,
        "totalTokens": row.input_tokens + row.output_tokens,
    }
    if row.cached_input_tokens:
        usage["cachedPromptTokens"] = row.cached_input_tokens
    if row.reasoning_tokens:
        usage["reasoningTokens"] = row.reasoning_tokens
    if row.usage_estimated:
        usage["estimated"] = True
    return usage


def _cost(amount: Decimal | None) -> dict[str, str] | None:
    """At least eight decimals, more where the amount has more; None for an unknown price."""
    if amount is None:
        return None
    text = f"{amount:.12f}"
    return {"amount": text[:-4] + text[-4:].rstrip("0"), "currency": "USD"}


def completion(row: Interaction, *, logprobs: list[Json], extra: dict[str, Json]) -> dict[str, Any]:
    """OpenAI's `chat.completion`."""
    message: dict[str, Any] = {"role": "assistant", "content": row.response or None, "refusal": None}
    if row.tool_calls:
        message["tool_calls"] = row.tool_calls
    elif not row.response:
        message["content"] = ""
    if row.reasoning:
        message["reasoning_content"] = row.reasoning
    choice = {
        "index": 0,
        "message": message,
        "logprobs": joined_logprobs(logprobs),
        "finish_reason": row.finish_reason,
    }
    return {**_head(row, "chat.completion"), "choices": [choice], "usage": _openai_usage(row), **extra}


def chunk(row: Interaction, event: Event) -> dict[str, Any]:
    """OpenAI's `chat.completion.chunk` for one event."""
    finish_reason: FinishReason | None = None
    logprobs: Json = None
    delta: dict[str, Any]
    match event:
        case TextDelta(text=text, logprobs=found):
            delta, logprobs = {"content": text}, found
        case ReasoningDelta(text=text):
            delta = {"reasoning_content": text}
        case ToolCallDelta():
            delta = {"tool_calls": [_tool_call_piece(event)]}
        case Finished(reason=reason):
            delta, finish_reason = {}, reason
        case _:
            assert_never(event)
    return _chunk(row, delta, finish_reason=finish_reason, logprobs=logprobs)


def first_chunk(row: Interaction) -> dict[str, Any]:
    return _chunk(row, {"role": "assistant", "content": ""})


def usage_chunk(row: Interaction) -> dict[str, Any]:
    """The chunk that OpenAI sends last when `stream_options.include_usage` asks for it."""
    return {**_head(row, "chat.completion.chunk"), "choices": [], "usage": _openai_usage(row)}


def _chunk(
    row: Interaction, delta: dict[str, Any], *, finish_reason: FinishReason | None = None, logprobs: Json = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {**_head(row, "chat.completion.chunk"), "choices": [choice]}


def _head(row: Interaction, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{row.id}",
        "object": kind,
        "created": int(row.created_at.timestamp()),
        "model": row.model,
    }


def _tool_call_piece(piece: ToolCallDelta) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": piece.arguments}
    if piece.name is not None:
        function["name"] = piece.name
    call: dict[str, Any] = {"index": piece.index, "function": function}
    if piece.id is not None:
        call["id"] = piece.id
        call["type"] = "function"
    call.update(piece.extra)
    return call


def joined_logprobs(pieces: list[Json]) -> Json:
    """OpenAI's `logprobs` of a text, of those of its pieces; None without any."""
    if not pieces:
        return None
    content = [entry for piece in pieces for entry in piece.get("content") or ()]
    return {"content": content, "refusal": None}


def _openai_usage(row: Interaction) -> dict[str, Any] | None:
    if row.input_tokens is None or row.output_tokens is None:
        return None
    return {
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "total_tokens": row.input_tokens + row.output_tokens,
        "prompt_tokens_details": {"cached_tokens": row.cached_input_tokens or 0},
        "completion_tokens_details": {"reasoning_tokens": row.reasoning_tokens or 0},
    }
