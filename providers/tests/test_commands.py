"""`ask`, `probe_providers` and `update_prices`, as somebody at a terminal meets them."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from providers import services
from providers.models import LanguageModel, Price
from providers.tests.factories import LanguageModelFactory, PriceFactory

pytestmark = pytest.mark.django_db

SIMULATED = {"ADAPTER": "providers.adapters.simulated.SimulatedAdapter", "NEEDS_KEY": False}
OPENAI = {"ADAPTER": "providers.adapters.sdk.openai.OpenAIAdapter", "SETTING": "OPENAI"}


def run(*arguments: str, **options: Any) -> tuple[str, str]:
    """What the command prints on standard output and on standard error."""
    out, err = StringIO(), StringIO()
    call_command(*arguments, stdout=out, stderr=err, no_color=True, **options)
    return out.getvalue(), err.getvalue()


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_ask_prints_the_answer_and_its_facts_apart(options: tuple[str, ...]) -> None:
    PriceFactory.create(model=LanguageModelFactory.create(upstream_id="echo"))
    out, err = run("ask", "simulated/echo", "Good morning to you", "--system", "Be kind.", *options)
    assert out == "Good morning to you\n"
    facts = re.sub(r"\d+ ms", "N ms", err)
    tokens = re.fullmatch(
        r"simulated echo · stop · (\d+) \+ (\d+) tokens · \$(\S+) · first token N ms · total N ms\n", facts
    )
    assert tokens is not None, err
    assert float(tokens[3]) == pytest.approx((int(tokens[1]) + 2 * int(tokens[2])) / 1e6)


def test_ask_says_when_a_cost_or_the_tokens_are_not_known() -> None:
    _, err = run("ask", "simulated/echo", "Hello")
    assert "cost unknown" in err
    _, err = run("ask", "simulated/no-usage", "Hello")
    assert "tokens not reported · cost unknown" in err


def test_ask_shows_a_cost_that_the_provider_reports() -> None:
    _, err = run("ask", "simulated/reports-cost", "Hello")
    assert "$0.000123" in err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("simulated/key-refused", "provider_credentials_rejected: "),
        ("simulated/cut", "provider_truncated_answer: "),
        ("simulated/ecko", "model_not_found: There is no model 'simulated/ecko'. Did you mean simulated/echo"),
        ("openai/gpt-4o", "provider_not_configured: openai has no key. Set OPENAI_API_KEY to use it."),
    ],
)
def test_ask_tells_a_failure_in_one_line(model: str, message: str, settings) -> None:
    settings.PROVIDERS = {"simulated": SIMULATED, "openai": OPENAI}
    with pytest.raises(CommandError) as failure:
        run("ask", model, "Hello")
    assert str(failure.value).startswith(message)
    assert "\n" not in str(failure.value)


def test_probe_providers_tells_what_to_do(settings) -> None:
    settings.PROVIDERS = {"openai": OPENAI, "simulated": SIMULATED}
    out, _ = run("probe_providers")
    assert [re.sub(r"\d+ ms", "N ms", line).split(maxsplit=4) for line in out.splitlines()] == [
        ["PROVIDER", "CONFIGURED", "REACHABLE", "LATENCY", "REMARK"],
        ["openai", "no", "-", "-", "Set OPENAI_API_KEY to use it."],
        ["simulated", "yes", "yes", "N", "ms"],
    ]


def test_probe_providers_fails_when_a_configured_one_does(settings, unused_tcp_port: int) -> None:
    settings.PROVIDERS = {"openai": OPENAI | {"API_KEY": "sk-test", "BASE_URL": f"http://127.0.0.1:{unused_tcp_port}"}}
    out = StringIO()
    with pytest.raises(SystemExit) as end:
        call_command("probe_providers", "--json", stdout=out)
    [found] = json.loads(out.getvalue())
    assert end.value.code == 1
    assert {**found, "error": bool(found["error"])} == {
        "provider": "openai",
        "is_configured": True,
        "latency_ms": None,
        "error": True,
        "remedy": "Check the network and OPENAI_BASE_URL.",
        "is_optional": False,
        "is_reachable": False,
        "is_failure": True,
    }
    assert "sk-test" not in out.getvalue()


def test_update_prices_reads_out_each_price_that_changes() -> None:
    run("update_prices", "--quiet")
    model = LanguageModel.objects.get(name="gpt-4o")
    known = Price.objects.filter(model=model).latest("effective_from")
    services.set_price(model, input_per_million=Decimal("99.50"), output_per_million=Decimal(100))
    told, _ = run("update_prices", "--overwrite-manual")
    amounts = f"${known.input_per_million.normalize():f} in, ${known.output_per_million.normalize():f} out"
    change, summed_up = told.splitlines()
    assert change == f"from {timezone.now():%Y-%m-%d}: gpt-4o {amounts}"
    assert summed_up.endswith("0 completed, 1 price added.")


def test_update_prices_sums_up_and_is_quiet_when_asked_to_be() -> None:
    out, _ = run("update_prices", "--dry-run")
    assert re.fullmatch(r"Would be: (\d+) models known, \1 added, 0 completed, [\d,]+ prices added\.\n", out)
    assert not LanguageModel.objects.exists()
    out, _ = run("update_prices", "--quiet")
    assert re.fullmatch(r"(\d+) models known, \1 added, 0 completed, [\d,]+ prices added\.\n", out)
    assert run("update_prices", "--quiet") == ("", "")
    model = LanguageModel.objects.get(name="gpt-4o")
    services.set_price(model, input_per_million=99, output_per_million=99)  # type: ignore[arg-type]
    out, _ = run("update_prices")
    assert "0 prices added, 1 kept that people set" in out
    out, _ = run("update_prices", "--overwrite-manual")
    assert "1 price added" in out
