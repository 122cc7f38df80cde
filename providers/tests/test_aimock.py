"""The adapters against aimock: an implementation of the vendors' APIs that is not ours. Both families say the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple, cast

import pytest
from django.utils.module_loading import import_string

from providers.adapters.base import Adapter, ProviderConfig
from providers.errors import (
    ConnectionFailed,
    MalformedAnswer,
    ProviderError,
    RateLimited,
    ServerFault,
    TruncatedAnswer,
)
from providers.tests import aimock
from providers.tests.subjects import WEATHER
from providers.values import ChatRequest, Event, Finished, FinishReason, Message, TextDelta, ToolCallDelta, Usage

pytestmark = pytest.mark.once

FAMILIES = ("sdk", "wire")
#: slug: adapter, path of the base URL, model, options
VENDORS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "openai": ("openai.OpenAIAdapter", "/v1", "gpt-4o-mini", {"max_tokens_field": "max_completion_tokens"}),
    "openrouter": ("openai.OpenAIAdapter", "/api/v1", "openai/gpt-4o-mini", {"reports_cost": True}),
    "gemini": ("gemini.GeminiAdapter", "", "gemini-2.5-flash", {}),
    "anthropic": ("anthropic.AnthropicAdapter", "", "claude-haiku-4-5", {}),
}
#: The vendors' own words, as aimock says them. Its Gemini has one more than Google's.
RAW_REASONS = {
    "hello": {"openai": "stop", "openrouter": "stop", "gemini": "STOP", "anthropic": "end_turn"},
    "long": {"openai": "length", "openrouter": "length", "gemini": "MAX_TOKENS", "anthropic": "max_tokens"},
    "weather": {
        "openai": "tool_calls",
        "openrouter": "tool_calls",
        "gemini": "FUNCTION_CALL",
        "anthropic": "tool_use",
    },
}


@pytest.fixture(scope="module")
def vendors_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    for family in FAMILIES:
        for adapter, *_ in VENDORS.values():
            import_string(f"providers.adapters.{family}.{adapter}")
    with aimock.running(tmp_path_factory.mktemp("aimock")) as url:
        yield url


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


def made(family: str, vendor: str, url: str, *, headers: dict[str, str] | None = None) -> Adapter:
    path, base, _, options = VENDORS[vendor]
    adapter = f"providers.adapters.{family}.{path}"
    config = ProviderConfig(
        slug=vendor,
        adapter=adapter,
        api_key="test-key",
        base_url=f"{url}{base}",
        headers=headers or {},
        options=options,
        whole_tokens=128,
    )
    return cast("Adapter", import_string(adapter)(config))


@pytest.fixture
async def adapter(family: str, vendor: str, vendors_url: str) -> AsyncIterator[Adapter]:
    adapter = made(family, vendor, vendors_url)
    yield adapter
    await adapter.aclose()


def asking(vendor: str, prompt: str, **settings: Any) -> ChatRequest:
    return ChatRequest(model=VENDORS[vendor][2], messages=[Message(role="user", content=prompt)], **settings)


async def answer(adapter: Adapter, request: ChatRequest) -> list[Event]:
    return [event async for event in adapter.stream(request)]


async def failure(adapter: Adapter, request: ChatRequest) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await answer(adapter, request)
    return caught.value


async def test_answer_comes_in_pieces_and_whole(adapter: Adapter, vendor: str) -> None:
    *texts, finished = await answer(adapter, asking(vendor, "hello"))
    pieces = [event.text for event in texts if isinstance(event, TextDelta)]
    assert isinstance(finished, Finished)
    assert len(pieces) == len(texts) > 1
    assert ("".join(pieces), finished.reason, finished.raw_reason, finished.usage, finished.cost_usd) == (
        "Hello! How can I help you today?",
        FinishReason.STOP,
        RAW_REASONS["hello"][vendor],
        Usage(input_tokens=11, output_tokens=7),
        Decimal("0.0021") if vendor == "openrouter" else None,
    )


async def test_length_limit_is_told(adapter: Adapter, vendor: str) -> None:
    *_, finished = await answer(adapter, asking(vendor, "long", max_tokens=3))
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.raw_reason) == (FinishReason.LENGTH, RAW_REASONS["long"][vendor])


@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason")
async def test_tool_calls_come_whole_and_in_order(adapter: Adapter, vendor: str) -> None:
    *pieces, finished = await answer(adapter, asking(vendor, "weather", tools=[WEATHER]))
    calls: dict[int, list[str]] = {}
    for piece in pieces:
        assert isinstance(piece, ToolCallDelta)
        if piece.id:
            calls[piece.index] = [str(piece.name), ""]
        calls[piece.index][1] += piece.arguments
    cities = {index: (name, arguments.replace(" ", "")) for index, (name, arguments) in calls.items()}
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.raw_reason) == (FinishReason.TOOL_CALLS, RAW_REASONS["weather"][vendor])
    assert {index: (name, arguments.replace("\\u00f6", "ö")) for index, (name, arguments) in cities.items()} == {
        0: ("get_weather", '{"city":"Köln"}'),
        1: ("get_weather", '{"city":"Bonn"}'),
    }


async def test_rate_limit_tells_how_long_to_wait(adapter: Adapter, vendor: str) -> None:
    error = await failure(adapter, asking(vendor, "busy"))
    assert (type(error), error.upstream_status, error.retry_after) == (RateLimited, 429, 3.0)


async def test_server_fault(adapter: Adapter, vendor: str) -> None:
    error = await failure(adapter, asking(vendor, "broken"))
    assert (type(error), error.upstream_status) == (ServerFault, 500)


async def test_answer_cut_in_its_middle(adapter: Adapter, vendor: str) -> None:
    assert type(await failure(adapter, asking(vendor, "cut"))) is TruncatedAnswer


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("drop", ServerFault),
        ("malformed", MalformedAnswer),
        ("disconnect", ConnectionFailed),
        ("ratelimit", RateLimited),
    ],
)
async def test_injected_fault(
    family: str, vendor: str, vendors_url: str, fault: str, expected: type[ProviderError]
) -> None:
    adapter = made(family, vendor, vendors_url, headers={f"X-AIMock-Chaos-{fault}": "1"})
    error = await failure(adapter, asking(vendor, "hello"))
    await adapter.aclose()
    assert type(error) is expected


@pytest.mark.parametrize("vendor", ["openai", "openrouter", "anthropic"])  # aimock lists no models of Gemini's
async def test_probe_finds_the_vendor_alive(family: str, vendor: str, vendors_url: str) -> None:
    adapter = made(family, vendor, vendors_url)
    await adapter.probe()
    await adapter.aclose()


# Both families, and answers in one piece


class Told(NamedTuple):
    """What an answer says, however many pieces it came in."""

    text: str
    calls: list[tuple[str | None, Any]]
    reason: FinishReason
    raw_reason: str | None
    usage: Usage | None
    cost: Decimal | None
    extra: Mapping[str, Any]


def told(events: list[Event]) -> Told:
    *pieces, finished = events
    assert isinstance(finished, Finished)
    calls: dict[int, list[Any]] = {}
    for piece in pieces:
        if isinstance(piece, ToolCallDelta):
            call = calls.setdefault(piece.index, [piece.name, ""])
            call[1] += piece.arguments
    return Told(
        text="".join(piece.text for piece in pieces if isinstance(piece, TextDelta)),
        calls=[(name, json.loads(arguments)) for name, arguments in calls.values()],
        reason=finished.reason,
        raw_reason=finished.raw_reason,
        usage=finished.usage,
        cost=finished.cost_usd,
        extra=finished.extra,
    )


def without_ids(events: list[Event]) -> list[Event]:
    """aimock makes new ones up for every answer."""
    return [
        replace(event, response_id=None)
        if isinstance(event, Finished)
        else replace(event, id=None)
        if isinstance(event, ToolCallDelta)
        else event
        for event in events
    ]


async def heard(adapter: Adapter, request: ChatRequest) -> tuple[list[Event], tuple[Any, ...] | None]:
    """The events that came, and what became of the call that failed."""
    events: list[Event] = []
    try:
        async for event in adapter.stream(request):
            events.append(event)  # noqa: PERF401
    except ProviderError as error:
        return events, (type(error), error.message, error.retry_after, error.upstream_status, error.upstream_code)
    return events, None


@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason")
@pytest.mark.parametrize("prompt", ["hello", "weather", "long", "unsafe", "busy", "broken", "nobody knows"])
async def test_families_hear_the_same(vendor: str, vendors_url: str, prompt: str) -> None:
    tools = [WEATHER] if prompt == "weather" else []
    answers = []
    for family in FAMILIES:
        adapter = made(family, vendor, vendors_url)
        events, problem = await heard(adapter, asking(vendor, prompt, tools=tools))
        await adapter.aclose()
        answers.append((without_ids(events), problem))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("prompt", ["hello", "weather", "long", "unsafe"])
async def test_answer_in_one_piece_says_what_its_pieces_say(vendor: str, vendors_url: str, prompt: str) -> None:
    adapter = made("wire", vendor, vendors_url)
    request = asking(vendor, prompt, max_tokens=100, tools=[WEATHER] if prompt == "weather" else [])
    in_pieces, at_once = await answer(adapter, request), await answer(adapter, replace(request, whole=True))
    await adapter.aclose()
    assert sum(isinstance(event, TextDelta) for event in at_once) == (0 if prompt == "weather" else 1)
    assert told(at_once) == told(in_pieces)


@pytest.mark.parametrize(("prompt", "expected"), [("busy", RateLimited), ("broken", ServerFault)])
async def test_answer_in_one_piece_fails_as_its_pieces_do(
    vendor: str, vendors_url: str, prompt: str, expected: type[ProviderError]
) -> None:
    adapter = made("wire", vendor, vendors_url)
    error = await failure(adapter, asking(vendor, prompt, max_tokens=100, whole=True))
    await adapter.aclose()
    assert type(error) is expected
