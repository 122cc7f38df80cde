"""`manage.py bootstrap`"""

from __future__ import annotations

import re
import stat
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from accounts.models import APIKey, Organization, User
from accounts.tests.asking import ask_sync, body, code
from accounts.tests.factories import UserFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def data(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings.DATA_DIR = tmp_path
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> str:
    output = StringIO()
    call_command("bootstrap", stdout=output)
    return output.getvalue()


def test_first_run_makes_organization_key_and_administrator(data: Path) -> None:
    output = run()

    raw = (data / "demo.key").read_text().strip()
    assert stat.S_IMODE((data / "demo.key").stat().st_mode) == 0o600
    assert body(ask_sync(x_api_key=raw)) == {
        "organization": "demo",
        "key": "demo",
        "plan": "premium",
        "user": "demo",
        "is_authenticated": True,
        "is_staff": False,
    }
    assert output.count(raw) == 1
    assert '"Authorization: Bearer $(cat demo.key)"' in output


def test_printed_password_logs_in() -> None:
    password = re.search(r"user admin   password (\S+)", run())

    assert password is not None
    client = Client()
    assert client.login(username="admin", password=password[1])
    assert client.get(reverse("admin:index")).status_code == 200


def test_later_runs_change_nothing_and_show_nothing(data: Path) -> None:
    run()
    before = (data / "demo.key").read_text(), User.objects.get().password

    output = run()

    assert output == "The demo organization and the admin user exist already; the key is in demo.key.\n"
    assert ((data / "demo.key").read_text(), User.objects.get().password) == before
    assert (Organization.objects.count(), APIKey.objects.count()) == (1, 1)


def test_lost_key_file_is_replaced_and_the_lost_key_revoked(data: Path) -> None:
    run()
    lost = (data / "demo.key").read_text().strip()
    (data / "demo.key").unlink()

    output = run()

    fresh = (data / "demo.key").read_text().strip()
    assert code(ask_sync(x_api_key=lost)) == (401, "api_key_revoked")
    assert ask_sync(x_api_key=fresh).status_code == 200
    assert (output.count(fresh), output.count("password")) == (1, 0)


def test_key_file_of_another_database_is_replaced(data: Path) -> None:
    (data / "demo.key").write_text("llmc_" + "x" * 43)
    (data / "demo.key").chmod(0o644)

    run()

    assert ask_sync(x_api_key=(data / "demo.key").read_text().strip()).status_code == 200
    assert stat.S_IMODE((data / "demo.key").stat().st_mode) == 0o600


def test_installation_with_an_administrator_gets_no_second_one() -> None:
    UserFactory.create(username="root", is_superuser=True)

    assert "password" not in run()
    assert list(User.objects.values_list("username", flat=True)) == ["root"]
