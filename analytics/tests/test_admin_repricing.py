"""Unpriced use in the admin: what it lists, who may see it, and pricing it later, seen before it is agreed to."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.tests.factories import UserFactory
from analytics import rolling, unpriced
from analytics.tests.test_repricing import DAY, a_draft, a_model, counted, used
from audit.models import Entry
from chat import rows
from chat.models import Interaction, Repricing
from providers.models import Price

pytestmark = pytest.mark.django_db
LIST = reverse("admin:chat_repricing_changelist")


@pytest.fixture
def operator(client):
    user = UserFactory.create(is_superuser=True, username="olga")
    client.force_login(user)
    return user


def _draft(since: dt.datetime, **values: str) -> dict[str, str]:
    return {
        "effective_from_0": f"{since:%Y-%m-%d}",
        "effective_from_1": f"{since:%H:%M:%S}",
        "input_per_million": "2",
        "output_per_million": "8",
        "reason": "the invoice came",
        **values,
    }


def _some_unpriced(organization):
    model = a_model()
    rows.store([used(organization, timezone.now() - days * DAY) for days in (5, 1)])
    rolling.roll_up()
    return model


def test_nothing_unpriced_is_said_so(client, operator):
    page = client.get(LIST).content.decode()
    assert "every interaction that used tokens has a cost" in page
    assert "Nothing has been priced later yet" in page


def test_what_is_unpriced_is_listed_with_its_very_rows(client, operator, organization):
    model = _some_unpriced(organization)
    page = client.get(LIST)
    line = page.context_data["unpriced"][0]
    assert (line["model"], line["provider"], line["interactions"]) == ("acme-1", "gemini", "2")
    assert line["price"] == reverse("admin:chat_repricing_price", args=[model.pk])
    found = client.get(line["rows"])
    assert found.status_code == 200
    assert {row.pk for row in found.context_data["cl"].result_list} == set(
        Interaction.objects.values_list("pk", flat=True)
    )


def test_a_model_that_the_catalogue_does_not_know_is_to_be_added(client, operator, organization):
    rows.store([used(organization, timezone.now() - DAY, ("gemini", "gone-1"))])
    rolling.roll_up()
    line = client.get(LIST).context_data["unpriced"][0]
    assert line["price"] is None
    assert client.get(line["add"]).status_code == 200


def test_a_price_is_tried_agreed_to_and_fills_what_was_used(client, operator, organization):
    model = _some_unpriced(organization)
    since = timezone.now() - 10 * DAY
    address = reverse("admin:chat_repricing_price", args=[model.pk])
    assert "2 interactions" in client.get(address).content.decode()
    response = client.post(address, _draft(since))
    run = Repricing.objects.get()
    assert (response.status_code, response["Location"]) == (302, reverse("admin:chat_repricing_change", args=[run.pk]))
    page = client.get(response["Location"]).content.decode()
    assert "$0.012" in page
    assert "Agree" in page
    assert not Price.objects.exists()
    client.post(reverse("admin:chat_repricing_agree", args=[run.pk]))
    run.refresh_from_db()
    assert (run.state, run.filled_interactions, run.by) == ("filling", 2, "olga")
    assert set(Interaction.objects.values_list("cost", flat=True)) == {Decimal("0.006")}
    price = Price.objects.get()
    assert (price.set_by, price.reason, price.source) == ("olga", "the invoice came", "manual")
    begun = Entry.objects.get(action="repricing_begun")
    assert (begun.actor, begun.person_id) == ("olga", operator.pk)
    Repricing.objects.update(until=timezone.now())
    unpriced.work_all()
    assert "Priced" in client.get(response["Location"]).content.decode()


def test_giving_up_changes_nothing(client, operator, organization):
    run = counted(_some_unpriced(organization), a_draft(timezone.now() - 9 * DAY))
    client.post(reverse("admin:chat_repricing_cancel", args=[run.pk]))
    run.refresh_from_db()
    assert run.state == "cancelled"
    assert not Price.objects.exists()
    page = client.post(reverse("admin:chat_repricing_agree", args=[run.pk]), follow=True).content.decode()
    assert "This is given up by now." in page


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"reason": ""}, "This field is required"),
        ({"input_per_million": "-1"}, "greater than or equal to 0"),
        ({"output_per_million": "much"}, "Enter a number"),
        ({"effective_from_0": "yesterday"}, "Enter a valid date"),
    ],
)
def test_wrong_values_are_named(client, operator, organization, values, words):
    model = _some_unpriced(organization)
    address = reverse("admin:chat_repricing_price", args=[model.pk])
    assert words in client.post(address, _draft(timezone.now() - DAY, **values)).content.decode()
    assert not Repricing.objects.exists()


def test_a_time_that_had_a_price_is_refused_with_the_reason(client, operator, organization):
    model = _some_unpriced(organization)
    Price.objects.create(
        model=model, effective_from=timezone.now() - 30 * DAY, input_per_million=1, output_per_million=1
    )
    address = reverse("admin:chat_repricing_price", args=[model.pk])
    assert "Another price was in force then" in client.post(address, _draft(timezone.now() - DAY)).content.decode()
    client.post(address, {"as_recorded": "1"})
    assert Repricing.objects.get().counted_interactions == 2


def test_only_operators_see_and_price(client, owner, member, stranger):
    model = _some_unpriced(owner.organization)
    run = counted(model, a_draft(timezone.now() - 9 * DAY))
    pages = [
        LIST,
        reverse("admin:chat_repricing_change", args=[run.pk]),
        reverse("admin:chat_repricing_price", args=[model.pk]),
    ]
    decisions = [reverse(f"admin:chat_repricing_{name}", args=[run.pk]) for name in ("agree", "cancel")]
    for person in (owner, member, stranger):
        client.force_login(person.user)
        assert [client.get(page).status_code for page in pages] == [403, 403, 403]
        assert [client.post(page).status_code for page in decisions] == [403, 403]
        assert client.post(pages[2], _draft(timezone.now() - DAY)).status_code == 403
    run.refresh_from_db()
    assert (run.state, Repricing.objects.count()) == ("counted", 1)


def test_deciding_takes_a_post(client, operator, organization):
    run = counted(_some_unpriced(organization), a_draft(timezone.now() - 9 * DAY))
    assert client.get(reverse("admin:chat_repricing_agree", args=[run.pk])).status_code == 405


def test_a_price_in_the_past_is_sent_to_its_page(client, operator, organization):
    model = _some_unpriced(organization)
    since = timezone.now() - 9 * DAY
    page = client.post(reverse("admin:providers_price_add"), {"model": model.pk, **_draft(since)}).content.decode()
    assert "Use Price the past on the model" in page
    assert not Price.objects.exists()
    way = client.get(f"{reverse('admin:providers_languagemodel_changelist')}{model.pk}/past/")
    assert way["Location"] == reverse("admin:chat_repricing_price", args=[model.pk])


def test_history_of_prices_says_who_and_until_when(client, operator):
    model = a_model()
    now = timezone.now()
    for days, by in ((9, "ana"), (3, "olga")):
        Price.objects.create(
            model=model,
            effective_from=now - days * DAY,
            input_per_million=1,
            output_per_million=1,
            set_by=by,
            reason="the invoice came",
        )
    page = client.get(reverse("admin:providers_languagemodel_change", args=[model.pk])).content.decode()
    assert "ana" in page
    assert "further notice" in page
    assert "the invoice came" in page
    ends = [price.until for price in Price.objects.with_end().order_by("effective_from")]  # type: ignore[attr-defined]
    assert ends == [Price.objects.get(set_by="olga").effective_from, None]
