"""How the OpenAPI schema tells of the fields and serializers in `llmchat.lib.fields`: everything that they refuse.

Registered by being imported. What a schema does not say, a caller learns only from a 400.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension, OpenApiSerializerFieldExtension

from llmchat.lib import fields

_CONTROL = r"\u0000-\u001f\u007f"
_VISIBLE = r"\S"
_SINGLE_LINE = f"^[^{_CONTROL}]*$"
_VISIBLE_SINGLE_LINE = rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"

Schema = dict[str, Any]


class TextSchema(OpenApiSerializerFieldExtension):
    target_class = fields.Text
    match_subclasses = True

    def map_serializer_field(self, auto_schema: object, direction: object) -> Schema:
        field: fields.Text = self.target
        schema: Schema = {"type": "string"}
        if not field.allow_blank:
            schema["minLength"] = 1
        if field.max_length is not None:
            schema["maxLength"] = field.max_length
        match field.single_line, field.allow_blank:
            case True, True:
                schema["pattern"] = _SINGLE_LINE
            case True, False:
                schema["pattern"] = _VISIBLE_SINGLE_LINE
            case False, False:
                schema["pattern"] = _VISIBLE
        return schema


class TextOrListSchema(OpenApiSerializerFieldExtension):
    target_class = fields.TextOrList

    def map_serializer_field(self, auto_schema: object, direction: object) -> Schema:
        field: fields.TextOrList = self.target
        several = {"type": "array", "items": {"type": "string"}, "maxItems": field.max_items}
        return {"oneOf": [{"type": "string"}, several]}


class JSONObjectSchema(OpenApiSerializerFieldExtension):
    target_class = fields.JSONObject

    def map_serializer_field(self, auto_schema: object, direction: object) -> Schema:
        return {"type": "object", "additionalProperties": True}


class StringMapSchema(OpenApiSerializerFieldExtension):
    target_class = fields.StringMap

    def map_serializer_field(self, auto_schema: object, direction: object) -> Schema:
        return {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": fields.StringMap.MAX_VALUE},
            "maxProperties": fields.StringMap.MAX_ENTRIES,
            "propertyNames": {"maxLength": fields.StringMap.MAX_KEY},
        }


class RuledSerializerSchema(OpenApiSerializerExtension):
    """Adds the serializer's `rules`, and that unknown fields are refused where they are."""

    target_class = fields.RuledSerializer
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Any) -> Schema:
        schema: Schema = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)  # noqa: SLF001 - the documented way
        rules = dict(self.target.rules)
        for name, keywords in rules.pop("properties", {}).items():
            schema["properties"][name] = {**schema["properties"][name], **keywords}
        schema.update(rules)
        if isinstance(self.target, fields.KnownFieldsSerializer):
            schema["additionalProperties"] = False
        return schema
