"""Validation without a serializer's costs for each request: checks that are derived once from its own fields.

A check only ever says yes. What it passes has the values that the serializer would give; on the least doubt the field,
or the whole serializer, is asked itself, so that refusals are its own, word for word. It stays the one declaration.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from django.core import validators
from rest_framework import serializers
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from llmchat.lib import fields

#: Gives the validated value, or raises `_Doubt` or DRF's ValidationError.
Check = Callable[[Any], Any]

_OF_TEXT = {
    validators.MaxLengthValidator,
    validators.ProhibitNullCharactersValidator,
    ProhibitSurrogateCharactersValidator,
}
_OF_NUMBERS = {validators.MinValueValidator, validators.MaxValueValidator}
#: Ways to treat a body that checks know how to follow.
_TREATMENTS = {
    base.to_internal_value for base in (serializers.Serializer, fields.KnownFieldsSerializer, fields.OpenSerializer)
}


class _Doubt(Exception):
    """The checks cannot say yes; that need not mean no."""


def prepared(serializer_class: type[serializers.Serializer[Any]]) -> Callable[[Any], dict[str, Any]]:
    """A function that does what `serializer_class(data=...)` does with JSON: gives the validated data or raises DRF's
    `ValidationError`. Raises TypeError, now, for a serializer whose ways the checks do not follow.
    """
    check = _object(serializer_class())

    def validate(data: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = check(data)
            return found
        except (_Doubt, serializers.ValidationError):
            pass
        serializer = serializer_class(data=data)
        serializer.is_valid(raise_exception=True)
        validated: dict[str, Any] = serializer.validated_data
        return validated

    return validate


def _object(serializer: serializers.Serializer[Any]) -> Check:
    _require_plain(serializer)
    checks = {name: _field(field) for name, field in serializer.fields.items()}
    required = tuple(name for name, field in serializer.fields.items() if field.required)
    refuses_others = isinstance(serializer, fields.KnownFieldsSerializer)
    keeps_others = isinstance(serializer, fields.OpenSerializer)
    validate = serializer.validate

    def check(data: Any) -> Any:
        if type(data) is not dict:
            raise _Doubt
        values: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for name, value in data.items():
            judge = checks.get(name)
            if judge is not None:
                values[name] = judge(value)
            else:
                others[name] = value
        if others and refuses_others:
            raise _Doubt
        for name in required:
            if name not in values:
                raise _Doubt
        if keeps_others:
            values[fields.OTHERS] = others
        return validate(values)

    return check


def _field(field: serializers.Field[Any, Any, Any, Any]) -> Check:
    match field:
        case serializers.Serializer():
            judge = _object(field)
        case serializers.ListSerializer():
            judge = _list(field)
        case fields.Text():
            judge = _text(field)
        case fields.Number():
            judge = _number(field, {int, float})
        case fields.Integer():
            judge = _number(field, {int})
        case fields.Boolean():
            judge = _boolean(field)
        case serializers.ChoiceField() if type(field) is serializers.ChoiceField and not field.validators:
            judge = _choice(field)
        case _ if isinstance(field, fields.Kept) and not field.validators:
            judge = _kept(field)
        case _:
            return field.run_validation
    if not field.allow_null:
        return judge
    return lambda value: None if value is None else judge(value)


def _list(field: serializers.ListSerializer[Any]) -> Check:
    if type(field) is not serializers.ListSerializer or field.validators:
        raise _cannot_follow(field)
    if any(getattr(field, name) is not None for name in ("min_length", "max_length")) or not field.allow_empty:
        raise _cannot_follow(field)
    judge = _object(field.child)  # type: ignore[arg-type]

    def check(data: Any) -> Any:
        if type(data) is not list:
            raise _Doubt
        return [judge(item) for item in data]

    return check


def _text(field: fields.Text) -> Check:
    validate = field.run_validation
    if not {type(validator) for validator in field.validators} <= _OF_TEXT:
        return validate
    longest = math.inf if field.max_length is None else field.max_length
    single_line, allow_blank = field.single_line, field.allow_blank

    def check(value: Any) -> Any:
        if (
            type(value) is str
            and len(value) <= longest
            and (allow_blank or (value and not value.isspace()))
            and (value.isprintable() if single_line else "\0" not in value)
            and (value.isascii() or _is_unicode(value))
        ):
            return value
        return validate(value)

    return check


def _is_unicode(value: str) -> bool:
    """Whether it holds no half of a surrogate pair. DRF's own validator looks at each character in Python."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(field: fields.Number | fields.Integer, types: set[type]) -> Check:
    validate = field.run_validation
    if not {type(validator) for validator in field.validators} <= _OF_NUMBERS:
        return validate
    least = -math.inf if field.min_value is None else field.min_value
    most = math.inf if field.max_value is None else field.max_value

    def check(value: Any) -> Any:
        if type(value) in types and least <= value <= most and math.isfinite(value):
            return value
        return validate(value)

    return check


def _boolean(field: fields.Boolean) -> Check:
    validate = field.run_validation

    def check(value: Any) -> Any:
        return value if value is True or value is False else validate(value)

    return check


def _choice(field: serializers.ChoiceField) -> Check:
    validate, choices = field.run_validation, field.choice_strings_to_values

    def check(value: Any) -> Any:
        return choices[value] if type(value) is str and value in choices else validate(value)

    return check


def _kept(field: fields.Kept) -> Check:
    validate, kinds = field.run_validation, field.kept

    def check(value: Any) -> Any:
        return value if type(value) in kinds else validate(value)

    return check


def _require_plain(serializer: serializers.Serializer[Any]) -> None:
    """What the checks follow: fields under their own names, and a `validate` that looks at its argument alone."""
    if type(serializer).to_internal_value not in _TREATMENTS or serializer.validators:
        raise _cannot_follow(serializer)
    for name, field in serializer.fields.items():
        has_default = field.default is not serializers.empty
        if field.source != name or field.read_only or has_default or hasattr(serializer, f"validate_{name}"):
            raise _cannot_follow(serializer)


def _cannot_follow(serializer: Any) -> TypeError:
    return TypeError(f"{type(serializer).__name__} cannot be prepared: validate with the serializer itself.")
