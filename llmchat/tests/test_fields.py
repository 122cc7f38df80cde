"""Fields that take a JSON type at its word."""

from typing import Any

import pytest
from rest_framework.exceptions import ValidationError

from llmchat.lib import fields


@pytest.mark.parametrize(
    ("field", "good"),
    [
        (fields.Text(), " kept as it is "),
        (fields.Text(allow_blank=True), ""),
        (fields.Integer(), 5),
        (fields.Integer(), 5.0),
        (fields.Number(), 0),
        (fields.Number(), 0.5),
        (fields.Boolean(), False),
        (fields.JSONObject(), {"a": [1]}),
        (fields.StringMap(), {"a": "b"}),
        (fields.TextOrList(max_items=2), ["a", "b"]),
    ],
)
def test_takes_what_it_declares(field: Any, good: Any) -> None:
    assert field.run_validation(good) == good


def test_one_string_is_a_list_of_one() -> None:
    assert fields.TextOrList(max_items=1).run_validation("stop") == ["stop"]


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        (fields.Text(), 5),
        (fields.Text(), True),
        (fields.Text(), None),
        (fields.Text(), ""),
        (fields.Text(), " \n "),
        (fields.Text(max_length=3), "four"),
        (fields.Text(single_line=True), "a\nb"),
        (fields.Text(single_line=True), "a\x7fb"),
        (fields.Integer(), "5"),
        (fields.Integer(), 5.5),
        (fields.Integer(), float("inf")),
        (fields.Integer(), -(2.0**63)),
        (fields.Integer(), True),
        (fields.Integer(max_value=10), 11),
        (fields.Number(), "0.5"),
        (fields.Number(), False),
        (fields.Number(), float("inf")),
        (fields.Number(max_value=2), 2.1),
        (fields.Boolean(), "true"),
        (fields.Boolean(), 1),
        (fields.Boolean(), None),
        (fields.JSONObject(), [1]),
        (fields.StringMap(), {"a": 1}),
        (fields.StringMap(), {"a": "x" * 1025}),
        (fields.StringMap(), {str(number): "" for number in range(65)}),
        (fields.TextOrList(max_items=1), ["a", "b"]),
        (fields.TextOrList(max_items=1), [1]),
        (fields.TextOrList(max_items=1), {}),
    ],
)
def test_refuses_what_it_does_not(field: Any, bad: Any) -> None:
    with pytest.raises(ValidationError):
        field.run_validation(bad)
