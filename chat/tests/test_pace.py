"""Whole answers are asked for in one piece where answers have been quick: what the vendor's own log says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from conftest import Serve
from llmchat.tests.mock_upstream import MockUpstream
from llmchat.tests.servers import LiveServer


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[MockUpstream]:
    with MockUpstream(tmp_path / "upstream") as running:
        yield running


def ask(server: LiveServer, key: str, *, count: int, model: str = "openai/mock-3") -> None:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=key, max_retries=0) as client:
        for _ in range(count):
            answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "p"}])
            assert answer.usage is not None
            assert answer.usage.completion_tokens == 3


def test_model_that_has_been_quick_is_asked_in_one_piece(serve: Serve, acme_key: str, upstream: MockUpstream) -> None:
    server = serve("--no-background", environment=upstream.environment)
    server.manage("create_organization", "Globex", "--plan", "unlimited")
    globex_key = server.manage("create_api_key", "--organization", "Globex").strip()
    ask(server, acme_key, count=11)
    # Neither another organization nor another model is known to be quick by that.
    ask(server, globex_key, count=1)
    ask(server, acme_key, count=1, model="openai/mock-3?burst=1")
    assert [call.streamed for call in upstream.calls()] == [True] * 8 + [False] * 3 + [True] * 2


def test_model_that_has_been_slow_is_asked_for_pieces(serve: Serve, acme_key: str, upstream: MockUpstream) -> None:
    hurried = {**upstream.environment, "PROVIDER_FIRST_BYTE_SECONDS": "0.4"}
    server = serve("--no-background", environment=hurried)
    # Slower than a quarter of the limit, and long before it.
    ask(server, acme_key, count=10, model="openai/mock-3?first=0.15")
    assert [call.streamed for call in upstream.calls()] == [True] * 10
