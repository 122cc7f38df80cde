"""The OpenAPI description of the chat app's endpoints: operations, examples, errors. No behaviour."""

from __future__ import annotations

from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
)

from chat.schema_shapes import (
    AnswerSerializer,
    ChunkEventSerializer,
    CompletionSerializer,
    ConversationDetailSerializer,
    ConversationPageSerializer,
    InteractionDetailSerializer,
    InteractionPageSerializer,
    ModelListSerializer,
    ModelSerializer,
    ModelStatusSerializer,
    StreamEventSerializer,
)
from chat.serializers import (
    ChatRequestSerializer,
    CompletionRequestSerializer,
    InteractionFilterSerializer,
    PageSerializer,
)
from llmchat.lib.schema import errors

_CHAT_ERRORS = errors(404, 408, 409, 413, 415, 502, 504)

_ID = "01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b11"
_CONVERSATION = "01926f0e-5c1a-7d3a-9a55-0a2b6a3f6b12"

_ANSWER = {
    "id": _ID,
    "userId": "12345",
    "prompt": "What is the capital of France?",
    "response": "The capital of France is Paris.",
    "model": "gemini-2.0-flash",
    "timestamp": "2026-06-15T14:32:00.123Z",
    "provider": "gemini",
    "conversationId": _CONVERSATION,
    "finishReason": "stop",
    "usage": {"promptTokens": 8, "completionTokens": 8, "totalTokens": 16},
    "cost": {"amount": "0.00000400", "currency": "USD"},
    "performance": {
        "latencyMs": 812.4,
        "providerLatencyMs": 809.9,
        "timeToFirstTokenMs": 320.1,
        "retries": 0,
        "fallback": False,
        "cached": False,
    },
}

_STREAM = """event: delta
data: {"text": "The capital of France"}

event: delta
data: {"text": " is Paris."}

event: done
data: {"id": "01926f0e-...", "userId": "12345", "response": "The capital of France is Paris.", ...}
"""

_CHUNKS = """data: {"id": "chatcmpl-...", "choices": [{"delta": {"content": "Paris"}, ...}], ...}

data: [DONE]
"""


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$"},
    OpenApiParameter.HEADER,
    description=(
        "Your own id of this request, the same as requestId; kept with the row. Whoever sends it again gets the same "
        "answer, without another call of the provider."
    ),
)
IDEMPOTENT_REPLAYED = OpenApiParameter(
    "Idempotent-Replayed",
    {"type": "string", "enum": ["true"]},
    OpenApiParameter.HEADER,
    description="Only where the answer was not made for this request, but for another one with its id.",
    response=[200],
)
_IDEMPOTENCY = [IDEMPOTENCY_KEY, IDEMPOTENT_REPLAYED]

_CHAT_EXAMPLES = [
    OpenApiExample(
        "A question",
        value={"userId": "12345", "prompt": "What is the capital of France?"},
        request_only=True,
    ),
    OpenApiExample(
        "A question with everything",
        value={
            "userId": "12345",
            "prompt": "And of Spain?",
            "systemPrompt": "Answer in one sentence.",
            "model": "auto",
            "temperature": 0.2,
            "maxTokens": 100,
            "conversationId": _CONVERSATION,
            "requestId": "order-4711",
            "metadata": {"screen": "help"},
        },
        request_only=True,
    ),
]

CHAT = extend_schema(
    operation_id="chat",
    summary="Ask a model",
    tags=["Chat"],
    request=ChatRequestSerializer,
    parameters=_IDEMPOTENCY,
    examples=[*_CHAT_EXAMPLES, OpenApiExample("An answer", value=_ANSWER, response_only=True, status_codes=["200"])],
    responses={
        (200, "application/json"): OpenApiResponse(AnswerSerializer, description="The answer."),
        (200, "text/event-stream"): OpenApiResponse(
            StreamEventSerializer,
            description="With `stream: true`: events `delta`, then `done` with the answer, or `error`.",
            examples=[OpenApiExample("A stream", value=_STREAM, media_type="text/event-stream", status_codes=["200"])],
        ),
        **_CHAT_ERRORS,
    },
)

