"""Databases that the tests' servers begin with: made once in a run, then copied, which takes moments where migrating
and making keys take seconds.

They are made by the product's own commands, in processes of their own.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

from llmchat.tests.environment import Services
from llmchat.tests.servers import LiveServer

#: Number 0 of Redis belongs to the tests that run in this process.
_numbers = itertools.count(1)

_FURNISH = """
from django.core.management import call_command
call_command("create_organization", "Acme", plan="unlimited")
call_command("create_api_key", organization="Acme")
call_command("create_api_key", organization="Acme", scopes=["metrics"])
"""


@dataclass(frozen=True, slots=True)
class Migrated:
    """A migrated, empty database; `name`: what PostgreSQL calls it."""

    server: LiveServer
    services: Services | None
    name: str

    def copy(self, data: Path) -> dict[str, str]:
        """A copy for the server with that data directory. Returns the settings it needs."""
        if self.services is None:
            for file in self.server.data.glob("*.sqlite3*"):
                shutil.copy(file, data)
            return {}
        number = next(_numbers)
        return {
            "DATABASE_URL": self.services.postgresql.create_database(f"copy_{number}", template=self.name),
            "REDIS_URL": self.services.redis.database_url(number),
        }


@dataclass(frozen=True, slots=True)
class Furnished(Migrated):
    """In it is the organization Acme, on the plan without limits, with two raw keys: a usual one, one for metrics."""

    key: str
    metrics_key: str


def migrated(place: Path, services: Services | None) -> Migrated:
    """Args: an empty directory; what this run tests."""
    server = LiveServer(place)
    if services is not None:
        server.environment["DATABASE_URL"] = services.postgresql.create_database("origin")
    server.manage("migrate", "--verbosity", "0")
    return Migrated(server, services, "origin")


def furnished(place: Path, empty: Migrated) -> Furnished:
    """Args: an empty directory; what to furnish a copy of."""
    server = LiveServer(place)
    server.environment.update(empty.copy(server.data))
    key, metrics_key = furnish(server)
    return Furnished(
        server, empty.services, server.environment.get("DATABASE_URL", "").rpartition("/")[2], key, metrics_key
    )


def furnish(server: LiveServer) -> tuple[str, str]:
    """Puts Acme into the server's migrated database. Returns its keys, as `Furnished` has them."""
    _, key, metrics_key = server.manage("shell", "--no-imports", "-c", _FURNISH).split()
    return key, metrics_key
