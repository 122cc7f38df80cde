"""The log as it is read: JSON objects or readable lines, with the facts of the request, and never a secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.config
import re
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from llmchat.lib import logs, request_id
from llmchat.lib.redaction import REDACTED, Redactor

PLANTED = "planted-value-of-a-providers-key"
FORMS = [
    ("Authorization: Bearer abc.def-123456", f"Authorization: Bearer {REDACTED}"),
    ("sent 'Bearer abc.def-123456' along", f"sent 'Bearer {REDACTED}' along"),
    ("Basic dXNlcjpwYXNz failed", f"Basic {REDACTED} failed"),
    ("key sk-proj-abcdefgh12345678 refused", f"key {REDACTED} refused"),
    ("key llmc_AbCdEfGhIjKlMnOpQrStUvWxYz refused", f"key {REDACTED} refused"),
    ("key llmc_AbCdEfGh-IjKlMn_OpQrStUvWxYz refused", f"key {REDACTED} refused"),
    ("key AIzaSyA1234567890abcdefghijkl refused", f"key {REDACTED} refused"),
    ("https://host/v1?key=hunter22&alt=sse", f"https://host/v1?key={REDACTED}&alt=sse"),
    ("postgres://user:hunter22@db:5432/x", f"postgres://user:{REDACTED}@db:5432/x"),
    ("redis://:hunter22@cache:6379/0", f"redis://:{REDACTED}@cache:6379/0"),
    ("{'api_key': 'hunter22', 'n': 1}", f"{{'api_key': '{REDACTED}', 'n': 1}}"),
    ('{"password":"hunter22"}', f'{{"password":"{REDACTED}"}}'),
    (f"it was {PLANTED}.", f"it was {REDACTED}."),
]
HARMLESS = [
    "llm_tokens_total is 25, first_token: 10.0",
    "The key acme (llmc_AbCd…) was revoked",
    "http://127.0.0.1:8000/v1/chat?cursor=abc",
    "task-risk-analysis of sk-8",
]


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What a logger called `tested` writes under our configuration, as JSON."""
    configuration = logs.dict_config(level="INFO", as_json=True, secrets=[PLANTED])
    formatter = configuration["formatters"]["line"]
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=formatter["processors"], foreign_pre_chain=formatter["foreign_pre_chain"]
        )
    )
    logger = logging.getLogger("tested")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel("INFO")
    logs.begin()
    outside = request_id._current.set("")
    yield stream
    request_id._current.reset(outside)
    logs.begin()
    logger.removeHandler(handler)


def only_line(written: io.StringIO) -> dict[str, Any]:
    (line,) = written.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    return found


@pytest.mark.parametrize(("text", "shown"), FORMS)
def test_secret_in_a_text_is_recognised(text: str, shown: str) -> None:
    assert Redactor([PLANTED]).text(text) == shown


@pytest.mark.parametrize("text", [*HARMLESS, *(text for text, _ in FORMS)])
def test_what_is_passed_unchanged_is_what_would_not_change(text: str) -> None:
    redactor = Redactor([PLANTED])
    facts = {"said": text, "status": 200}
    assert not redactor.leaves(facts) or redactor.value(facts) == facts


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert Redactor([PLANTED, "short"]).text(text) == text


def test_secrets_are_found_by_their_names_at_any_depth() -> None:
    value = {
        "headers": [{"X-API-Key": "abc", "Accept": "json"}],
        "api_key": None,
        "tokens": 5,
        "error": ValueError(PLANTED),
    }
    assert Redactor([PLANTED]).value(value) == {
        "headers": [{"X-API-Key": REDACTED, "Accept": "json"}],
        "api_key": None,
        "tokens": 5,
        "error": REDACTED,
    }


@pytest.mark.parametrize("text", [text for text, _ in FORMS])
def test_secret_reaches_no_part_of_a_line(written: io.StringIO, text: str) -> None:
    secret = next(
        word for word in (PLANTED, "hunter22", "abc.def", "dXNl", "proj-abc", "AbCdEf", "SyA123") if word in text
    )

    def fail(local: str) -> None:
        raise ValueError(local)

    try:
        fail(text)
    except ValueError:
        logging.getLogger("tested").exception("Failed with %s", text, extra={"detail": {"inner": [text]}})
    line = only_line(written)
    assert secret not in json.dumps(line, ensure_ascii=False).replace("(text)", "")
    assert line["exception"].splitlines()[0] == "Traceback (most recent call last):"
    assert line["exception"].splitlines()[-1].startswith("ValueError: ")


