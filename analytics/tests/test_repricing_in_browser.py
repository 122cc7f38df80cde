"""Pricing later what was used at an unknown price, from the list of it to the dashboard, in a real browser."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone
from playwright.async_api import expect

from accounts.models import Organization, User
from accounts.tests.factories import UserFactory
from analytics import rolling
from analytics.tests.test_repricing import DAY, a_model, used
from chat import rows
from chat.models import Interaction
from chat.tests.test_pages import Visit, visit
from providers.models import Price

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

__all__ = ["visit"]


@pytest.fixture
def operator(transactional_db: None) -> User:
    return UserFactory.create(username="operator", is_superuser=True)


@pytest.fixture
def two_unpriced(transactional_db: None, organization: Organization) -> None:
    a_model()
    rows.store([used(organization, timezone.now() - days * DAY) for days in (5, 1)])
    rolling.roll_up()


@pytest.mark.usefixtures("two_unpriced")
async def test_what_is_unpriced_is_tried_agreed_to_and_gone_from_the_dashboard(visit: Visit, operator: User) -> None:
    page = visit.page
    await visit.log_in(operator)
    await visit.open("/admin/?period=week")
    tile = page.locator("#dash-tile-unpriced strong")
    await expect(tile).to_have_text("2")
    await page.get_by_role("link", name="Unpriced use").click()
    await page.get_by_role("link", name="Price it…").click()
    await page.locator("[name=effective_from_0]").fill(f"{timezone.now() - 9 * DAY:%Y-%m-%d}")
    await page.locator("[name=effective_from_1]").fill("00:00:00")
    await page.locator("[name=input_per_million]").fill("2")
    await page.locator("[name=output_per_million]").fill("8")
    await page.locator("[name=reason]").fill("the invoice came")
    await page.get_by_role("button", name="Show what it would do").click()
    await expect(page.get_by_text("$0.012", exact=True)).to_be_visible()
    # Seen, and nothing done.
    assert not await sync_to_async(Price.objects.exists)()
    await page.get_by_role("button", name="Agree").click()
    await expect(page.get_by_text("Interactions priced")).to_be_visible()
    assert await sync_to_async(Interaction.objects.filter(cost=None).count)() == 0
    await visit.open("/admin/?period=week")
    await expect(tile).to_have_text("0")
    await visit.open("/admin/chat/repricing/")
    await expect(page.get_by_text("every interaction that used tokens has a cost")).to_be_visible()
    visit.is_clean()
