"""Messages of vendors made fit for people, and waits read from headers."""

from __future__ import annotations

import pytest

from providers.adapters import classify

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The key abcdef-123456 is wrong", "The key [key] is wrong"),
        ("The key abcdef-12****56 is wrong", "The key [key] is wrong"),
        ("Incorrect API key provided: sk-proj-********wxyz.", "Incorrect API key provided: [key]"),
        ("Authorization: Bearer eyJhbGciOi.abc", "Authorization: [key]"),
        ("API key AIzaSyD-1234567890 expired", "API key [key] expired"),
        ("several\nlines\x00 and  spaces", "several lines\x00 and spaces"),
        ("max_tokens is too large: 5 > 4", "max_tokens is too large: 5 > 4"),
        ("x" * 600, "x" * 500 + "…"),
    ],
)
def test_scrubbed_text_has_no_key_and_fits_on_a_line(text: str, expected: str) -> None:
    assert classify.scrub(text, secrets=["abcdef-123456"]) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00"}, 0.0),
    ],
)
def test_wait_is_read_in_every_form_or_not_at_all(headers: dict[str, str], expected: float | None) -> None:
    assert classify.retry_after(headers) == expected


def test_date_in_the_future_is_a_wait() -> None:
    waiting = classify.retry_after({"retry-after": "Fri, 31 Dec 2999 23:59:59 GMT"})
    assert waiting is not None
    assert waiting > 0


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"[1]", b'"text"', b"\xff\xfe", b"{" * 100_000, b'{"error": []}']
)
def test_refusal_that_explains_nothing_is_still_an_error(body: bytes) -> None:
    error = classify.refusal(500, headers={}, body=body)
    assert (error.code, error.message) == ("provider_server_error", "HTTP 500 without an explanation")
