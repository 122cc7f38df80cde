"""What docs/running.md says, against what there is: it cannot name a setting, a command, a metric, a drill or an error
code that does not exist, nor leave out a drill or a code that does."""

from __future__ import annotations

import re
from collections.abc import Iterator

from django.core.management import get_commands
from prometheus_client import REGISTRY
from rest_framework import exceptions

from llmchat.tests.environment import documented_settings
from llmchat.tests.servers import PROJECT
from providers.adapters.simulated.faults import FAULTS
from providers.errors import ProviderError

RUNNING = (PROJECT / "docs" / "running.md").read_text(encoding="utf-8")
_OURS = ("accounts", "audit", "chat", "llmchat", "providers")
#: Django's, Docker's and the platform's own, and the placeholder for each provider's.
_FOREIGN = {"SIGTERM", "NAME_API_KEY", "NAME_BASE_URL", "ENV_FILE"} | {
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
}
#: Vendors' words, which the simulated provider speaks.
_VENDORS = {"rate_limit_exceeded", "server_error", "overloaded", "insufficient_quota"}


def section(heading: str) -> str:
    return RUNNING.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def kinds_of(error: type[ProviderError]) -> Iterator[type[ProviderError]]:
    yield error
    for kind in error.__subclasses__():
        yield from kinds_of(kind)


def codes() -> set[str]:
    """Every `code` that an error of ours or a provider's can have."""
    found = {kind.code for kind in kinds_of(ProviderError)}
    for app in _OURS:
        for file in (PROJECT / app).rglob("*.py"):
            if "tests" not in file.parts:
                found |= set(re.findall(r'\b(?:error_)?code="([a-z_]+)"', file.read_text(encoding="utf-8")))
    for kind in (exceptions.NotAcceptable, exceptions.UnsupportedMediaType):
        found.add(kind.default_code)
    # Made of the kind of row that is not there.
    return found | {"interaction_not_found", "conversation_not_found"}


def test_the_table_of_drills_is_the_simulated_provider() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section("Drills"), flags=re.MULTILINE)
    assert dict(rows) == {fault.name: fault.description for fault in FAULTS.values()}


def test_every_error_code_has_its_remedy_and_no_other_is_named() -> None:
    cells = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", section("When something is wrong"), flags=re.MULTILINE)
    named = [code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)]
    assert len(named) == len(set(named))
    # `interrupted` is on record only: nobody is left to be told.
    assert set(named) - {"interrupted"} == codes() - _VENDORS


def test_every_setting_that_it_names_exists() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`", RUNNING))
    assert named - documented_settings() - _FOREIGN == set()


def test_every_command_that_it_names_exists() -> None:
    named = set(re.findall(r"(?:manage\.py|run --rm web) ([a-z_]+)", RUNNING))
    assert named - set(get_commands()) == set()


def test_every_group_of_settings_is_pointed_to() -> None:
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    groups = re.findall(r"^# --- (.+?) -+$", example, flags=re.MULTILINE)
    assert re.findall(r"^\| ([A-Z][^|]+?) \|", section("Settings"), flags=re.MULTILINE) == groups


def test_every_series_that_it_names_is_told() -> None:
    told = {name for metric in REGISTRY.collect() for name in (metric.name, f"{metric.name}_total")}
    named = set(re.findall(r"`(llm_[a-z_]+)`", RUNNING))
    assert named
    assert named <= told


def test_every_file_that_it_links_to_exists() -> None:
    links = set(re.findall(r"\]\(([^)#]+)\)", RUNNING))
    assert [link for link in links if not (PROJECT / "docs" / link).exists()] == []
