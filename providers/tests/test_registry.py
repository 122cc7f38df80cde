"""The registry: settings become adapters, one per event loop, and nothing is imported that nobody uses."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from django.conf import settings
from django.test import override_settings

from providers import registry
from providers.adapters.base import ProviderConfig, Timeouts
from providers.errors import NotConfigured
from providers.values import ChatRequest, Event, Finished, FinishReason

FAKE = f"{__name__}.FakeAdapter"
PROVIDERS: dict[str, dict[str, Any]] = {
    "alpha": {
        "ADAPTER": FAKE,
        "API_KEY": " key-of-alpha\n",
        "BASE_URL": "http://127.0.0.1:1/v1",
        "HEADERS": {"X-Title": "llmchat"},
        "OPTIONS": {"max_tokens": 5},
        "TIMEOUTS": {"connect": 1.5},
        "SETTING": "ALPHA",
    },
    "beta": {"ADAPTER": FAKE, "API_KEY": "key-of-beta"},
    "keyless": {"ADAPTER": FAKE, "NEEDS_KEY": False},
    "locked": {"ADAPTER": FAKE, "API_KEY": None, "SETTING": "LOCKED"},
    "garbled": {"ADAPTER": FAKE, "API_KEY": "kéy"},
    "missing": {"ADAPTER": "providers.adapters.nowhere.Adapter", "API_KEY": "k"},
}


class FakeAdapter:
    """An adapter that only knows whether it was closed."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self.closed = False

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Event, None]:
        yield Finished(reason=FinishReason.STOP)

    async def probe(self) -> None:
        return

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _providers() -> Any:
    with override_settings(PROVIDERS=PROVIDERS):
        yield


def test_row_of_the_settings_becomes_a_configuration() -> None:
    assert registry.config("alpha") == ProviderConfig(
        slug="alpha",
        adapter=FAKE,
        api_key="key-of-alpha",
        base_url="http://127.0.0.1:1/v1",
        headers={"X-Title": "llmchat"},
        options={"max_tokens": 5},
        timeouts=Timeouts(connect=1.5),
        setting="ALPHA",
    )


def test_providers_keep_their_order_and_those_without_a_key_are_among_them() -> None:
    assert {slug: config.configured for slug, config in registry.configs().items()} == {
        "alpha": True,
        "beta": True,
        "keyless": True,
        "locked": False,
        "garbled": True,
        "missing": True,
    }
    assert list(registry.configs()) == list(PROVIDERS)


def test_configuration_does_not_show_its_key() -> None:
    assert "key-of-alpha" not in repr(registry.config("alpha"))


@pytest.mark.parametrize(
    ("slug", "message"),
    [
        ("alfa", "There is no provider 'alfa'. Did you mean alpha?"),
        ("zzz", "There is no provider 'zzz'. Known are alpha, beta, keyless, locked, garbled, missing."),
    ],
)
def test_unknown_provider_is_told_with_near_names(slug: str, message: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        registry.config(slug)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("slug", "message"),
    [
        ("locked", "locked has no key. Set LOCKED_API_KEY to use it."),
        ("garbled", "GARBLED_API_KEY holds characters that no key has. Copy it again."),
        (
            "missing",
            (
                "missing's adapter providers.adapters.nowhere.Adapter cannot be imported: "
                "No module named 'providers.adapters.nowhere'"
            ),
        ),
    ],
)
async def test_provider_that_cannot_be_used_tells_the_remedy(slug: str, message: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        await registry.aadapter(slug)
    assert caught.value.message == message


async def test_loop_has_one_adapter_per_provider() -> None:
    alpha, beta = registry.adapter("alpha"), registry.adapter("beta")
    assert registry.adapter("alpha") is alpha
    assert await registry.aadapter("alpha") is alpha
    assert beta is not alpha
    await registry.aclose_all()


def test_every_loop_has_adapters_of_its_own_and_loops_that_are_gone_are_forgotten() -> None:
    async def here() -> Any:
        return registry.adapter("alpha")

    first, second = asyncio.run(here()), asyncio.run(here())
    assert first is not second
    assert len(registry._made) == 1


async def test_closing_closes_every_adapter_of_the_loop_and_new_ones_are_made_afterwards() -> None:
    old = [cast("FakeAdapter", registry.adapter(slug)) for slug in ("alpha", "keyless")]
    await registry.aclose_all()
    await registry.aclose_all()  # nothing left to close
    assert [adapter.closed for adapter in old] == [True, True]
    assert registry.adapter("alpha") not in old
    await registry.aclose_all()


async def test_changed_settings_make_a_new_adapter_and_the_old_one_is_closed_with_the_rest() -> None:
    old, kept = (cast("FakeAdapter", registry.adapter(slug)) for slug in ("alpha", "beta"))
    with override_settings(PROVIDERS={**PROVIDERS, "alpha": {**PROVIDERS["alpha"], "API_KEY": "new"}}):
        new = registry.adapter("alpha")
        assert new.config.api_key == "new"
        assert registry.adapter("beta") is kept
        await registry.aclose_all()
    assert (old.closed, cast("FakeAdapter", new).closed) == (True, True)


IMPORTS = """
import sys, django
from django.conf import settings
rows = {name: {"ADAPTER": f"providers.adapters.sdk.{path}", "API_KEY": key} for name, path, key in (
    ("openai", "openai.OpenAIAdapter", None), ("gemini", "gemini.GeminiAdapter", None),
    ("anthropic", "anthropic.AnthropicAdapter", "k"))}
settings.configure(PROVIDERS=rows)
from providers import registry
def heavy():
    return sorted({"openai", "anthropic", "google.genai", "httpx2"} & set(sys.modules))
registry.configs()
print(heavy())
registry.preload()
print(heavy())
"""


def test_library_of_a_vendor_without_a_key_is_never_imported() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, cwd=settings.BASE_DIR
    )
    assert ran.stdout.splitlines() == ["[]", "['anthropic', 'httpx2']"]


async def test_setting_up_makes_the_adapters_of_all_that_have_a_usable_key() -> None:
    await registry.set_up()
    made = registry._made[asyncio.get_running_loop()].adapters
    assert [*made] == ["alpha", "beta"]
    assert await registry.aadapter("alpha") is made["alpha"]
    await registry.aclose_all()
