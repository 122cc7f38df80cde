"""`manage.py create_organization`"""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from accounts.models import Organization
from accounts.tests.factories import OrganizationFactory

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("create_organization", *arguments, stdout=output)
    return output.getvalue()


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        run(*arguments)
    return str(error.value)


def test_it_prints_the_id_and_nothing_else() -> None:
    output = run("Acme", "--plan", "unlimited")

    organization = Organization.objects.get()
    assert (organization.name, organization.plan_id, output) == ("Acme", "unlimited", f"{organization.id}\n")


def test_plan_is_free_unless_said_otherwise() -> None:
    run("Acme")

    assert Organization.objects.get().plan_id == "free"


def test_name_that_exists_is_refused() -> None:
    OrganizationFactory.create(name="Acme")

    assert refused(" Acme ") == (
        "There is an organization 'Acme' already. Choose another name, or give it a key with: "
        "manage.py create_api_key --organization 'Acme'"
    )
    assert Organization.objects.count() == 1


def test_unknown_plan_is_refused_with_the_near_ones() -> None:
    assert refused("Acme", "--plan", "premum") == (
        "There is no plan 'premum'. Did you mean 'premium'? Plans are made in the admin."
    )
    assert refused("Acme", "--plan", "gold") == (
        "There is no plan 'gold'. There are: free, premium, enterprise, unlimited. Plans are made in the admin."
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("  ", "name: This field cannot be blank."),
        ("x" * 129, "name: Ensure this value has at most 128 characters (it has 129)."),
    ],
)
def test_name_that_cannot_be_one_is_refused(name: str, reason: str) -> None:
    assert refused(name) == f"This organization cannot be created. {reason}"
