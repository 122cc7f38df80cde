"""Strict JSON: what is let in, what is refused, and in which words."""

import orjson
import pytest
from django.http import BadHeaderError, HttpResponse
from rest_framework.exceptions import ParseError

from llmchat.lib.rendering import MAX_DEPTH, OrjsonRenderer, json_response, parse_object


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "The body is empty"),
        (b"   ", "The body is empty"),
        (b"{", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a": "\xff"}', "not valid JSON in UTF-8"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a": NaN}', "not valid JSON"),
        (b'{"a": "x\\u0000y"}', "NUL character"),
        (b'{"a": ["x\\u0000y"]}', "NUL character"),
        (b'{"a\\u0000": 1}', "NUL character"),
        (nested(MAX_DEPTH + 1), "nested deeper"),
        (nested(100_000), "not valid JSON"),
        ("{}".encode("utf-16"), "not valid JSON"),
    ],
)
def test_refuses(raw, complaint):
    with pytest.raises(ParseError, match=complaint):
        parse_object(raw)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": "Grüße 😀", "number": 1.5, "null": None, "list": [{"deep": [True]}]},
        {"escaped": "\\u0000 as six characters is text"},
    ],
)
def test_lets_in(value):
    assert parse_object(orjson.dumps(value)) == value


def test_lets_in_the_deepest_allowed_nesting():
    assert orjson.dumps(parse_object(nested(MAX_DEPTH))) == nested(MAX_DEPTH)


def test_renders_nothing_for_an_empty_answer():
    assert OrjsonRenderer().render(None) == b""
    assert OrjsonRenderer().render({"ä": [1]}) == '{"ä":[1]}'.encode()


def test_answer_is_a_response_as_django_makes_it():
    ours = json_response({"a": 1}, status=201, headers={"Retry-After": "5", "content-type": "text/html"})
    djangos = HttpResponse(b'{"a":1}', status=201, headers={"Content-Type": "application/json", "Retry-After": "5"})
    assert bytes(ours) == bytes(djangos)
    assert {**vars(ours), "headers": None} == {**vars(djangos), "headers": None}
    assert dict(ours.headers) == dict(djangos.headers)


def test_answers_share_nothing():
    json_response({}).headers["X-First"] = "1"
    json_response({}).set_cookie("first", "1")
    assert bytes(json_response({})) == b"Content-Type: application/json\r\n\r\n{}"


def test_answer_of_nothing_has_no_type():
    assert bytes(json_response(None, status=204)) == b"\r\n\r\n"


def test_answer_refuses_a_header_that_would_be_two():
    with pytest.raises(BadHeaderError):
        json_response({}, headers={"X-Name": "a\r\nX-Other: b"})
