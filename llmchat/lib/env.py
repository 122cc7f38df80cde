"""Strict reading of settings from the environment: a wrong value stops the start with one line that names the setting
and the remedy. Values are never echoed for secrets."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from llmchat.lib.encryption import keys_from

TRUE = {"1", "true", "yes", "on"}
FALSE = {"0", "false", "no", "off"}


class EnvReader:
    """Reads the process environment, after filling what it lacks from a `.env` file.

    Every method takes the setting's name and its default; an unset or empty variable gives the default.
    All raise `ImproperlyConfigured` with one line for a value that cannot be right.
    """

    def __init__(self, *, dotenv: Path | None = None) -> None:
        self._env = environ.Env()
        self.names: set[str] = set()
        if dotenv is not None and dotenv.is_file():
            environ.Env.read_env(str(dotenv), overwrite=False)

    def text(self, name: str, default: str = "") -> str:
        self.names.add(name)
        value: str = self._env.str(name, default="").strip()
        return value or default

    def optional(self, name: str) -> str | None:
        return self.text(name) or None

    def integer(self, name: str, default: int, *, minimum: int = 0, maximum: int = 2**63 - 1) -> int:
        raw = self.text(name)
        if not raw:
            return default
        try:
            value = int(raw)
        except ValueError:
            raise ImproperlyConfigured(
                f"{name}={raw!r} is not a whole number. Set it to one, such as {default}."
            ) from None
        if not minimum <= value <= maximum:
            raise ImproperlyConfigured(
                f"{name}={value} is out of range. Set it to a number from {minimum} to {maximum}."
            )
        return value

    def seconds(self, name: str, default: float, *, minimum: float = 0.001) -> float:
        raw = self.text(name)
        if not raw:
            return default
        try:
            value = float(raw)
        except ValueError:
            raise ImproperlyConfigured(
                f"{name}={raw!r} is not a number of seconds. Set it to one, such as {default}."
            ) from None
        if not minimum <= value < float("inf"):
            raise ImproperlyConfigured(
                f"{name}={raw} is out of range. Set it to a number of seconds from {minimum} up."
            )
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        raw = self.text(name).lower()
        if not raw:
            return default
        if raw in TRUE or raw in FALSE:
            return raw in TRUE
        raise ImproperlyConfigured(f"{name}={raw!r} is neither true nor false. Set it to 'true' or 'false'.")

    def choice(self, name: str, default: str, *, of: Collection[str]) -> str:
        value = self.text(name, default)
        if value not in of:
            raise ImproperlyConfigured(f"{name}={value!r} is not known. Set it to one of: {', '.join(sorted(of))}.")
        return value

    def items(self, name: str, default: Collection[str] = ()) -> list[str]:
        """Words divided by commas."""
        raw = self.text(name)
        return [word.strip() for word in raw.split(",") if word.strip()] if raw else list(default)

    def keys(self, name: str) -> tuple[bytes, ...]:
        """Keys of 256 bits in base64 of either alphabet, divided by commas. Values are not echoed."""
        try:
            return keys_from(self.text(name))
        except ValueError as error:
            raise ImproperlyConfigured(f"{name}: {error}") from None

    def url(self, name: str, default: str | None = None, *, schemes: Collection[str]) -> str | None:
        """An address with one of `schemes`. The value is not echoed: it may hold a password."""
        value = self.text(name) or default
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in schemes and (
                bool(parts.hostname) or parts.scheme in {"unix", "sqlite", "filesystem"}
            )
            _ = parts.port
        except ValueError:
            usable = False
        if not usable:
            raise ImproperlyConfigured(
                f"{name} is not an address that can be used. Set it to one that begins with "
                f"{' or '.join(sorted(f'{scheme}://' for scheme in schemes))}."
            )
        return value

    def mail(self, name: str) -> dict[str, Any]:
        """Django's mail settings from an address; empty when there is none. The value is not echoed."""
        address = self.optional(name)
        if address is None:
            return {}
        try:
            found = dict(self._env.email_url_config(address))
            if not found["EMAIL_HOST"] and found["EMAIL_BACKEND"].endswith("smtp.EmailBackend"):
                raise ValueError("no host")
        except Exception as error:
            raise ImproperlyConfigured(
                f"{name} cannot be read. Set it to smtp+tls://user:password@host:587, "
                "smtp+ssl://user:password@host:465, smtp://host:25 or consolemail://."
            ) from error
        return found

    def database(self, name: str, default: str) -> dict[str, Any]:
        """Django's database settings from an address (SQLite or PostgreSQL). The value is not echoed."""
        address = self.url(name, default, schemes={"sqlite", "postgres", "postgresql"})
        try:
            return dict(self._env.db_url_config(address))
        except Exception as error:
            raise ImproperlyConfigured(
                f"{name} cannot be read. Set it to sqlite:////path/file.sqlite3 or postgres://user:password@host:5432/name."
            ) from error
