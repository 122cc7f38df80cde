"""The declared contract of the chat endpoints' requests, and how a valid one becomes a `Call`."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from chat import search
from chat.models import Status
from llmchat.lib import fields
from providers.values import Message

ROLES = ("system", "developer", "user", "assistant", "tool")
CONTENT_PARTS = ("text", "image_url", "input_audio", "file", "refusal")


@extend_schema_field(
    {
        "oneOf": [
            {"type": "string"},
            {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {"type": {"type": "string", "enum": CONTENT_PARTS}},
                    "if": {"properties": {"type": {"const": "text"}}},
                    "then": {"required": ["text"], "properties": {"text": {"type": "string"}}},
                },
            },
        ]
    }
)
class ContentField(fields.Kept):
    """Text, a list of content parts in OpenAI's shape, or null."""

    kept = frozenset({str})

    default_error_messages = {
        "invalid": "This must be a string, a list of content parts, or null.",
        "part": 'Each content part must be an object with a "type" of: {kinds}.',
        "text": 'A part of type "text" must have "text", a string.',
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_internal_value(self, data: Any) -> str | list[dict[str, Any]]:
        if isinstance(data, str):
            return data
        if not isinstance(data, list) or not data:
            self.fail("invalid")
        for part in data:
            if not isinstance(part, dict) or part.get("type") not in CONTENT_PARTS:
                self.fail("part", kinds=", ".join(CONTENT_PARTS))
            if part["type"] == "text" and not isinstance(part.get("text"), str):
                self.fail("text")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


_SAID = {"content": {"type": ["string", "array"]}}
_ONE_OF_OTHER_ROLE = {
    "minItems": 1,
    "contains": {"properties": {"role": {"not": {"const": "system"}}}},
}


@extend_schema_serializer(component_name="Message")
class MessageSerializer(fields.RuledSerializer):
    """One message, in OpenAI's shape."""

    rules = {
        "anyOf": [
            {
                "required": ["content"],
                "properties": {"role": {"not": {"const": "tool"}}, **_SAID},
            },
            {
                "required": ["tool_calls"],
                "properties": {"role": {"const": "assistant"}, "tool_calls": {"minItems": 1}},
            },
            {"required": ["content", "tool_call_id"], "properties": {"role": {"const": "tool"}, **_SAID}},
        ]
    }

    role = serializers.ChoiceField(choices=ROLES)
    content = ContentField(required=False)
    name = fields.Text(required=False, max_length=64, single_line=True)
    tool_calls = serializers.ListField(child=fields.JSONObject(), required=False, max_length=128)
    tool_call_id = fields.Text(required=False, max_length=128, single_line=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("content") is None and not (attrs["role"] == "assistant" and attrs.get("tool_calls")):
            raise serializers.ValidationError({"content": "This field is required."})
        if attrs["role"] == "tool" and not attrs.get("tool_call_id"):
            raise serializers.ValidationError({"tool_call_id": "A message of role tool must name the call it answers."})
        return attrs


def as_message(data: dict[str, Any]) -> Message:
    return Message(
        role=data["role"],
        content=data.get("content"),
        name=data.get("name"),
        tool_calls=data.get("tool_calls", ()),
        tool_call_id=data.get("tool_call_id"),
    )


def _check_length(messages: list[Message]) -> None:
    length = sum(len(message.text) for message in messages)
    if length > settings.MAX_PROMPT_CHARACTERS:
        raise serializers.ValidationError(
            f"The messages hold {length} characters; {settings.MAX_PROMPT_CHARACTERS} are allowed. Shorten them."
        )
    if not any(message.role != "system" for message in messages):
        raise serializers.ValidationError({"messages": "At least one message must not be of role system."})


@extend_schema_serializer(component_name="Chat")
class ChatRequestSerializer(fields.KnownFieldsSerializer):
    """The native call: `prompt` or `messages`, and how to answer."""

    rules = {
        "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        "properties": {"messages": _ONE_OF_OTHER_ROLE},
    }

    userId = fields.Text(max_length=128, single_line=True, help_text="Your own name for your user.")
    prompt = fields.Text(required=False, help_text="The question. Give this or messages.")
    messages = MessageSerializer(many=True, required=False, help_text="A whole thread of messages instead of prompt.")
    systemPrompt = fields.Text(required=False, help_text="Instructions for the model.")
    model = fields.Text(required=False, max_length=256, single_line=True, help_text="A model's name, or auto.")
    temperature = fields.Number(required=False, min_value=0, max_value=2)
    maxTokens = fields.Integer(required=False, min_value=1, max_value=1_000_000, help_text="Limit of the answer.")
    topP = fields.Number(required=False, min_value=0, max_value=1)
    stop = fields.TextOrList(required=False, max_items=4)
    conversationId = serializers.UUIDField(required=False, help_text="Carries that conversation's history along.")
    requestId = fields.Text(
        required=False,
        max_length=128,
        single_line=True,
        help_text="Your own id of this request; sent again, it gets the same answer.",
    )
    metadata = fields.StringMap(required=False, help_text="A flat object of strings, kept with the row.")
    stream = fields.Boolean(required=False, help_text="Answer with server-sent events.")
    cache = fields.Boolean(required=False, help_text="False: do not answer from the cache.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("prompt" in attrs) == ("messages" in attrs):
            raise serializers.ValidationError({"prompt": "Give either prompt or messages, one of the two."})
        if "messages" in attrs:
            messages = [as_message(data) for data in attrs["messages"]]
            if not messages:
                raise serializers.ValidationError({"messages": "This list may not be empty."})
        else:
            messages = [Message(role="user", content=attrs["prompt"])]
        if "systemPrompt" in attrs:
            messages.insert(0, Message(role="system", content=attrs["systemPrompt"]))
        _check_length(messages)
        attrs["messages"] = messages
        return attrs


def native_parameters(data: dict[str, Any]) -> dict[str, Any]:
    """The tuning of a native call in the names of `ChatRequest`."""
    names = {"temperature": "temperature", "maxTokens": "max_tokens", "topP": "top_p", "stop": "stop"}
    return {ours: data[theirs] for theirs, ours in names.items() if theirs in data}


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "object", "additionalProperties": True}]})
class ToolChoiceField(serializers.JSONField):
    """`auto`, `none`, `required`, or an object that names a tool."""

    default_error_messages = {"neither": "This must be a string or an object."}

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str | dict):
            self.fail("neither")
        return data


