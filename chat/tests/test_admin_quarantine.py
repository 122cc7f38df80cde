"""The quarantine in the admin: for the operator, with a way out."""

import pytest
from django.urls import reverse

from accounts.tests.factories import OrganizationFactory, UserFactory
from chat import quarantine
from chat.models import Interaction, QuarantinedExchange
from chat.rows import ExchangeRows
from chat.tests.factories import InteractionFactory

pytestmark = pytest.mark.django_db
LIST = "admin:chat_quarantinedexchange_changelist"


@pytest.fixture
def refused() -> ExchangeRows:
    row = InteractionFactory.build(organization=OrganizationFactory.create(), attempt=None, response="a\x00b")
    kept = ExchangeRows(interaction=row, attempts=[])
    quarantine.put(kept, reason="DataError: NUL\x00 is refused")
    return kept


def test_the_operator_sees_why_and_stores_it_again(client, refused) -> None:
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    assert "DataError: NUL" in client.get(reverse(LIST)).content.decode()
    page = client.get(reverse("admin:chat_quarantinedexchange_change", args=[refused.id]))
    assert "a\\u0000b" in page.content.decode()

    kept = QuarantinedExchange.objects.get()
    kept.facts = kept.facts.replace("\\u0000", "")
    kept.save()
    chosen = {"action": "try_again", "_selected_action": [str(refused.id)]}
    assert "On record now: 1 exchange." in client.post(reverse(LIST), chosen, follow=True).content.decode()
    assert Interaction.objects.get().response == "ab"
    assert not QuarantinedExchange.objects.exists()


def test_what_is_still_refused_stays_and_says_why(client, refused) -> None:
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    QuarantinedExchange.objects.update(facts="{}")
    chosen = {"action": "try_again", "_selected_action": [str(refused.id)]}
    assert "is still refused" in client.post(reverse(LIST), chosen, follow=True).content.decode()
    assert QuarantinedExchange.objects.exists()


def test_members_do_not_see_it(client, member, refused) -> None:
    client.force_login(member.user)
    assert client.get(reverse(LIST)).status_code == 403


def test_an_empty_quarantine_says_so(client) -> None:
    client.force_login(UserFactory.create(is_staff=True, is_superuser=True))
    assert "Nothing is in quarantine" in client.get(reverse(LIST)).content.decode()


@pytest.mark.parametrize("name", ["quarantinedexchange", "removal", "savedfilter"])
def test_empty_list_speaks_of_no_results(client, name: str) -> None:
    client.force_login(UserFactory.create(is_superuser=True))
    content = client.get(reverse(f"admin:chat_{name}_changelist")).content.decode()
    assert "0 results" not in content
    assert "Show all" not in content
