"""The openai library against a real server process: what an application does by changing its base URL."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types import Model

from conftest import Serve
from llmchat.tests.waiting import eventually

SIMULATED = "simulated/echo"


@pytest.fixture
def server(serve: Serve):
    server = serve("--no-background")
    server.manage("update_prices", "--quiet")
    return server


@pytest.fixture
def client(server, acme_key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=acme_key, max_retries=0) as client:
        yield client


def test_the_library_is_at_home(client: openai.OpenAI, server) -> None:
    """One server start for everything the library does: completing, streaming, listing, tools, typed errors."""
    whole = client.chat.completions.create(model=SIMULATED, messages=[{"role": "user", "content": "One two."}])
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("One two.", "stop")
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    chunks = list(
        client.chat.completions.create(
            model=SIMULATED,
            messages=[{"role": "user", "content": "One two."}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "One two."
    assert chunks[-1].usage == whole.usage

    tools = client.chat.completions.create(
        model="simulated/tool-call",
        messages=[{"role": "user", "content": "Weather?"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    )
    assert tools.choices[0].message.tool_calls[0].function.name == "weather"

    def catalogue() -> dict[str, Model]:
        return {model.id: model for model in client.models.list()}

    # Filled by another process, it is read again within seconds.
    eventually(lambda: SIMULATED in catalogue(), wanted=f"{SIMULATED} in the list")
    models = catalogue()
    assert models[SIMULATED].owned_by == "simulated"
    assert client.models.retrieve(SIMULATED).id == SIMULATED

    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.chat.completions.create(model="no-such-model", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model=SIMULATED, messages=[], temperature=0)
    assert (bad.value.type, bad.value.param) == ("invalid_request_error", "messages")
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model="simulated/key-refused", messages=[{"role": "user", "content": "x"}])
    assert (refused.value.status_code, refused.value.code) == (502, "provider_credentials_rejected")
    with pytest.raises(openai.APIError, match=r"ended|cut|finish"):
        list(
            client.chat.completions.create(
                model="simulated/cut", messages=[{"role": "user", "content": "x"}], stream=True
            )
        )
    stranger = client.with_options(api_key="llmc_" + "x" * 43)
    with pytest.raises(openai.AuthenticationError) as unknown:
        stranger.models.list()
    assert unknown.value.code == "invalid_api_key"
