"""The adapters under contract, one row each: a new adapter joins every rule by adding its row.

A row says how the vendor's answers look on the wire and which events they mean; the rules are in
`test_adapter_contract`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from django.utils.module_loading import import_string

from providers.adapters.base import Adapter, ProviderConfig, Timeouts
from providers.tests.upstream import Received, Upstream
from providers.values import (
    ChatRequest,
    Event,
    Finished,
    FinishReason,
    Message,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)

KEY = "sk-contract-0123456789abcdefXYZ"
#: For tests of silence, which then cost a moment; the others keep the patience of production, however busy the machine.
IMPATIENT = Timeouts(connect=0.3, first_byte=0.3, first_token=0.3, between_chunks=0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """`plain` and `tools` name recorded bodies; `*_events` are what they mean. `delta(text)` is one event of the wire
    that carries `text`, `refusal(...)` the body of an error. `system_of` finds the system prompt in a request."""

    name: str
    adapter: str
    model: str
    base_path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    plain: str
    plain_events: list[Event]
    tools: str
    tools_events: list[Event]
    delta: Callable[[str], bytes]
    ending: Callable[[str], bytes]
    temperature_of: Callable[[Received], Any]
    conversation_of: Callable[[Received], Any]
    conversation: Any
    probe_path: str

    @property
    def family(self) -> str:
        """`sdk` or `wire`."""
        return self.adapter.split(".")[2]

    def config(self, upstream: Upstream, **changes: Any) -> ProviderConfig:
        options = {**self.options, **changes.pop("options", {})}
        settled: dict[str, Any] = {
            "slug": self.name,
            "adapter": self.adapter,
            "api_key": KEY,
            "base_url": f"{upstream.url}{self.base_path}",
            "headers": dict(self.headers),
            "setting": self.name.upper(),
            **changes,
        }
        return ProviderConfig(options=options, **settled)

    def make(self, upstream: Upstream, **changes: Any) -> Adapter:
        adapter: Adapter = import_string(self.adapter)(self.config(upstream, **changes))
        return adapter

    def request(self, **changes: Any) -> ChatRequest:
        settled: dict[str, Any] = {"messages": [Message(role="user", content="Grüß mich!")], **changes}
        return ChatRequest(model=self.model, **settled)


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


PIECES: list[Event] = [TextDelta(text) for text in ("Grüße", " aus", " Köln", ": 🚲", " fährt.")]
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
#: What Gemini wants back with a tool call; its base64 has characters in which the two alphabets differ.
SIGNED = {"extra_content": {"google": {"thought_signature": "Cv8+/w=="}}}
#: A conversation with everything whose order and shape matters.
CONVERSATION = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="One"),
    Message(role="assistant", content="Two"),
    Message(role="user", content=[{"type": "text", "text": "Three"}, {"type": "text", "text": "Four"}]),
    Message(
        role="assistant",
        tool_calls=[
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'},
                **SIGNED,
            },
            {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}},
        ],
    ),
    Message(role="tool", tool_call_id="c1", content='{"sky": "blue"}'),
    Message(role="tool", tool_call_id="c2", content="grey"),
]


def _openai_delta(text: str) -> bytes:
    return sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def _openai_ending(reason: str) -> bytes:
    return sse({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}) + sse(
        {"id": "c", "model": "m", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    )


_OPENAI_CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "One"},
    {"role": "assistant", "content": "Two"},
    {"role": "user", "content": [{"type": "text", "text": "Three"}, {"type": "text", "text": "Four"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Köln"}'},
                **SIGNED,
            },
            {"id": "c2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}},
        ],
    },
    {"role": "tool", "content": '{"sky": "blue"}', "tool_call_id": "c1"},
    {"role": "tool", "content": "grey", "tool_call_id": "c2"},
]
_OPENAI_TOOLS: list[Event] = [
    ToolCallDelta(index=0, id="call_XmT4a1", name="get_weather"),
    ToolCallDelta(index=0, arguments='{"ci'),
    ToolCallDelta(index=0, arguments='ty":"Köln"}'),
    ToolCallDelta(index=1, id="call_9bQzR2", name="get_time"),
    ToolCallDelta(index=1, arguments="{}"),
    Finished(
        reason=FinishReason.TOOL_CALLS,
        raw_reason="tool_calls",
        usage=Usage(input_tokens=88, output_tokens=33),
        model="gpt-4o-mini-2024-07-18",
        response_id="chatcmpl-CQ7h2vXb1YtK9sLdPz0wRmEa",
        extra={"service_tier": "default", "system_fingerprint": "fp_560af6e559"},
    ),
]


def openai_speaker(name: str, *, plain_events: list[Event], **settings: Any) -> Subject:
    """A vendor that speaks OpenAI's dialect; only its plain answer and its options are its own."""
    return Subject(
        name=name,
        adapter="providers.adapters.sdk.openai.OpenAIAdapter",
        model=settings.pop("model", "some-model"),
        base_path="/v1",
        plain=f"{name}_plain",
        plain_events=plain_events,
        tools="openai_tools",
        tools_events=_OPENAI_TOOLS,
        delta=_openai_delta,
        ending=_openai_ending,
        temperature_of=lambda received: received.json.get("temperature"),
        conversation_of=lambda received: received.json["messages"],
        conversation=_OPENAI_CONVERSATION,
        probe_path="/v1/models",
        **settings,
    )