class StreamOptionsSerializer(serializers.Serializer[Any]):
    include_usage = fields.Boolean(required=False)


@extend_schema_serializer(component_name="Completion")
class CompletionRequestSerializer(fields.OpenSerializer):
    """OpenAI's call. What is not declared here is passed through to the provider as it is."""

    rules = {"additionalProperties": True, "properties": {"messages": _ONE_OF_OTHER_ROLE}}

    model = fields.Text(required=False, max_length=256, single_line=True)
    messages = MessageSerializer(many=True)
    stream = fields.Boolean(required=False, allow_null=True)
    stream_options = StreamOptionsSerializer(required=False, allow_null=True)
    temperature = fields.Number(required=False, allow_null=True, min_value=0, max_value=2)
    top_p = fields.Number(required=False, allow_null=True, min_value=0, max_value=1)
    max_tokens = fields.Integer(required=False, allow_null=True, min_value=1, max_value=1_000_000)
    max_completion_tokens = fields.Integer(required=False, allow_null=True, min_value=1, max_value=1_000_000)
    stop = fields.TextOrList(required=False, allow_null=True, max_items=4)
    seed = fields.Integer(required=False, allow_null=True, min_value=-(2**63), max_value=2**63 - 1)
    presence_penalty = fields.Number(required=False, allow_null=True, min_value=-2, max_value=2)
    frequency_penalty = fields.Number(required=False, allow_null=True, min_value=-2, max_value=2)
    n = fields.Integer(required=False, allow_null=True, min_value=1, max_value=1, help_text="Only 1 is supported.")
    tools = serializers.ListField(child=fields.JSONObject(), required=False, allow_null=True, max_length=128)
    tool_choice = ToolChoiceField(required=False, allow_null=True)
    response_format = fields.JSONObject(required=False, allow_null=True)
    user = fields.Text(required=False, allow_null=True, max_length=128, single_line=True, allow_blank=True)
    metadata = fields.StringMap(required=False, allow_null=True, help_text="Kept with the row.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        messages = [as_message(data) for data in attrs["messages"]]
        if not messages:
            raise serializers.ValidationError({"messages": "This list may not be empty."})
        _check_length(messages)
        known = {name: value for name, value in attrs.items() if value is not None}
        known["messages"] = messages
        return known


def _query_text(help_text: str, *, max_length: int) -> fields.Text:
    return fields.Text(required=False, max_length=max_length, single_line=True, help_text=help_text)


class PageSerializer(fields.KnownFieldsSerializer):
    """Query parameters of a list."""

    cursor = serializers.UUIDField(required=False, help_text="nextCursor of the page before.")
    limit = serializers.IntegerField(required=False, default=20, min_value=1, max_value=100, help_text="Rows a page.")
    userId = _query_text("Only this user's.", max_length=128)


class InteractionFilterSerializer(PageSerializer):
    conversationId = serializers.UUIDField(required=False, help_text="Only this conversation's.")
    model = _query_text("Only those answered by this model; * stands for any part, - for none.", max_length=256)
    status = serializers.ChoiceField(required=False, choices=Status.choices, help_text="Only those that ended so.")
    requestId = _query_text("Only those with this request id of yours.", max_length=128)
    since = serializers.DateTimeField(required=False, help_text="Only those from this moment on.")
    until = serializers.DateTimeField(required=False, help_text="Only those before this moment.")
    search = _query_text(
        'Only those with these words in prompt or response: words, "a phrase", -excluded. Also a whole userId, id, '
        "conversationId, X-Request-Id or requestId.",
        max_length=1_000,
    )

    def validate_search(self, text: str) -> str:
        if not search.terms(text):
            raise serializers.ValidationError('There is no word to look for. Give words, or a "phrase".')
        return text.strip()


def completion_parameters(data: dict[str, Any]) -> dict[str, Any]:
    """The tuning of OpenAI's call in the names of `ChatRequest`."""
    same = (
        *("temperature", "top_p", "max_tokens", "stop", "seed", "presence_penalty", "frequency_penalty"),
        *("tools", "tool_choice", "response_format", "extra"),
    )
    parameters = {name: data[name] for name in same if name in data}
    if "max_completion_tokens" in data:
        parameters["max_tokens"] = data["max_completion_tokens"]
    if not parameters["extra"]:
        del parameters["extra"]
    return parameters
