"""The chat endpoints: HTTP in, a `Call` to the engine, HTTP out."""

from __future__ import annotations

from django.http import HttpResponseBase
from rest_framework.request import Request

from accounts.permissions import principal_of
from chat import engine, payloads, streaming
from chat.calls import Call
from chat.models import Interaction
from chat.schema import CHAT, CHAT_STREAM, COMPLETIONS
from chat.serializers import (
    ChatRequestSerializer,
    CompletionRequestSerializer,
    completion_parameters,
    native_parameters,
)
from llmchat.lib import request_id
from llmchat.lib.async_views import AsyncViewSet
from llmchat.lib.envelope import APIError
from llmchat.lib.prepared import prepared
from llmchat.lib.rendering import json_response

IDEMPOTENCY_KEY = "Idempotency-Key"

_native = prepared(ChatRequestSerializer)
_completion = prepared(CompletionRequestSerializer)


class ChatViewSet(AsyncViewSet):
    """`/v1/chat` and `/v1/chat/stream`."""

    required_scope = "chat"

    @CHAT
    async def create(self, request: Request) -> HttpResponseBase:
        return await self._answer(request, stream=None)

    @CHAT_STREAM
    async def stream(self, request: Request) -> HttpResponseBase:
        return await self._answer(request, stream=True)

    async def _answer(self, request: Request, *, stream: bool | None) -> HttpResponseBase:
        data = _native(request.data)
        call = Call(
            principal=principal_of(request),
            endpoint=Interaction.Endpoint.CHAT,
            user_id=data["userId"],
            messages=data["messages"],
            model=data.get("model", ""),
            parameters=native_parameters(data),
            conversation_id=data.get("conversationId"),
            keeps_conversation=True,
            request_id=_caller_request_id(request, data.get("requestId")),
            metadata=data.get("metadata", {}),
            stream=data.get("stream", False) if stream is None else stream,
            trace_id=request_id.current(),
        )
        if call.stream:
            return await streaming.native(await engine.accept_stream(call))
        reading = await engine.accept(call)
        return json_response(payloads.native_answer(await reading.whole()), headers=reading.headers)


class CompletionsViewSet(AsyncViewSet):
    """`/v1/chat/completions`, as OpenAI's clients speak it."""

    required_scope = "chat"

    @COMPLETIONS
    async def create(self, request: Request) -> HttpResponseBase:
        data = _completion(request.data)
        call = Call(
            principal=principal_of(request),
            endpoint=Interaction.Endpoint.COMPLETIONS,
            user_id=data.get("user", ""),
            messages=data["messages"],
            model=data.get("model", ""),
            parameters=completion_parameters(data),
            request_id=_caller_request_id(request, None),
            metadata=data.get("metadata", {}),
            stream=data.get("stream", False),
            trace_id=request_id.current(),
        )
        if call.stream:
            include_usage = data.get("stream_options", {}).get("include_usage", False)
            return await streaming.completions(await engine.accept_stream(call), include_usage=include_usage)
        reading = await engine.accept(call)
        body = payloads.completion(await reading.whole(), logprobs=reading.logprobs, extra=reading.extra)
        return json_response(body, headers=reading.headers)


def _caller_request_id(request: Request, in_body: str | None) -> str | None:
    in_header: str | None = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if in_header is None:
        return in_body
    if not 1 <= len(in_header) <= 128 or not in_header.isprintable():
        raise APIError(
            f"{IDEMPOTENCY_KEY} must be 1 to 128 printable characters.",
            status=400,
            code="invalid_request",
            param=IDEMPOTENCY_KEY,
        )
    if in_body is not None and in_body != in_header:
        raise APIError(
            f"{IDEMPOTENCY_KEY} and requestId differ. Send one of them.",
            status=400,
            code="invalid_request",
            param="requestId",
        )
    return in_header