OPENAI = openai_speaker(
    "openai",
    options={"max_tokens_field": "max_completion_tokens"},
    plain_events=[
        *PIECES,
        Finished(
            reason=FinishReason.STOP,
            raw_reason="stop",
            usage=Usage(input_tokens=1225, output_tokens=9, cached_input_tokens=1024),
            model="gpt-4o-mini-2024-07-18",
            response_id="chatcmpl-CQ7h2vXb1YtK9sLdPz0wRmEa",
            extra={"service_tier": "default", "system_fingerprint": "fp_560af6e559"},
        ),
    ],
)
OPENROUTER = openai_speaker(
    "openrouter",
    model="openai/gpt-4o-mini",
    headers={"HTTP-Referer": "https://llmchat.example", "X-Title": "llmchat"},
    options={"reports_cost": True, "reasoning_field": "reasoning"},
    plain_events=[
        ReasoningDelta("The user"),
        ReasoningDelta(" greets."),
        *PIECES,
        Finished(
            reason=FinishReason.STOP,
            raw_reason="stop",
            usage=Usage(input_tokens=25, output_tokens=45, cached_input_tokens=8, reasoning_tokens=30),
            model="openai/gpt-4o-mini",
            response_id="gen-1763697600-Zk3VnQwB",
            cost_usd=Decimal("0.00003075"),
            extra={"provider": "Azure"},
        ),
    ],
)
DEEPSEEK = openai_speaker(
    "deepseek",
    options={"reasoning_field": "reasoning_content"},
    plain_events=[
        ReasoningDelta("Der Nutzer"),
        ReasoningDelta(" grüßt."),
        *PIECES,
        Finished(
            reason=FinishReason.STOP,
            raw_reason="stop",
            usage=Usage(input_tokens=14, output_tokens=21, cached_input_tokens=10, reasoning_tokens=12),
            model="deepseek-reasoner",
            response_id="5b1b0a2c-6f2e-4f0f-8d51-3c6f3b1d8a90",
            extra={"system_fingerprint": "fp_393bca965e"},
        ),
    ],
)
GROQ = openai_speaker(
    "groq",
    options={"stream_usage": False},
    plain_events=[
        *PIECES,
        Finished(
            reason=FinishReason.STOP,
            raw_reason="stop",
            usage=Usage(input_tokens=37, output_tokens=9),
            model="llama-3.1-8b-instant",
            response_id="chatcmpl-6f3a1d0c-91c8-4c0e-a2d5-7d2f5f1c9b11",
            extra={"system_fingerprint": "fp_f7bd09b454"},
        ),
    ],
)