def test_local_variables_are_not_shown(written: io.StringIO) -> None:
    def fail() -> None:
        kept_locally = "value-of-a-" + "local"  # noqa: F841 - looked for below
        raise ValueError

    try:
        fail()
    except ValueError:
        logging.getLogger("tested").exception("Failed")
    assert "value-of-a-local" not in written.getvalue()


def test_line_is_one_json_object_with_the_facts_of_its_request(written: io.StringIO) -> None:
    request_id.begin("request-1")
    logs.bind(organization="acme")
    logging.getLogger("tested").warning("Two\nlines of %s", "text", extra={"count": 2})
    assert only_line(written) == {
        "event": "Two\nlines of text",
        "level": "warning",
        "logger": "tested",
        "request_id": "request-1",
        "organization": "acme",
        "count": 2,
    }


def test_structlog_speaks_the_same(written: io.StringIO) -> None:
    structlog.get_logger("tested").info("said", count=2, api_key="abc")
    line = only_line(written)
    assert (line["event"], line["count"], line["api_key"], line["level"]) == ("said", 2, REDACTED, "info")


async def test_facts_bound_in_a_task_reach_the_line_of_its_request() -> None:
    logs.begin()

    async def work() -> None:
        logs.bind(interaction_id="i-1")

    await asyncio.create_task(work())
    assert logs.bound() == {"interaction_id": "i-1"}


async def test_facts_of_one_request_are_not_the_next_ones() -> None:
    async def request(name: str) -> dict[str, Any]:
        logs.begin()
        logs.bind(organization=name)
        await asyncio.sleep(0)
        return dict(logs.bound())

    assert await asyncio.gather(*(asyncio.create_task(request(name)) for name in "ab")) == [
        {"organization": "a"},
        {"organization": "b"},
    ]


def test_what_libraries_attach_is_left_out(written: io.StringIO) -> None:
    unwanted = {"request": "<Request: '/?key=x'>", "data": {"kwargs": "all of them"}, "color_message": "twin"}
    logging.getLogger("tested").info("said", extra=unwanted)
    assert set(only_line(written)) == {"event", "level", "logger"}


def test_text_that_is_no_unicode_is_not_lost(written: io.StringIO) -> None:
    logging.getLogger("tested").info("path %s", "/\udce9")
    assert only_line(written)["event"] == "path /\\udce9"


def test_readable_form_shows_no_secret_either() -> None:
    formatter = logs.dict_config(level="INFO", as_json=False, secrets=[PLANTED])["formatters"]["line"]
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=formatter["processors"], foreign_pre_chain=formatter["foreign_pre_chain"]
        )
    )
    record = logging.LogRecord("tested", logging.INFO, "", 0, "with %s", (PLANTED,), None)
    handler.emit(record)
    assert "with [redacted]" in stream.getvalue()


HARMLESS_FACTS: dict[str, Any] = {"method": "GET", "path": "/v1/models", "status": 200, "duration_ms": 1.25}


@pytest.mark.parametrize(
    ("facts", "bound"),
    [
        (HARMLESS_FACTS, {"organization": "Acme"}),
        (
            {**HARMLESS_FACTS, "path": f"/v1/{PLANTED}/\udc80", "status": None},
            {"organization": f"Acme {PLANTED}", "api_key": "x", "path": "/later"},
        ),
        ({**HARMLESS_FACTS, "path": "/\udc80"}, {"names": ["Acme", "B"]}),
        (HARMLESS_FACTS, {"organization": "Acme", "secret": "short"}),
    ],
    ids=["harmless", "planted", "of other kinds", "secret by its name"],
)
def test_short_way_writes_the_same_line(facts: dict[str, Any], bound: dict[str, Any]) -> None:
    configuration = logs.dict_config(level="INFO", as_json=True, secrets=[PLANTED])
    formatter = configuration["formatters"]["line"]
    lines = logs.Lines(stream := io.StringIO(), redactor=configuration["handlers"]["stdout"]["redactor"])
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=formatter["processors"], foreign_pre_chain=formatter["foreign_pre_chain"]
        )
    )
    logger = logging.getLogger("sooner")
    request_id.begin("given-1")
    logs.begin()
    logs.bind(**bound)
    root, before = logging.getLogger(), logging.getLogger().handlers
    root.handlers = [lines]
    try:
        logger.log(logging.WARNING, "request", extra=facts)
        logs.say(logger, logging.WARNING, "request", facts)
        root.handlers = [lines, logging.NullHandler()]
        logs.say(logger, logging.WARNING, "request", facts)
    finally:
        root.handlers = before
    told = [re.sub(r'"timestamp":"[^"]+Z"', "", line) for line in stream.getvalue().splitlines()]
    assert len(told) == 3
    assert len(set(told)) == 1, told
    assert PLANTED not in told[0]