CHAT_STREAM = extend_schema(
    operation_id="chat_stream",
    summary="Ask a model and get the answer as it comes",
    tags=["Chat"],
    request=ChatRequestSerializer,
    parameters=_IDEMPOTENCY,
    examples=_CHAT_EXAMPLES,
    responses={
        (200, "text/event-stream"): OpenApiResponse(
            StreamEventSerializer,
            description="Events `delta`, then `done` with the answer, or `error`.",
            examples=[OpenApiExample("A stream", value=_STREAM, media_type="text/event-stream", status_codes=["200"])],
        ),
        **_CHAT_ERRORS,
    },
)

COMPLETIONS = extend_schema(
    operation_id="chat_completions",
    summary="Ask a model, as OpenAI's clients do",
    description="OpenAI's chat completions. Fields that are not listed are passed through to the provider.",
    tags=["OpenAI-compatible"],
    request=CompletionRequestSerializer,
    parameters=_IDEMPOTENCY,
    examples=[
        OpenApiExample(
            "A question",
            value={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is the capital of France?"}]},
            request_only=True,
        )
    ],
    responses={
        (200, "application/json"): OpenApiResponse(CompletionSerializer, description="The answer."),
        (200, "text/event-stream"): OpenApiResponse(
            ChunkEventSerializer,
            description="With `stream: true`: chunks, then `[DONE]`.",
            examples=[OpenApiExample("Chunks", value=_CHUNKS, media_type="text/event-stream", status_codes=["200"])],
        ),
        **_CHAT_ERRORS,
    },
)

LIST_INTERACTIONS = extend_schema(
    operation_id="list_interactions",
    summary="Own interactions, newest first",
    tags=["History"],
    parameters=[InteractionFilterSerializer],
    responses={200: InteractionPageSerializer, **errors()},
)
RETRIEVE_INTERACTION = extend_schema(
    operation_id="retrieve_interaction",
    summary="One interaction with its attempts",
    tags=["History"],
    responses={200: InteractionDetailSerializer, **errors(404)},
)
LIST_CONVERSATIONS = extend_schema(
    operation_id="list_conversations",
    summary="Own conversations, newest first",
    tags=["History"],
    parameters=[PageSerializer],
    responses={200: ConversationPageSerializer, **errors()},
)
RETRIEVE_CONVERSATION = extend_schema(
    operation_id="retrieve_conversation",
    summary="One conversation with its interactions",
    tags=["History"],
    responses={200: ConversationDetailSerializer, **errors(404)},
)
DELETE_CONVERSATION = extend_schema(
    operation_id="delete_conversation",
    summary="Delete a conversation and the texts of its interactions",
    description="Tokens, cost and timings stay on record; prompts, responses and metadata are erased for good.",
    tags=["History"],
    responses={204: OpenApiResponse(description="Deleted."), **errors(404)},
)


_MODEL = OpenApiParameter(
    "model",
    {"type": "string", "minLength": 1},
    OpenApiParameter.PATH,
    description="Its name; may hold slashes.",
    examples=[OpenApiExample("The local model", value="local/smollm2-135m")],
)

LIST_MODELS = extend_schema(
    operation_id="list_models",
    summary="Models that this key may use",
    tags=["Models"],
    responses={200: ModelListSerializer, **errors()},
)
RETRIEVE_MODEL = extend_schema(
    operation_id="retrieve_model",
    summary="One model",
    tags=["Models"],
    parameters=[_MODEL],
    responses={200: ModelSerializer, **errors(404)},
)
MODEL_STATUS = extend_schema(
    operation_id="model_status",
    summary="How a model has been lately",
    tags=["Models"],
    parameters=[_MODEL],
    responses={200: ModelStatusSerializer, **errors(404)},
)
