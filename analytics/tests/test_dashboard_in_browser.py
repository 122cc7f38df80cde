"""The dashboard in a real browser: drawn, refreshed, driven by keyboard, on a phone; and the record's pages in both
themes, judged by axe-core."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import expect

from accounts.models import User
from accounts.tests.factories import UserFactory
from chat.models import Interaction
from chat.tests.factories import InteractionFactory
from chat.tests.test_pages import PHONE, Visit, visit
from llmchat.tests.needs import lacking
from llmchat.tests.servers import PROJECT

if TYPE_CHECKING:
    from playwright.async_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

AXE = PROJECT / "node_modules" / "axe-core" / "axe.min.js"

__all__ = ["visit"]


@pytest.fixture
def operator(transactional_db: None) -> User:
    return UserFactory.create(username="operator", is_superuser=True)


@pytest.fixture
def row(transactional_db: None) -> Interaction:
    row = InteractionFactory.create()
    InteractionFactory.create(failed=True)
    InteractionFactory.create(rescued=True)
    InteractionFactory.create(age=dt.timedelta(hours=26))
    return row


async def drawn(page: Page) -> None:
    """Waits until all charts are there, with something drawn on each."""
    await expect(page.locator("#dash-figures")).to_have_attribute("data-drawn", "4")
    painted = await page.evaluate(
        """() => [...document.querySelectorAll("canvas[data-chart]")].map((canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.some((value) => value > 0);
        })"""
    )
    assert painted == [True] * 4


async def test_charts_are_drawn_from_what_this_server_brings(visit: Visit, operator: User, row: Interaction) -> None:
    await visit.log_in(operator)
    await drawn(visit.page)
    await visit.page.get_by_role("link", name="Last 7 days").click()
    await drawn(visit.page)
    await expect(visit.page.get_by_role("link", name="Last 7 days")).to_have_attribute("aria-current", "true")
    visit.is_clean()


async def test_figures_refresh_without_losing_the_readers_place(visit: Visit, operator: User, row: Interaction) -> None:
    page = visit.page
    await page.clock.install()
    await visit.log_in(operator)
    await drawn(page)
    await page.locator("#dash-charts summary").first.click()
    await page.locator("#dash-tile-cost").focus()
    await page.evaluate("document.getElementById('dash-tile-cost').scrollIntoView()")
    before = await page.evaluate("document.scrollingElement.scrollTop")
    await sync_to_async(InteractionFactory.create)()
    await page.clock.run_for(31_000)
    await expect(page.locator("#dash-tile-requests strong")).to_have_text("4")
    assert await page.evaluate("document.activeElement.id") == "dash-tile-cost"
    assert await page.evaluate("document.scrollingElement.scrollTop") == before
    await expect(page.locator("#dash-charts details").first).to_have_attribute("open", "")
    visit.is_clean()


async def test_switch_stops_refreshing_and_is_remembered(visit: Visit, operator: User, row: Interaction) -> None:
    page = visit.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/figures/" in request.url else None)
    await page.clock.install()
    await visit.log_in(operator)
    await page.get_by_role("switch").press("Space")
    await page.reload()
    await expect(page.get_by_role("switch")).not_to_be_checked()
    await page.clock.run_for(95_000)
    assert asked == []
    await page.get_by_role("switch").press("Space")
    async with page.expect_response("**/figures/**"):
        await page.clock.run_for(31_000)
    visit.is_clean()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"status": 503, "body": "away"}, "the database cannot be reached"),
        ({"status": 500, "body": "oh"}, "the server answered 500"),
        (None, "the server cannot be reached"),
    ],
)
async def test_refresh_that_fails_is_told_and_the_figures_stay(
    visit: Visit, operator: User, row: Interaction, answer: dict[str, Any] | None, words: str
) -> None:
    page = visit.page
    await page.clock.install()
    await visit.log_in(operator)
    await drawn(page)

    async def refuse(route: Any) -> None:
        await (route.fulfill(**answer) if answer else route.abort())

    await page.route("**/figures/**", refuse)
    await page.clock.run_for(31_000)
    await expect(page.locator("#dash-state")).to_contain_text(words)
    await expect(page.locator("#dash-tile-requests strong")).to_have_text("3")
    await page.unroute("**/figures/**")
    await page.clock.run_for(31_000)
    await expect(page.locator("#dash-state")).to_be_empty()


async def test_everything_is_reached_by_keyboard(visit: Visit, operator: User, row: Interaction) -> None:
    page = visit.page
    await visit.log_in(operator)
    await page.get_by_role("link", name="Last hour").focus()
    reached: list[str] = []
    for _ in range(80):
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"dash-switch", "dash-tile-requests", "dash-tile-retries", "dash-model-1", "dash-model-1-rows"} <= {*reached}
    await page.locator("#dash-charts summary").first.focus()
    await page.keyboard.press("Enter")
    await page.locator("#dash-table-requests a").last.focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/admin/chat/interaction/?*since=*")
    visit.is_clean()


async def test_phone_shows_all_without_scrolling_aside(visit: Visit, operator: User, row: Interaction) -> None:
    await visit.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await visit.log_in(operator)
    await drawn(visit.page)
    assert await visit.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    visit.is_clean()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_pages_of_the_record_are_accessible(visit: Visit, operator: User, row: Interaction, theme: Any) -> None:
    if not AXE.exists():
        lacking("axe-core is not installed (remedy: npm ci)")
    page = visit.page
    await page.emulate_media(color_scheme=theme)
    await visit.log_in(operator)
    await drawn(page)
    found: dict[str, list[str]] = {}
    for name, path in (
        ("dashboard", "/admin/?period=day&provider=gemini"),
        ("list", "/admin/chat/interaction/"),
        ("interaction", f"/admin/chat/interaction/{row.pk}/change/"),
    ):
        await visit.open(path)
        await page.wait_for_load_state("networkidle")
        assert await page.evaluate("document.documentElement.classList.contains('dark')") == (theme == "dark")
        await page.add_script_tag(path=AXE)
        result = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found[name] = [
            f"{each['id']}: {node['target']} {node['html'][:120]}"
            for each in result["violations"]
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"][:4]
        ]
    assert found == {"dashboard": [], "list": [], "interaction": []}
