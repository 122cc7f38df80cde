"""Prepared validation against the serializers that it is derived from: the same values, the same refusals."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework import serializers

from chat.serializers import ROLES, ChatRequestSerializer, CompletionRequestSerializer
from llmchat.lib import fields
from llmchat.lib.prepared import prepared

pytestmark = pytest.mark.once

_TEXTS = (
    st.sampled_from(["", " ", "\t\n", "Hello.", "é💡", "a\0b", "line\nbreak", "\x7f", "\u200b", "x" * 129]) | st.text()
)
_NUMBERS = st.sampled_from([0, 1, -1, 2, 2.0, 1.5, 2.1, 1_000_000, 1_000_001, 2**53, 2**63, 1e300]) | st.floats(
    allow_nan=False
)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_PARTS = st.lists(
    st.fixed_dictionaries({"type": st.sampled_from(["text", "image_url", "video"])}, optional={"text": _TEXTS}),
    max_size=2,
)
_MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from([*ROLES, "robot"])},
        optional={
            "content": _TEXTS | _PARTS | st.none(),
            "name": _TEXTS,
            "tool_calls": st.lists(st.just({"id": "1"}) | _ANYTHING, max_size=2),
            "tool_call_id": _TEXTS,
            "unknown": _ANYTHING,
        },
    )
    | _ANYTHING,
    max_size=3,
)


def _bodies(serializer_class: Any, likely: dict[str, Any]) -> Any:
    """Bodies of the serializer's fields, each with likely values or with anything, and of others."""
    optional = {name: likely.get(name, _NUMBERS | _TEXTS) | _ANYTHING for name in serializer_class().fields}
    return st.fixed_dictionaries({}, optional={**optional, "unknown": _ANYTHING, "extra": _ANYTHING}) | _ANYTHING


_GOOD_NATIVE = {"userId": "u", "prompt": "Hello."}
_GOOD_OPENAI = {"messages": [{"role": "user", "content": "Hello."}]}
_COMMON = {
    "messages": _MESSAGES,
    "stop": st.lists(_TEXTS, max_size=5) | _TEXTS,
    "metadata": st.dictionaries(_TEXTS, _TEXTS, max_size=3),
    "stream": st.booleans(),
}
NATIVE = _bodies(
    ChatRequestSerializer, {**_COMMON, "conversationId": st.uuids().map(str) | _TEXTS, "cache": st.booleans()}
)
OPENAI = _bodies(
    CompletionRequestSerializer, {**_COMMON, "stream_options": st.just({"include_usage": True}) | _ANYTHING}
)


def mutated(good: dict[str, Any], bodies: Any) -> Any:
    """Bodies that are good but for a few fields."""
    return bodies.map(lambda body: {**good, **body} if isinstance(body, dict) else body)


def outcome(validate: Any, body: Any) -> Any:
    try:
        return "valid", validate(body)
    except serializers.ValidationError as refusal:
        return "refused", refusal.get_full_details()


def declared(serializer_class: Any) -> Any:
    def validate(body: Any) -> Any:
        serializer = serializer_class(data=body)
        serializer.is_valid(raise_exception=True)
        return serializer.validated_data

    return validate


def assert_same(serializer_class: Any, body: Any) -> None:
    # As it would come: what JSON cannot say is not asked, and neither side sees the other's copy.
    raw = orjson.dumps(body)
    expected = outcome(declared(serializer_class), orjson.loads(raw))
    found = outcome(prepared(serializer_class), orjson.loads(raw))
    assert canonical(found) == canonical(expected)


def canonical(value: Any) -> bytes:
    """As JSON, which tells 1, 1.0 and true from each other. The order of fields has no meaning."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


@given(body=mutated(_GOOD_NATIVE, NATIVE) | NATIVE)
@example(body=_GOOD_NATIVE)
@example(body={"userId": "u", "messages": _GOOD_OPENAI["messages"], "temperature": 0, "maxTokens": 5.0, "stop": "x"})
def test_native_requests_are_judged_as_declared(body: Any) -> None:
    assert_same(ChatRequestSerializer, body)


@given(body=mutated(_GOOD_OPENAI, OPENAI) | OPENAI)
@example(body=_GOOD_OPENAI)
@example(body={**_GOOD_OPENAI, "stream_options": None, "user": "", "seed": 2**63 - 1, "logit_bias": {"1": 1}})
def test_openai_requests_are_judged_as_declared(body: Any) -> None:
    assert_same(CompletionRequestSerializer, body)


def test_good_request_is_never_put_to_the_serializer_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    validate = prepared(ChatRequestSerializer)
    monkeypatch.setattr(serializers.Serializer, "is_valid", lambda *_args, **_kwargs: pytest.fail("it was asked"))
    assert validate({"userId": "u", "prompt": "é", "temperature": 1, "maxTokens": 9})["userId"] == "u"


class Renamed(serializers.Serializer[Any]):
    name = fields.Text(source="other")


class WithDefault(serializers.Serializer[Any]):
    name = fields.Text(default="x")


class WithOwnRule(serializers.Serializer[Any]):
    name = fields.Text()

    def validate_name(self, value: str) -> str:
        return value


class WithOwnWay(serializers.Serializer[Any]):
    def to_internal_value(self, data: Any) -> Any:
        return data


class WithBounds(serializers.Serializer[Any]):
    items: Any = serializers.ListSerializer(child=fields.RuledSerializer(), max_length=2)


@pytest.mark.parametrize("serializer_class", [Renamed, WithDefault, WithOwnRule, WithOwnWay, WithBounds])
def test_serializer_with_ways_of_its_own_is_refused_at_once(serializer_class: Any) -> None:
    with pytest.raises(TypeError, match="cannot be prepared"):
        prepared(serializer_class)
