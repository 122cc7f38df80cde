"""Serializer fields that take a JSON type at its word: a number is not text, "5" is not a number, null is not false.

DRF's own fields convert; an API whose record is evidence must not guess. `llmchat.lib.schema_fields` tells the OpenAPI
schema what they refuse.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rest_framework import serializers

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: Where a validated `OpenSerializer` keeps what it does not declare.
OTHERS: Final = "extra"


class Text(serializers.CharField):
    """A JSON string, kept as it is. `single_line=True` refuses control characters."""

    default_error_messages = {
        "invalid": "This must be a string.",
        "control": "This must not hold control characters such as line breaks.",
    }

    def __init__(self, *, single_line: bool = False, **kwargs: Any) -> None:
        self.single_line = single_line
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if self.single_line and _CONTROL.search(data):
            self.fail("control")
        return data

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and not self.allow_blank and not data.strip():
            self.fail("blank")
        return super(serializers.CharField, self).run_validation(data)


class Integer(serializers.IntegerField):
    """A JSON number without a fraction: `5.0` is `5`, as JSON Schema has it."""

    def to_internal_value(self, data: Any) -> int:
        # Beyond this a float is not the number that was written.
        if isinstance(data, float) and data.is_integer() and abs(data) < 2**53:
            return int(data)
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Number(serializers.FloatField):
    """A finite JSON number."""

    def to_internal_value(self, data: Any) -> float:
        if isinstance(data, bool) or not isinstance(data, int | float) or not math.isfinite(data):
            self.fail("invalid")
        return data


class Boolean(serializers.BooleanField):
    """JSON's true or false."""

    default_error_messages = {"invalid": "This must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Kept(serializers.Field):  # type: ignore[type-arg]
    """A field that has nothing to ask of values of these very types: they are kept as they are."""

    kept: ClassVar[frozenset[type]] = frozenset()


class TextOrList(serializers.Field):  # type: ignore[type-arg]
    """A string or a list of strings, given on as a list."""

    default_error_messages = {
        "invalid": "This must be a string or a list of strings.",
        "too_many": "This may hold {limit} strings at most.",
    }

    def __init__(self, *, max_items: int, **kwargs: Any) -> None:
        self.max_items = max_items
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> list[str]:
        items = [data] if isinstance(data, str) else data
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            self.fail("invalid")
        if len(items) > self.max_items:
            self.fail("too_many", limit=self.max_items)
        return items

    def to_representation(self, value: Any) -> Any:
        return value


class JSONObject(serializers.JSONField):
    """A JSON object, kept as it is."""

    default_error_messages = {"not_object": "This must be an object, such as {{...}}."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_object")
        return data


class StringMap(JSONObject):
    """A flat JSON object of strings: `MAX_ENTRIES` at most; keys up to `MAX_KEY`, values to `MAX_VALUE` characters."""

    MAX_ENTRIES: Final = 64
    MAX_KEY: Final = 64
    MAX_VALUE: Final = 1024

    default_error_messages = {
        "values": "This must be a flat object whose values are strings.",
        "size": f"At most {MAX_ENTRIES} entries, keys up to {MAX_KEY} and values up to {MAX_VALUE} characters.",
    }

    def to_internal_value(self, data: Any) -> dict[str, str]:
        entries = super().to_internal_value(data)
        if not all(isinstance(value, str) for value in entries.values()):
            self.fail("values")
        if len(entries) > self.MAX_ENTRIES or any(
            len(key) > self.MAX_KEY or len(value) > self.MAX_VALUE for key, value in entries.items()
        ):
            self.fail("size")
        return entries


class RuledSerializer(serializers.Serializer):  # type: ignore[type-arg]
    """A serializer that says in JSON Schema what its `validate` asks of several fields together.

    `rules`: keywords beside `properties`; those under `properties` are added to that field's own.
    """

    rules: ClassVar[Mapping[str, Any]] = {}


class KnownFieldsSerializer(RuledSerializer):
    """A serializer that refuses fields it does not declare, naming them."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(data) - set(self.fields))):
            known = ", ".join(self.fields)
            raise serializers.ValidationError(
                {str(name)[:64]: f"This field is not known. Known fields: {known}." for name in unknown[:5]}
            )
        return super().to_internal_value(data)


class OpenSerializer(RuledSerializer):
    """A serializer that keeps fields it does not declare, as they are, under `OTHERS`."""

    def to_internal_value(self, data: Any) -> Any:
        value = super().to_internal_value(data)
        value[OTHERS] = {name: inner for name, inner in data.items() if name not in self.fields}
        return value
