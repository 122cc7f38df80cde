"""One exchange laid out for reading, and how its figures are written."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from chat.admin import exchange, formats
from chat.admin.exchange import Bar, ToolCall, Turn
from chat.admin.formats import Text
from chat.models import Attempt, Interaction, Status
from chat.serializers import ChatRequestSerializer, CompletionRequestSerializer
from llmchat.lib.uuid7 import moment_of, uuid7

ORIGIN = "https://chat.example"


def interaction(**fields: Any) -> Interaction:
    identifier = uuid7()
    defaults = {
        "id": identifier,
        "created_at": moment_of(identifier),
        "user_id": "ana",
        "endpoint": Interaction.Endpoint.CHAT,
        "streamed": False,
        "status": Status.SUCCEEDED,
        "model_requested": "gemini-2.0-flash",
        "prompt": "Hello?",
        "response": "Hello!",
    }
    return Interaction(**{**defaults, **fields})


def attempt(row: Interaction, number: int, *, after: float, **fields: Any) -> Attempt:
    started_at = row.created_at + dt.timedelta(milliseconds=after)
    return Attempt(interaction=row, number=number, provider="groq", started_at=started_at, **fields)


# --- Messages -------------------------------------------------------------------------------------------------------
def test_plain_exchange_reads_as_system_user_and_answer() -> None:
    assert exchange.turns(interaction(system_prompt="Be brief.", reasoning="Greet.")) == [
        Turn(role="system", label="System", text=Text("Be brief.")),
        Turn(role="user", label="User", text=Text("Hello?")),
        Turn(role="assistant", label="Answer", text=Text("Hello!"), reasoning=Text("Greet."), origin="answer"),
    ]


def test_messages_as_sent_win_over_the_prompt() -> None:
    row = interaction(
        response="",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Where is A-1?", "name": "ana"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"id":1}'}}],
            },
            {"role": "tool", "content": "It left.", "tool_call_id": "c1"},
            {"role": "critic", "content": "Hm."},
        ],
    )
    assert exchange.turns(row) == [
        Turn(role="developer", label="Developer", text=Text("Be brief.")),
        Turn(role="user", label="User · ana", text=Text("Where is A-1?")),
        Turn(
            role="assistant",
            label="Assistant",
            text=Text(""),
            tool_calls=(ToolCall(id="c1", name="find", arguments=Text('{\n  "id": 1\n}')),),
        ),
        Turn(role="tool", label="Tool result · c1", text=Text("It left.")),
        Turn(role="other", label="critic", text=Text("Hm.")),
    ]


def test_tool_calls_of_any_shape_are_shown() -> None:
    calls = [{"id": None, "function": {"name": "cut", "arguments": '{"a": '}}, {"type": "custom"}, "odd"]
    [turn] = exchange.turns(interaction(prompt="", response="", tool_calls=calls))
    assert turn.tool_calls == (
        ToolCall(id="", name="cut", arguments=Text('{"a": ')),
        ToolCall(id="", name="", arguments=Text('{\n  "type": "custom"\n}')),
        ToolCall(id="", name="", arguments=Text("odd")),
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, ""),
        ([{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}], "One.\n\nTwo."),
        ([{"type": "refusal", "refusal": "No."}], "No."),
        (
            [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}],
            "[picture: https://a.example/b.png]",
        ),
        (
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
            "[picture: image/png;base64, 4 characters]",
        ),
        ([{"type": "input_audio", "input_audio": {"data": "AAA", "format": "wav"}}], "[audio: wav, 3 characters]"),
        ([{"type": "file", "file": {"filename": "a.pdf", "file_data": "AAA"}}], "[file: a.pdf]"),
        ([{"type": "other"}], '{\n  "type": "other"\n}'),
        ({"odd": 1}, '{\n  "odd": 1\n}'),
    ],
)
def test_content_becomes_text(content: Any, expected: str) -> None:
    assert exchange.content_text(content) == expected


# --- Times ----------------------------------------------------------------------------------------------------------
def test_bars_share_one_scale() -> None:
    row = interaction(latency_ms=1000.0, time_to_first_token_ms=600.0)
    attempts = [
        attempt(row, 1, after=0, status=Status.FAILED, latency_ms=250.0),
        attempt(row, 2, after=500, status=Status.SUCCEEDED, latency_ms=500.0, time_to_first_token_ms=100.0),
        attempt(row, 3, after=900, status=Status.INTERRUPTED),
    ]
    assert exchange.bars(row, attempts) == [
        Bar(
            label="Whole",
            status="succeeded",
            left="0.00%",
            width="100.00%",
            first_token="60.00%",
            start="0.0 ms",
            duration="1.00 s",
        ),
        Bar(
            label="1. groq",
            status="failed",
            left="0.00%",
            width="25.00%",
            first_token=None,
            start="0.0 ms",
            duration="250 ms",
        ),
        Bar(
            label="2. groq",
            status="succeeded",
            left="50.00%",
            width="50.00%",
            first_token="20.00%",
            start="500 ms",
            duration="500 ms",
        ),
    ]


def test_exchange_without_times_has_no_bars() -> None:
    assert exchange.bars(interaction(), []) == []


# --- The command line -----------------------------------------------------------------------------------------------
def body_of(command: str | None, path: str, *, streams: bool = False) -> Any:
    """What a shell hands to curl's `-d`, after the rest of the command is as it should be."""
    assert command is not None
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    ran = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, check=True, text=True, env={"LLMCHAT_API_KEY": "llmc_mine"}
    )
    words = ran.stdout.split("\0")[:-1]
    assert (words[:-1], ran.stderr) == (
        [
            *(["-N"] if streams else []),
            ORIGIN + path,
            "-H",
            "Authorization: Bearer llmc_mine",
            "-H",
            "Content-Type: application/json",
            "-d",
        ],
        "",
    )
    return json.loads(words[-1])