_GEMINI: dict[str, Any] = {"model": "gemini-2.5-flash", "response_id": "wKofabCDOp2Xz7IP0-m4sAg"}
GEMINI = Subject(
    name="gemini",
    adapter="providers.adapters.sdk.gemini.GeminiAdapter",
    model="gemini-2.5-flash",
    plain="gemini_plain",
    plain_events=[
        ReasoningDelta("The user greets."),
        TextDelta("Grüße aus"),
        TextDelta(" Köln: 🚲"),
        TextDelta(" fährt."),
        Finished(
            reason=FinishReason.STOP,
            raw_reason="STOP",
            usage=Usage(input_tokens=25, output_tokens=39, cached_input_tokens=16, reasoning_tokens=30),
            **_GEMINI,
        ),
    ],
    tools="gemini_tools",
    tools_events=[
        ToolCallDelta(index=0, id="fc_1", name="get_weather", arguments='{"city": "K\\u00f6ln"}', extra=SIGNED),
        ToolCallDelta(index=1, id="fc_2", name="get_time", arguments="{}"),
        Finished(
            reason=FinishReason.TOOL_CALLS,
            raw_reason="STOP",
            usage=Usage(input_tokens=25, output_tokens=24),
            **_GEMINI,
        ),
    ],
    delta=lambda text: sse({"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}}]}),
    ending=lambda reason: sse(
        {
            "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": reason.upper()}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2},
        }
    ),
    temperature_of=lambda received: received.json.get("generationConfig", {}).get("temperature"),
    conversation_of=lambda received: [received.json["systemInstruction"]["parts"], received.json["contents"]],
    conversation=[
        [{"text": "Be brief."}],
        [
            {"role": "user", "parts": [{"text": "One"}]},
            {"role": "model", "parts": [{"text": "Two"}]},
            {"role": "user", "parts": [{"text": "Three"}, {"text": "Four"}]},
            {
                "role": "model",
                "parts": [
                    {
                        "functionCall": {"id": "c1", "name": "get_weather", "args": {"city": "Köln"}},
                        "thoughtSignature": "Cv8-_w==",
                    },
                    {"functionCall": {"id": "c2", "name": "get_weather", "args": {"city": "Bonn"}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"id": "c1", "name": "get_weather", "response": {"sky": "blue"}}},
                    {"functionResponse": {"id": "c2", "name": "get_weather", "response": {"result": "grey"}}},
                ],
            },
        ],
    ],
    probe_path="/v1beta/models?pageSize=1",
)

_CLAUDE: dict[str, Any] = {"model": "claude-haiku-4-5-20251001", "response_id": "msg_014p7gG3wDgGV9EUtLvnow3U"}
ANTHROPIC = Subject(
    name="anthropic",
    adapter="providers.adapters.sdk.anthropic.AnthropicAdapter",
    model="claude-haiku-4-5",
    plain="anthropic_plain",
    plain_events=[
        ReasoningDelta("The user"),
        ReasoningDelta(" greets."),
        *PIECES,
        Finished(
            reason=FinishReason.STOP,
            raw_reason="end_turn",
            usage=Usage(
                input_tokens=1025,
                output_tokens=39,
                cached_input_tokens=900,
                cache_write_tokens=100,
                reasoning_tokens=30,
            ),
            extra={"service_tier": "standard"},
            **_CLAUDE,
        ),
    ],
    tools="anthropic_tools",
    tools_events=[
        TextDelta("Okay."),
        ToolCallDelta(index=0, id="toolu_01T1x1", name="get_weather"),
        ToolCallDelta(index=0, arguments='{"city":'),
        ToolCallDelta(index=0, arguments=' "Köln"}'),
        ToolCallDelta(index=1, id="toolu_02T2x2", name="get_time"),
        ToolCallDelta(index=1, arguments="{}"),
        Finished(
            reason=FinishReason.TOOL_CALLS,
            raw_reason="tool_use",
            usage=Usage(input_tokens=1025, output_tokens=89, cached_input_tokens=900, cache_write_tokens=100),
            extra={"service_tier": "standard"},
            **_CLAUDE,
        ),
    ],
    delta=lambda text: sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
    ending=lambda reason: sse(
        {
            "type": "message_delta",
            "delta": {"stop_reason": {"stop": "end_turn"}.get(reason, reason)},
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    ),
    temperature_of=lambda received: received.json.get("temperature"),
    conversation_of=lambda received: [received.json["system"], received.json["messages"]],
    conversation=[
        "Be brief.",
        [
            {"role": "user", "content": [{"type": "text", "text": "One"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Two"}]},
            {"role": "user", "content": [{"type": "text", "text": "Three"}, {"type": "text", "text": "Four"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Köln"}},
                    {"type": "tool_use", "id": "c2", "name": "get_weather", "input": {"city": "Bonn"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "c1",
                        "content": [{"type": "text", "text": '{"sky": "blue"}'}],
                    },
                    {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "grey"}]},
                ],
            },
        ],
    ],
    probe_path="/v1/models?limit=1",
)
SDK = [OPENAI, OPENROUTER, DEEPSEEK, GROQ, GEMINI, ANTHROPIC]


def over(family: str, subject: Subject) -> Subject:
    """The same vendor, spoken to by the adapters of `family`."""
    return replace(subject, adapter=subject.adapter.replace(".sdk.", f".{family}."))


SUBJECTS = [*SDK, *(over("wire", subject) for subject in SDK)]
