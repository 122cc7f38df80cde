"""The vendor of `bench/upstream.py`: what it answers, and that its log is true."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmchat.tests.mock_upstream import MockUpstream, UpstreamCall
from llmchat.tests.waiting import eventually

pytestmark = pytest.mark.once


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[MockUpstream]:
    with MockUpstream(tmp_path / "upstream") as running:
        yield running


def ask(
    upstream: MockUpstream, model: str, prompt: str, **fields: Any
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(urlsplit(upstream.url).netloc, timeout=30)
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    return connection, connection.getresponse()


def ended_calls(upstream: MockUpstream) -> list[UpstreamCall]:
    """All calls, once the log tells the end of each: it comes after the answer."""
    eventually(lambda: all(call.ended for call in upstream.calls()), wanted="the calls' ends in the log")
    return upstream.calls()


def test_whole_answer_tells_its_usage(upstream: MockUpstream) -> None:
    connection, response = ask(upstream, "mock-3", "Hello")
    with closing(connection):
        answer = json.loads(response.read())
    assert answer == {
        "id": "mock-0000000001",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "mock-3",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word0 word1 word2 "},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }
    assert ended_calls(upstream) == [UpstreamCall(number=1, prompt="Hello", streamed=False, ended="finished", chunks=3)]


def test_stream_comes_in_chunks_and_ends_with_usage_and_done(upstream: MockUpstream) -> None:
    connection, response = ask(upstream, "mock-3?burst=2", "Hello", stream=True, stream_options={"include_usage": True})
    with closing(connection):
        *chunks, done = response.read().decode().rstrip("\n").split("\n\n")
    assert done == "data: [DONE]"
    told = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    assert [chunk["choices"][0]["delta"] for chunk in told[:-1]] == [
        {"role": "assistant", "content": "word0 "},
        {"content": "word1 "},
        {"content": "word2 "},
        {},
    ]
    assert {chunk["id"] for chunk in told} == {"mock-0000000001"}
    assert told[-2]["choices"][0]["finish_reason"] == "stop"
    assert told[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    assert ended_calls(upstream) == [UpstreamCall(number=1, prompt="Hello", streamed=True, ended="finished", chunks=3)]


def test_stream_that_its_client_leaves_is_gone(upstream: MockUpstream) -> None:
    connection, response = ask(upstream, "mock-1000?delay=0.05", "Hello", stream=True)
    response.readline()
    response.close()
    connection.close()
    calls = ended_calls(upstream)
    assert [call.ended for call in calls] == ["gone"]
    assert 0 < (calls[0].chunks or 0) < 1000


@pytest.mark.parametrize("model", ["gpt-4o", "mock-many", "mock-3?speed=1", "mock-3?delay=soon"])
def test_unknown_behaviour_is_refused_and_no_call(upstream: MockUpstream, model: str) -> None:
    connection, response = ask(upstream, model, "Hello")
    with closing(connection):
        assert response.status == 400
    assert upstream.calls() == []
