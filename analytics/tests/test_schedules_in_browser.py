"""A schedule in a real browser: its report's own fields, and only those that the choice calls for."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import expect

from accounts.models import User
from accounts.tests.factories import UserFactory
from analytics.models import ReportSchedule
from chat.tests.test_pages import PHONE, Visit, visit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

__all__ = ["visit"]
ADD = "/admin/analytics/reportschedule/add/"


@pytest.fixture
def operator(transactional_db: None) -> User:
    return UserFactory.create(username="operator", is_superuser=True)


async def test_fields_are_those_of_the_chosen_report_and_clock(visit: Visit, operator: User) -> None:
    page = visit.page
    await visit.log_in(operator)
    await visit.open(f"{ADD}?report=errors&range=last-week&provider=gemini")
    await expect(page.locator("[name=parameters-errors-range]")).to_have_value("last-week")
    await expect(page.locator("[name=parameters-errors-provider]")).to_be_visible()
    await expect(page.locator("[name=parameters-usage-group_by]")).to_be_hidden()
    await page.locator("select[name=report]").select_option("usage")
    await expect(page.locator("[name=parameters-errors-provider]")).to_be_hidden()
    await page.locator("[name=parameters-usage-group_by]").select_option("provider")
    await expect(page.locator("[name=weekday]")).to_be_visible()
    await page.locator("select[name=frequency]").select_option("daily")
    await expect(page.locator("[name=weekday]")).to_be_hidden()
    await expect(page.locator("[name=day_of_month]")).to_be_hidden()
    await page.locator("[name=recipients]").fill("ops@example.com")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.wait_for_url("**/reportschedule/")
    schedule = await sync_to_async(ReportSchedule.objects.get)()
    assert schedule.parameters == {"range": "last-30-days", "group_by": "provider"}
    visit.is_clean()


async def test_phone_shows_the_form_without_scrolling_aside(visit: Visit, operator: User) -> None:
    await visit.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await visit.log_in(operator)
    await visit.open(ADD)
    await expect(visit.page.locator("[name=parameters-usage-range]")).to_be_visible()
    assert await visit.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    visit.is_clean()
