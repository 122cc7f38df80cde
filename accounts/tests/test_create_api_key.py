"""`manage.py create_api_key`"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.models import APIKey
from accounts.services import RAW_KEY
from accounts.tests.asking import ask_sync, body
from accounts.tests.factories import OrganizationFactory

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def acme() -> None:
    OrganizationFactory.create(name="Acme")


def run(*arguments: str, organization: str = "Acme") -> str:
    output = StringIO()
    call_command("create_api_key", "--organization", organization, *arguments, stdout=output)
    return output.getvalue()


def refused(*arguments: str, organization: str = "Acme") -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments, organization=organization)
    assert not APIKey.objects.exists()
    return str(error.value)


def test_it_prints_the_raw_key_and_nothing_else() -> None:
    output = run()

    assert RAW_KEY.fullmatch(output.removesuffix("\n"))
    assert body(ask_sync(x_api_key=output.strip()))["organization"] == "Acme"


def test_without_options_the_key_chats_and_reads_without_end() -> None:
    run()

    assert APIKey.objects.values_list("name", "scopes", "budget_usd", "expires_at").get() == (
        "default",
        ["chat", "read"],
        None,
        None,
    )


def test_options_are_kept() -> None:
    run("--name", "ci", "--budget", "12.50", "--scopes", "metrics", "read", "--expires-days", "30")

    key = APIKey.objects.get()
    assert key.expires_at is not None
    assert (key.name, key.scopes, key.budget_usd) == ("ci", ["metrics", "read"], Decimal("12.50"))
    assert timedelta(days=29) < key.expires_at - key.created_at < timedelta(days=31)


def test_unknown_organization_is_refused_with_the_near_ones() -> None:
    assert refused(organization="Acmee") == (
        "There is no organization 'Acmee'. Did you mean 'Acme'? Create it with: manage.py create_organization 'Acmee'"
    )


def test_many_organizations_are_not_all_listed() -> None:
    for number in range(12):
        OrganizationFactory.create(name=f"Tenant number {number:02d}")

    assert "Tenant number 08 and 3 more." in refused(organization="?")


@pytest.mark.parametrize("amount", ["ten", "-1", "NaN", "Infinity", "1e400000000000000000000"])
def test_budget_that_is_no_amount_is_refused(amount: str) -> None:
    assert refused(f"--budget={amount}") == (
        f"--budget {amount!r} is not an amount of US dollars. Give a number such as 25 or 0.50."
    )


@pytest.mark.parametrize("amount", ["0.001", "99999999999"])
def test_budget_that_cannot_be_stored_is_refused(amount: str) -> None:
    assert refused("--budget", amount).startswith("This key cannot be created. budget_usd: Ensure that")


@pytest.mark.parametrize("days", ["0", "soon", "-3", "36501"])
def test_end_that_is_no_number_of_days_is_refused(days: str) -> None:
    assert refused(f"--expires-days={days}") == (
        f"--expires-days {days!r} is not a number of days. Give one from 1 to 36500."
    )


def test_unknown_scope_is_refused() -> None:
    assert refused("--scopes", "chat", "admin") == "There is no scope 'admin'. There are: chat, read, metrics."
