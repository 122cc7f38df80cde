"""Each system check of ours: silent where all is well, and with its id and a hint where it is not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.checks import CheckMessage, run_checks
from pytest_django.fixtures import Settings

from analytics.reports.models import ReportSchedule
from llmchat.tests.servers import PROJECT

SOUND = {
    "WEB_WORKERS": 1,
    "REDIS_URL": None,
    "DEFAULT_MODEL": "simulated/echo",
    "FALLBACK_ORDER": [],
    "METRICS_ALLOWED_ADDRESSES": ["127.0.0.1/32", "10.0.0.7"],
    "HTTPS_ONLY": True,
    "TRUSTED_PROXIES": 1,
    "HOST": "127.0.0.1",
    "ALLOWED_HOSTS": ["llm.example.com"],
}


@pytest.fixture
def sound(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv("SECRET_KEY", "something")
    for name, value in SOUND.items():
        setattr(settings, name, value)
    settings.ENV_FILE = tmp_path / ".env"
    return settings


def found() -> list[CheckMessage]:
    return [message for message in run_checks(include_deployment_checks=True) if str(message.id).startswith("llmchat.")]


def told() -> list[tuple[str | None, str, str | None]]:
    return [(message.id, message.msg, message.hint) for message in found()]


def test_sound_settings_are_not_complained_of(sound: Settings) -> None:
    assert found() == []


@pytest.mark.django_db
def test_schedules_that_send_mail_need_mail(sound: Settings) -> None:
    def said() -> list[tuple[str | None, str, str | None]]:
        found = [message for message in run_checks(databases=["default"]) if message.id == "llmchat.W006"]
        return [(message.id, message.msg, message.hint) for message in found]

    sound.EMAIL_IS_SET_UP = False
    ReportSchedule.objects.create(name="off", report="usage", recipients=["a@example.com"], is_active=False)
    ReportSchedule.objects.create(name="hook", report="usage", webhook_url="https://example.com/")
    assert said() == []
    ReportSchedule.objects.create(name="mail", report="usage", recipients=["a@example.com"])
    ((_, message, hint),) = said()
    assert message == "1 schedule sends reports by e-mail, but mail is not set up: none of them arrives."
    assert hint is not None
    assert hint.startswith("Set EMAIL_URL, such as smtp+tls://user:password@smtp.example.com:587, or switch")
    # Without a database nothing is asked of it.
    assert "llmchat.W006" not in {message.id for message in run_checks()}
    sound.EMAIL_IS_SET_UP = True
    assert said() == []


def test_several_workers_need_redis(sound: Settings) -> None:
    sound.WEB_WORKERS = 3
    assert told() == [
        (
            "llmchat.E001",
            "3 web workers cannot count limits together without Redis.",
            "Set REDIS_URL, or WEB_WORKERS=1.",
        )
    ]
    sound.REDIS_URL = "redis://localhost:6379/0"
    assert found() == []


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        (
            "gemni/gemini-2.5-flash",
            "DEFAULT_MODEL names gemni/gemini-2.5-flash, but there is no provider 'gemni'.",
            "Did you mean gemini?",
        ),
        (
            "gemini/gemini-2.5-flash",
            "DEFAULT_MODEL names gemini/gemini-2.5-flash, but its provider has no key.",
            "Set GEMINI_API_KEY, or name another model.",
        ),
    ],
)
def test_default_model_needs_a_provider_with_a_key(sound: Settings, model: str, message: str, hint: str) -> None:
    sound.DEFAULT_MODEL = model
    assert told() == [("llmchat.E002", message, hint)]


def test_default_model_may_be_a_name_of_the_catalogue(sound: Settings) -> None:
    sound.DEFAULT_MODEL = "gemini-2.5-flash"
    assert found() == []


def test_fallbacks_need_providers_with_keys(sound: Settings) -> None:
    sound.FALLBACK_ORDER = ["nowhere/model", "openai/gpt-4o-mini", "simulated/echo"]
    assert [(message.id, message.msg) for message in found()] == [
        ("llmchat.E003", "FALLBACK_ORDER names nowhere/model, but there is no provider 'nowhere'."),
        ("llmchat.W002", "FALLBACK_ORDER names openai/gpt-4o-mini, but its provider has no key."),
    ]


def test_metrics_are_allowed_to_addresses(sound: Settings) -> None:
    sound.METRICS_ALLOWED_ADDRESSES = ["10.0.0.0/8", "prometheus"]
    assert told() == [
        (
            "llmchat.E004",
            "METRICS_ALLOWED_ADDRESSES holds 'prometheus', which is neither an address nor a network.",
            "Write addresses such as 10.0.0.7 or networks such as 10.0.0.0/8, with commas between them.",
        )
    ]


def test_https_needs_a_proxy(sound: Settings) -> None:
    sound.TRUSTED_PROXIES = 0
    assert [message.id for message in found()] == ["llmchat.E005"]


def test_local_model_needs_its_packages(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    sound.DEFAULT_MODEL = "local/smollm2-135m"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("llmchat.checks.find_spec", lambda name: None if name == "xllamacpp" else find_spec(name))
    assert [(message.id, message.msg) for message in found()] == [
        ("llmchat.W001", "The default model local/smollm2-135m needs packages that are missing: xllamacpp.")
    ]
    sound.DEFAULT_MODEL = "simulated/echo"
    assert found() == []


def test_unknown_names_in_dotenv_are_named_with_near_ones(sound: Settings) -> None:
    sound.ENV_FILE.write_text("# OTHER=1\nREDIS_ULR=redis://x\nexport PORT=1\nHTTPS_PROXY=x\nZZZ=1\n")
    assert told() == [
        ("llmchat.W003", ".env sets REDIS_ULR, which means nothing to llmchat.", "Did you mean REDIS_URL?"),
        (
            "llmchat.W003",
            ".env sets ZZZ, which means nothing to llmchat.",
            "Remove it; .env.example explains every setting there is.",
        ),
    ]


@pytest.mark.parametrize(("host", "ids"), [("0.0.0.0", ["llmchat.W004"]), ("::1", []), ("localhost", [])])
def test_open_access_is_for_this_machine_only(sound: Settings, host: str, ids: list[str]) -> None:
    sound.REQUIRE_API_KEY = False
    sound.HOST = host
    assert [message.id for message in found()] == ids


@pytest.mark.parametrize(
    ("address", "messages"),
    [
        ("http://api.example.com/v1", ["OPENAI_API_KEY would travel in clear text to api.example.com."]),
        ("https://api.example.com/v1", []),
        ("http://127.0.0.1:4000/v1", []),
        ("http://litellm:4000/v1", []),
        (None, []),
    ],
)
def test_keys_travel_encrypted(sound: Settings, address: str | None, messages: list[str]) -> None:
    sound.PROVIDERS = {"openai": {"API_KEY": "key", "BASE_URL": address, "SETTING": "OPENAI"}, "simulated": {}}
    assert [message.msg for message in found()] == messages


def test_deployment_wants_https(sound: Settings) -> None:
    sound.HTTPS_ONLY = False
    assert [message.id for message in found()] == ["llmchat.W101"]
    assert [message.id for message in run_checks() if str(message.id).startswith("llmchat.")] == []


def test_deployment_wants_a_secret_key(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY")
    assert [message.id for message in found()] == ["llmchat.W102"]


def test_deployment_wants_named_hosts(sound: Settings) -> None:
    sound.ALLOWED_HOSTS = ["*"]
    assert [message.id for message in found()] == ["llmchat.W103"]


@pytest.mark.parametrize(("https", "code"), [("true", 0), ("false", 1)])
def test_sound_production_passes_the_deployment_check(https: str, code: int, tmp_path: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path),
        "HTTPS_ONLY": https,
        "TRUSTED_PROXIES": "1",
        "ALLOWED_HOSTS": "llm.example.com",
        "SECRET_KEY": "7f" * 10 + "QwErTyUiOpAsDfGhJkLzXcVbNm_0123456789",
    }
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, "llmchat.W101" in checked.stderr) == (code, bool(code)), checked.stderr
