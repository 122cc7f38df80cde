"""The admin in a real browser: people log in, find an exchange and read it; nothing stored runs, nothing is fetched
from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from playwright.async_api import expect

from accounts.models import User
from accounts.tests.factories import PASSWORD, UserFactory
from accounts.tests.fixtures import Person
from chat import rerun
from chat.admin import conversations
from chat.models import IdempotencyClaim, Interaction
from chat.tests.factories import MARKUP, ConversationFactory, InteractionFactory
from llmchat.lib.uuid7 import uuid7

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PHONE = {"width": 390, "height": 844}


@dataclass
class Visit:
    """A browser's page with all that went wrong on it."""

    page: Page
    server: str
    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def watch(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _heard(self, message: ConsoleMessage) -> None:
        # Answers in JSON have no head that could name an icon; Chromium then asks for this one.
        if message.type in {"error", "warning"} and not message.location["url"].endswith("/favicon.ico"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(("data:", "blob:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    async def log_in(self, user: User) -> None:
        await self.page.goto(f"{self.server}/admin/")
        await self.page.get_by_label("Username").fill(user.username)
        await self.page.get_by_label("Password", exact=False).first.fill(PASSWORD)
        await self.page.get_by_role("button", name="Log in").click()
        await expect(self.page.get_by_role("heading", name="Dashboard")).to_be_visible()

    async def open(self, path: str) -> None:
        await self.page.goto(f"{self.server}{path}")

    def is_clean(self) -> None:
        assert (self.complaints, self.hosts) == ([], {urlsplit(self.server).netloc})


@pytest_asyncio.fixture
async def visit(chromium: Browser, live_server: Any) -> AsyncIterator[Visit]:
    context = await chromium.new_context(viewport={"width": 1440, "height": 900})
    visit = Visit(page=await context.new_page(), server=live_server.url)
    visit.watch()
    yield visit
    await context.close()


@pytest.fixture
def operator(transactional_db: None) -> User:
    return UserFactory.create(username="operator", is_superuser=True)


@pytest.fixture
def rows(owner: Person) -> dict[str, Interaction]:
    conversation = ConversationFactory.create(organization=owner.organization, title="Trip to Lisbon")
    return {
        "plain": InteractionFactory.create(organization=owner.organization, conversation=conversation),
        "failed": InteractionFactory.create(organization=owner.organization, failed=True, prompt="Doomed?"),
        "rescued": InteractionFactory.create(organization=owner.organization, rescued=True, prompt="Saved?"),
        "markup": InteractionFactory.create(
            organization=owner.organization, markup=True, conversation=conversation, error_message=MARKUP
        ),
    }


@pytest.fixture
def theirs(stranger: Person) -> Interaction:
    return InteractionFactory.create(organization=stranger.organization, prompt="Umbrella's secret")


async def test_operator_finds_a_failure_by_filter_and_reads_it(
    visit: Visit, operator: User, rows: dict[str, Interaction]
) -> None:
    page = visit.page
    await visit.log_in(operator)
    await page.get_by_role("link", name="Interactions", exact=False).first.click()
    listed = page.locator("#result_list tbody")
    await expect(listed).to_have_count(4)

    await page.locator("#changelist").get_by_text("Filters", exact=False).first.click()
    panel = page.locator("#changelist-filter")
    await panel.locator("[name=provider]").select_option("gemini", force=True)
    await panel.locator("[name=user]").fill("ana")
    await panel.locator("[name=status]").select_option(["failed"], force=True)
    await panel.get_by_role("button", name="Apply").click()
    await page.wait_for_url(re.compile("status=failed"))
    await expect(listed).to_have_count(1)

    await listed.get_by_role("link", name="Doomed?").click()
    await expect(page.get_by_text("gemini could not be reached")).to_be_visible()
    await expect(page.locator(".rec-table tbody tr")).to_have_count(1)
    visit.is_clean()


async def test_operator_finds_an_exchange_by_its_id(visit: Visit, operator: User, rows: dict[str, Interaction]) -> None:
    await visit.log_in(operator)
    await visit.open("/admin/chat/interaction/")
    await visit.page.locator("#searchbar").fill(str(rows["rescued"].pk))
    await visit.page.locator("#searchbar").press("Enter")
    await visit.page.get_by_role("link", name="Saved?").click()
    await expect(visit.page.locator(".rec-bar-track")).to_have_count(4)
    visit.is_clean()


async def test_operator_goes_from_a_request_id_to_its_interaction(
    visit: Visit, operator: User, rows: dict[str, Interaction]
) -> None:
    row = rows["plain"]
    await IdempotencyClaim.objects.acreate(
        organization_id=row.organization_id, key="order-1<b>", fingerprint="f", interaction_id=row.id
    )
    await IdempotencyClaim.objects.acreate(
        organization_id=row.organization_id, key="order-2", fingerprint="f", interaction_id=rows["failed"].id
    )
    await IdempotencyClaim.objects.acreate(
        organization_id=row.organization_id, key="order-3", fingerprint="f", interaction_id=uuid7()
    )
    await visit.log_in(operator)
    await visit.page.get_by_role("link", name="Request ids", exact=False).first.click()
    listed = visit.page.locator("#result_list tbody")
    await expect(listed).to_have_count(3)
    await expect(listed.get_by_text("order-1<b>")).to_be_visible()
    await listed.get_by_role("link", name=str(row.pk)).click()
    await visit.page.wait_for_url(re.compile(f"/interaction/{row.pk}/"))
    visit.is_clean()


async def test_stored_script_is_text_and_never_runs(visit: Visit, operator: User, rows: dict[str, Interaction]) -> None:
    await visit.log_in(operator)
    row = rows["markup"]
    for path in (
        "/admin/",
        "/admin/chat/interaction/",
        f"/admin/chat/interaction/{row.pk}/change/",
        "/admin/chat/conversation/",
        f"/admin/chat/conversation/{row.conversation_id}/change/",
    ):
        await visit.open(path)
        await visit.page.wait_for_load_state("networkidle")
        assert "hacked" not in await visit.page.title()
    await expect(visit.page.get_by_text(MARKUP, exact=True).first).to_be_visible()
    visit.is_clean()


async def test_copied_command_is_the_call(visit: Visit, operator: User, rows: dict[str, Interaction]) -> None:
    await visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=visit.server)
    await visit.log_in(operator)
    await visit.open(f"/admin/chat/interaction/{rows['plain'].pk}/change/")
    await visit.page.get_by_role("button", name="Copy as curl").click()
    await expect(visit.page.get_by_role("button", name="Copied")).to_be_visible()
    copied = await visit.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith(f"curl {visit.server}/v1/chat ")
    assert json.dumps(rows["plain"].prompt) in copied
    visit.is_clean()


async def test_pages_fit_a_phone(visit: Visit, operator: User, rows: dict[str, Interaction]) -> None:
    await visit.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await visit.log_in(operator)
    for path in (
        "/admin/",
        "/admin/chat/interaction/",
        f"/admin/chat/interaction/{rows['rescued'].pk}/change/",
        f"/admin/chat/interaction/{rows['markup'].pk}/change/",
        f"/admin/chat/conversation/{rows['plain'].conversation_id}/change/",
    ):
        await visit.open(path)
        width = await visit.page.evaluate("document.documentElement.scrollWidth")
        assert (path, width) == (path, PHONE["width"])
    visit.is_clean()


async def test_side_bar_has_no_dead_end(visit: Visit, operator: User) -> None:
    await visit.log_in(operator)
    links = await visit.page.locator("#nav-sidebar-apps a").evaluate_all("links => links.map(link => link.href)")
    assert len(links) >= 11
    for link in links:
        await visit.page.goto(link)
        await visit.page.wait_for_load_state("networkidle")
    visit.is_clean()


async def test_member_sees_the_own_organization_only_also_in_the_dark(
    visit: Visit, member: Person, theirs: Interaction, rows: dict[str, Interaction]
) -> None:
    await visit.page.emulate_media(color_scheme="dark")
    await visit.log_in(member.user)
    await visit.open("/admin/chat/interaction/")
    await expect(visit.page.locator("#result_list tbody")).to_have_count(len(rows))
    assert await visit.page.evaluate("document.documentElement.classList.contains('dark')")
    await visit.open(f"/admin/chat/interaction/{theirs.pk}/change/")
    await expect(visit.page.get_by_role("heading", name="Dashboard")).to_be_visible()
    await expect(visit.page.get_by_text("Umbrella's secret")).to_have_count(0)
    visit.is_clean()


async def test_long_thread_is_read_on_a_phone_in_the_dark_by_keyboard(
    visit: Visit, operator: User, owner: Person, rows: dict[str, Interaction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "PAGE_LENGTH", 3)
    thread = rows["plain"].conversation
    ways: list[dict[str, Any]] = [{"failed": True}, {"cancelled": True}, {"prompt": "Again?"}]
    for way in ways:
        await sync_to_async(InteractionFactory.create)(organization=owner.organization, conversation=thread, **way)
    await visit.page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await visit.page.emulate_media(color_scheme="dark")
    await visit.log_in(operator)
    await visit.open(f"/admin/chat/conversation/{rows['plain'].conversation_id}/change/")
    turns = visit.page.locator(".rec-entry")
    await expect(turns).to_have_count(3)
    await expect(turns.nth(0)).to_contain_text("No answer came.")
    await expect(turns.nth(1)).to_contain_text("the exchange was cancelled")
    await expect(turns.nth(2)).to_contain_text("Again?")
    await visit.page.get_by_role("link", name="Earlier", exact=True).press("Enter")
    await expect(turns).to_have_count(2)
    assert await visit.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    await visit.page.get_by_role("link", name="Compare with the one before").first.press("Enter")
    await expect(visit.page.get_by_role("heading", name="Two interactions")).to_be_visible()
    visit.is_clean()


async def test_numbers_beside_the_list_lead_to_their_rows_and_can_be_folded_up(
    visit: Visit, operator: User, rows: dict[str, Interaction]
) -> None:
    page = visit.page
    await visit.log_in(operator)
    await visit.open("/admin/chat/interaction/")
    status = page.get_by_role("group", name="Status")
    await status.get_by_role("link", name="Failed 1").press("Enter")
    await expect(page.locator("#result_list tbody")).to_have_count(1)
    await expect(status.locator("[aria-current]")).to_have_text(re.compile("Failed"))
    await status.locator("[aria-current]").click()
    await expect(page.locator("#result_list tbody")).to_have_count(len(rows))

    await page.locator("#rec-facets summary").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/facets/" in request.url else None)
    await page.reload()
    await page.wait_for_load_state("networkidle")
    assert asked == []
    await page.locator("#rec-facets summary").press("Enter")
    await expect(status).to_be_visible()
    visit.is_clean()


async def test_numbers_that_cannot_be_had_are_told(visit: Visit, operator: User, rows: dict[str, Interaction]) -> None:
    await visit.log_in(operator)
    await visit.page.route("**/facets/**", lambda route: route.fulfill(status=503, body="away"))
    await visit.open("/admin/chat/interaction/")
    await expect(visit.page.get_by_text("Not counted: the server answered 503")).to_be_visible()


async def test_question_is_run_again_once_however_often_the_answer_is_loaded(
    visit: Visit, operator: User, rows: dict[str, Interaction]
) -> None:
    page = visit.page
    await visit.log_in(operator)
    await visit.open(f"/admin/chat/interaction/{rows['rescued'].pk}/change/")
    await page.get_by_role("link", name="Run again…").click()
    await page.get_by_label("Model").fill("simulated/echo")
    await page.get_by_role("button", name="Run again").dblclick()
    await expect(page.get_by_role("heading", name="The same question, asked again")).to_be_visible()
    await page.reload()
    await page.go_back()
    await page.go_forward()
    await expect(page.get_by_role("heading", name="The same question, asked again")).to_be_visible()
    again = Interaction.objects.filter(model_requested="simulated/echo")
    assert await again.acount() == 1
    found = await again.aget()
    assert (found.metadata[rerun.OF], found.metadata[rerun.BY]) == (str(rows["rescued"].pk), "operator")
    visit.is_clean()
