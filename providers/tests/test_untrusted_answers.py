"""A vendor's JSON with any one value replaced by one of another kind is read, or refused as an error of our tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, assert_never

import pytest

from providers.adapters.dialects import anthropic, gemini, openai
from providers.errors import ProviderError
from providers.tests.upstream import recorded
from providers.values import Event, Finished, Json, ReasoningDelta, TextDelta, ToolCallDelta

pytestmark = pytest.mark.once

#: What is put in the place of each value. The number is one that JSON can say and no integer can hold.
STRANGERS: list[Json] = [None, True, -5, 1e999, "strange", ["strange"], [{"strange": 1}], {"strange": {}}]
READERS: dict[str, Callable[[], Any]] = {
    "openai_tools": lambda: openai.ChunkReader(options={}),
    "openrouter_plain": lambda: openai.ChunkReader(options={}),
    "groq_plain": lambda: openai.ChunkReader(options={}),
    "google_compatible_signed": lambda: openai.ChunkReader(options={}),
    "anthropic_plain": anthropic.EventReader,
    "anthropic_tools": anthropic.EventReader,
    "gemini_plain": gemini.ChunkReader,
    "gemini_signed": gemini.ChunkReader,
}


def chunks_of(name: str) -> list[Json]:
    lines = recorded(name).decode().splitlines()
    return [json.loads(line[5:]) for line in lines if line.startswith("data: {")]


def distorted(value: Json) -> Iterator[Json]:
    """`value` once for each place in it and each stranger there."""
    if isinstance(value, dict):
        for key, inner in value.items():
            for stranger in (*STRANGERS, *distorted(inner)):
                yield {**value, key: stranger}
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            for stranger in (*STRANGERS, *distorted(inner)):
                yield [*value[:at], stranger, *value[at + 1 :]]


def assert_of_its_kinds(event: Event) -> None:
    """What the types of `event` promise to those who fold it."""
    match event:
        case TextDelta(text=text) | ReasoningDelta(text=text):
            assert isinstance(text, str)
        case ToolCallDelta(index=index, id=call_id, name=name, arguments=arguments):
            kinds = (type(index), type(arguments))
            assert (kinds, isinstance(call_id, str | None), isinstance(name, str | None)) == ((int, str), True, True)
        case Finished(raw_reason=reason, model=model, response_id=response_id):
            assert [isinstance(told, str | None) for told in (reason, model, response_id)] == [True] * 3
        case _:
            assert_never(event)


@pytest.mark.parametrize("name", READERS)
def test_value_of_another_kind_is_no_accident(name: str) -> None:
    chunks = chunks_of(name)
    read = 0
    for at, chunk in enumerate(chunks):
        for strange in distorted(chunk):
            reader = READERS[name]()
            with suppress(ProviderError):
                for each in (*chunks[:at], strange, *chunks[at + 1 :]):
                    for event in reader.read(each):
                        assert_of_its_kinds(event)
                assert_of_its_kinds(reader.finished(malformed_chunks=0))
                read += 1
    assert read > 100