def test_native_call_as_a_command_line() -> None:
    row = interaction(
        prompt='It\'s "odd" $HOME `id`\n\\',
        system_prompt="Be brief.",
        parameters={"temperature": 0, "max_tokens": 5, "top_p": 0.5, "stop": ["x"]},
        streamed=True,
        request_id="r-1",
    )
    body = body_of(exchange.curl(row, origin=ORIGIN), "/v1/chat", streams=True)
    assert body == {
        "model": "gemini-2.0-flash",
        "userId": "ana",
        "prompt": 'It\'s "odd" $HOME `id`\n\\',
        "systemPrompt": "Be brief.",
        "temperature": 0,
        "maxTokens": 5,
        "topP": 0.5,
        "stop": ["x"],
        "stream": True,
    }
    assert ChatRequestSerializer(data=body).is_valid(raise_exception=True)


def test_completion_as_a_command_line() -> None:
    row = interaction(
        endpoint=Interaction.Endpoint.COMPLETIONS,
        model_requested="",
        system_prompt="Be brief.",
        parameters={"max_tokens": 5, "extra": {"top_k": 3}},
    )
    body = body_of(exchange.curl(row, origin=ORIGIN), "/v1/chat/completions")
    assert body == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}],
        "user": "ana",
        "max_tokens": 5,
        "top_k": 3,
    }
    assert CompletionRequestSerializer(data=body).is_valid(raise_exception=True)


def test_messages_go_into_the_command_line_as_they_were_sent() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "Hello?"}]}]
    for endpoint, path in (("chat", "/v1/chat"), ("completions", "/v1/chat/completions")):
        row = interaction(messages=messages, endpoint=endpoint)
        assert body_of(exchange.curl(row, origin=ORIGIN), path)["messages"] == messages


@pytest.mark.parametrize("prompt", ["", "x" * 100_000])
def test_no_command_line_without_text_or_with_too_much(prompt: str) -> None:
    assert exchange.curl(interaction(prompt=prompt, erased_at=timezone.now()), origin=ORIGIN) is None


def test_first_call_is_one_that_the_endpoint_takes() -> None:
    body = body_of(exchange.first_call(origin=f"{ORIGIN}/"), "/v1/chat")
    assert ChatRequestSerializer(data=body).is_valid(raise_exception=True)


# --- Figures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("amount", "short", "exact"),
    [
        (None, "unknown", "unknown"),
        ("0.000000000000", "$0", "$0"),
        ("0.000000000004", "$0.00000000000400", "$0.000000000004"),
        ("0.000012345678", "$0.0000123", "$0.000012345678"),
        ("0.05", "$0.0500", "$0.05"),
        ("1.005", "$1.00", "$1.005"),
        ("12345.678", "$12,345.68", "$12345.678"),
        ("100", "$100.00", "$100"),
    ],
)
def test_money(amount: str | None, short: str, exact: str) -> None:
    value = None if amount is None else Decimal(amount)
    assert (formats.money(value), formats.exact_money(value)) == (short, exact)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (0.0, "0.0 ms"),
        (9.94, "9.9 ms"),
        (812.4, "812 ms"),
        (1240.0, "1.24 s"),
        (59_999.0, "60.00 s"),
        (123_400.0, "2 min 3 s"),
    ],
)
def test_milliseconds(value: float | None, expected: str) -> None:
    assert formats.milliseconds(value) == expected


@pytest.mark.parametrize(
    ("part", "whole", "expected"), [(0, 0, "–"), (0, 5, "0.0 %"), (1, 3, "33.3 %"), (1, 100_000, "<0.1 %")]
)
def test_share(part: int, whole: int, expected: str) -> None:
    assert formats.share(part, whole) == expected


def test_excerpt_is_one_line() -> None:
    assert formats.excerpt(" a\n\tb ") == "a b"
    assert formats.excerpt("abc def", limit=5) == "abc…"


def test_long_text_tells_how_much_is_hidden() -> None:
    assert formats.text("abcdef", limit=4) == Text("abcd", 2)
