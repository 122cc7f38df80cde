"""The image and the compose file against the product: no engine is needed to see a wrong name, command or probe."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery
from celery.bin.celery import celery as celery_program
from django.core.management import get_commands

from conftest import Serve
from llmchat.tests.environment import documented_settings
from llmchat.tests.servers import PROJECT, free_port

COMPOSE_TEXT = (PROJECT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = re.sub(r"\\\n\s*", "", (PROJECT / "Dockerfile").read_text(encoding="utf-8"))

#: ${NAME}, ${NAME:-default} and ${NAME:?message}; `$$` is a dollar sign.
REFERENCE = re.compile(r"(?<!\$)\$\{(?P<name>[A-Z0-9_]+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


def instruction(name: str) -> list[str]:
    """The arguments of every such instruction in the Dockerfile, in order."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, flags=re.MULTILINE)


def probe() -> list[str]:
    """The image's health check, with this interpreter for the image's."""
    command: list[str] = json.loads(instruction("HEALTHCHECK")[0].partition("CMD ")[2])
    return [sys.executable, *command[1:]]


def resolved(text: str, given: dict[str, str]) -> str:
    return REFERENCE.sub(lambda match: given.get(match["name"]) or match["rest"] or "", text)


@pytest.mark.parametrize(
    ("schema", "path"),
    [("vendor.compose-spec", "docker-compose.yml"), ("vendor.github-workflows", ".github/workflows/ci.yml")],
)
def test_file_follows_its_published_schema(schema: str, path: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path]
    checked = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_variable_of_compose_is_documented() -> None:
    asked = {match["name"] for match in REFERENCE.finditer(COMPOSE_TEXT)}
    assert asked - documented_settings() == set()


def test_every_setting_given_in_compose_and_image_is_documented() -> None:
    in_image = {name for line in instruction("ENV") for name in re.findall(r"(\w+)=", line)}
    interpreter = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    installer = {name for name in in_image if name.startswith("PIP_")}
    in_compose = {name for service in OURS.values() for name in service["environment"]}
    assert (in_image - interpreter - installer | in_compose) - documented_settings() == set()


def test_secrets_are_required_and_never_have_a_default() -> None:
    kinds = {(match["name"], match["kind"]) for match in REFERENCE.finditer(COMPOSE_TEXT)}
    assert {pair for pair in kinds if re.search("SECRET|PASSWORD|KEY", pair[0])} == {
        ("SECRET_KEY", "?"),
        ("POSTGRES_PASSWORD", "?"),
    }


def test_every_command_exists() -> None:
    commands = [json.loads(line)[0] for line in instruction("CMD")]
    commands += [service["command"][0] for service in OURS.values() if "entrypoint" not in service]
    assert set(commands) - set(get_commands()) == set()
    assert json.loads(instruction("ENTRYPOINT")[0]) == ["python", "manage.py"]


def test_celery_services_name_a_real_application_and_real_programs() -> None:
    services = {name: service for name, service in OURS.items() if "entrypoint" in service}
    for service in services.values():
        program, option, module = service["entrypoint"]
        assert (program, option) == ("celery", "--app")
        assert isinstance(importlib.import_module(module).app, Celery)
    used = {service["command"][0] for service in services.values()}
    assert used == {"worker", "beat"}
    assert used - set(celery_program.commands) == set()


def test_what_others_wait_for_can_become_healthy_and_every_service_has_limits() -> None:
    awaited = {
        target
        for service in SERVICES.values()
        for target, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }
    assert awaited == {name for name in awaited if "test" in SERVICES[name]["healthcheck"]}
    limits = {
        name: set(service["deploy"]["resources"]["limits"]) & {"cpus", "memory"} for name, service in SERVICES.items()
    }
    assert limits == {name: {"cpus", "memory"} for name in SERVICES}


def test_only_web_is_reachable_and_only_from_this_host() -> None:
    ports = {
        name: [resolved(port, {}) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert ports == {"web": ["127.0.0.1:8000:8000"]}


def test_settings_accept_what_compose_gives(tmp_path: Path) -> None:
    given = {"SECRET_KEY": "s" * 25 + "t3St" * 10, "POSTGRES_PASSWORD": "p4ssw0rd"}
    environment = {name: resolved(value, given) for name, value in SERVICES["web"]["environment"].items()}
    checked = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, **environment, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_image_holds_every_package_of_the_product() -> None:
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "root_packages"
    ]
    kept = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{package}" for package in packages} - set(kept) == set()


def test_image_runs_without_root() -> None:
    assert instruction("USER") == ["10001:10001"]


def test_probe_of_the_image_tells_a_server_from_none(serve: Serve) -> None:
    for port, code in ((serve().port, 0), (free_port(), 1)):
        probed = subprocess.run(probe(), env={"PORT": str(port)}, capture_output=True, check=False)
        assert probed.returncode == code, probed.stderr
