"""The shapes of the chat app's answers, for the OpenAPI description alone: `chat.payloads` makes them. No behaviour."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from chat.models import Status


class UsageSerializer(serializers.Serializer[Any]):
    """Tokens; prompt tokens include cached ones, completion tokens include reasoning."""

    promptTokens = serializers.IntegerField()
    completionTokens = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    cachedPromptTokens = serializers.IntegerField(required=False)
    reasoningTokens = serializers.IntegerField(required=False)
    estimated = serializers.BooleanField(required=False, help_text="True when no provider has told the usage.")


class CostSerializer(serializers.Serializer[Any]):
    amount = serializers.RegexField(r"^\d+\.\d{8,12}$", help_text="A decimal number as a string.")
    currency = serializers.ChoiceField(choices=["USD"])


class PerformanceSerializer(serializers.Serializer[Any]):
    """Times in milliseconds."""

    latencyMs = serializers.FloatField(allow_null=True)
    providerLatencyMs = serializers.FloatField(allow_null=True)
    timeToFirstTokenMs = serializers.FloatField(allow_null=True)
    retries = serializers.IntegerField()
    fallback = serializers.BooleanField()
    cached = serializers.BooleanField()


class AnswerSerializer(serializers.Serializer[Any]):
    """The native answer."""

    id = serializers.UUIDField()
    userId = serializers.CharField()
    prompt = serializers.CharField(allow_blank=True)
    response = serializers.CharField(allow_blank=True)
    model = serializers.CharField(allow_blank=True)
    timestamp = serializers.DateTimeField()
    provider = serializers.CharField(allow_blank=True)
    conversationId = serializers.UUIDField(allow_null=True)
    finishReason = serializers.CharField(allow_null=True)
    usage = UsageSerializer(allow_null=True)
    cost = CostSerializer(allow_null=True, help_text="Null when the price is not known.")
    performance = PerformanceSerializer()
    toolCalls = serializers.ListField(child=serializers.JSONField(), required=False)
    requestId = serializers.CharField(required=False)
    metadata = serializers.DictField(child=serializers.CharField(allow_blank=True), required=False)


class ErrorOnRecordSerializer(serializers.Serializer[Any]):
    type = serializers.CharField()
    code = serializers.CharField()
    message = serializers.CharField()


class AttemptSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    provider = serializers.CharField()
    model = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.choices)
    errorCode = serializers.CharField(allow_null=True)
    latencyMs = serializers.FloatField(allow_null=True)
    usage = UsageSerializer(allow_null=True)
    cost = CostSerializer(allow_null=True)


class InteractionSerializer(AnswerSerializer):
    """An interaction on record."""

    status = serializers.ChoiceField(choices=Status.choices)
    modelRequested = serializers.CharField(allow_blank=True)
    error = ErrorOnRecordSerializer(allow_null=True)


class InteractionDetailSerializer(InteractionSerializer):
    attempts = AttemptSerializer(many=True)


@extend_schema_serializer(many=False)
class InteractionPageSerializer(serializers.Serializer[Any]):
    data = InteractionSerializer(many=True)  # type: ignore[assignment]
    nextCursor = serializers.CharField(
        allow_null=True, help_text="Give it as cursor for the next page; null at the end."
    )
    lookedBackTo = serializers.DateTimeField(
        allow_null=True,
        help_text="When few rows fit, so many are looked at for one page and no more: then this is how far back, and "
        "nextCursor goes on from there. Else null.",
    )


class ConversationSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    userId = serializers.CharField()
    title = serializers.CharField(allow_blank=True)
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


class ConversationDetailSerializer(ConversationSerializer):
    interactions = InteractionSerializer(many=True, help_text="Oldest first; the newest 100.")


@extend_schema_serializer(many=False)
class ConversationPageSerializer(serializers.Serializer[Any]):
    data = ConversationSerializer(many=True)  # type: ignore[assignment]
    nextCursor = serializers.CharField(allow_null=True)


class CompletionSerializer(serializers.Serializer[Any]):
    """OpenAI's `chat.completion`."""

    id = serializers.CharField()
    object = serializers.ChoiceField(choices=["chat.completion"])
    created = serializers.IntegerField()
    model = serializers.CharField()
    choices = serializers.ListField(child=serializers.DictField())
    usage = serializers.DictField(allow_null=True)


class StreamEventSerializer(serializers.Serializer[Any]):
    """One server-sent event of the native stream."""

    event = serializers.ChoiceField(choices=["delta", "done", "error"])
    data = serializers.CharField(  # type: ignore[assignment]
        help_text='JSON: {"text": ...}; the whole answer; or the error object.'
    )


class ChunkEventSerializer(serializers.Serializer[Any]):
    """One server-sent event of OpenAI's stream; it has no name."""

    data = serializers.CharField(  # type: ignore[assignment]
        help_text="JSON: a `chat.completion.chunk`, or the error object; the last one is `[DONE]`."
    )


class ModelSerializer(serializers.Serializer[Any]):
    """OpenAI's model object with our extras."""

    id = serializers.CharField()
    object = serializers.ChoiceField(choices=["model"])
    created = serializers.IntegerField()
    owned_by = serializers.CharField(help_text="The provider.")
    context_window = serializers.IntegerField(allow_null=True)
    max_output_tokens = serializers.IntegerField(allow_null=True)
    pricing = serializers.DictField(
        child=serializers.CharField(), allow_null=True, help_text="US dollars per million tokens; null when not known."
    )


@extend_schema_serializer(many=False)
class ModelListSerializer(serializers.Serializer[Any]):
    object = serializers.ChoiceField(choices=["list"])
    data = ModelSerializer(many=True)  # type: ignore[assignment]


class ModelStatusSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    provider = serializers.CharField()
    status = serializers.ChoiceField(choices=["online", "degraded", "offline", "unknown"])
    averageResponseMs = serializers.FloatField(allow_null=True, help_text="Over the last hour.")
    errorRate = serializers.FloatField(allow_null=True, help_text="Failed calls ÷ calls, 0 to 1, over the last hour.")
    attempts = serializers.IntegerField(help_text="Calls over the last hour.")
    lastCheck = serializers.DateTimeField(allow_null=True)
