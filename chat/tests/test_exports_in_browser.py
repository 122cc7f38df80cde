"""An export in a real browser: from the filtered list to the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from playwright.async_api import expect

from accounts.models import User
from accounts.tests.factories import UserFactory
from chat import tasks
from chat.exports import jobs
from chat.models import Interaction
from chat.tests.factories import InteractionFactory
from chat.tests.test_pages import PHONE, Visit, visit

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

__all__ = ["visit"]


@pytest.fixture
def operator(transactional_db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    settings.EXPORTS_DIR = tmp_path / "exports"
    # The worker's turn comes when the test says so.
    monkeypatch.setattr(tasks.work_on_exports, "delay", lambda: None)
    return UserFactory.create(username="operator", is_superuser=True)


@pytest.fixture
def row(transactional_db: None) -> Interaction:
    InteractionFactory.create(user_id="bo")
    return InteractionFactory.create(user_id="ana")


async def test_from_the_filtered_list_to_the_file(
    visit: Visit, operator: User, row: Interaction, tmp_path: Path
) -> None:
    page = visit.page
    await visit.log_in(operator)
    await visit.open("/admin/chat/interaction/?user=ana")
    await page.get_by_role("link", name="Export these as a file").click()
    await expect(page.get_by_role("definition")).to_have_text("ana")
    await page.get_by_label("JSON Lines").check()
    await page.get_by_role("button", name="Make the file").click()
    await expect(page.get_by_role("progressbar", name="Progress of the export")).to_be_visible()
    await expect(page.get_by_text("0 interactions, 0")).to_be_visible()
    assert await sync_to_async(jobs.work)()
    # The page finds out by itself.
    link = page.get_by_role("link", name="Download", exact=True)
    await expect(link).to_be_visible(timeout=20_000)
    await expect(page.get_by_text("1 interaction, ")).to_be_visible()
    async with page.expect_download() as coming:
        await link.click()
    file = await coming.value
    assert file.suggested_filename.endswith(".jsonl")
    await file.save_as(tmp_path / "rows.jsonl")
    (found,) = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert (found["id"], found["prompt"]) == (str(row.pk), row.prompt)
    visit.is_clean()


async def test_phone_shows_the_pages_without_scrolling_aside(visit: Visit, operator: User, row: Interaction) -> None:
    page = visit.page
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await visit.log_in(operator)
    await visit.open("/admin/chat/export/add/?user=ana&model=gemini-*")
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    await page.get_by_role("button", name="Make the file").click()
    await expect(page.get_by_role("progressbar")).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    visit.is_clean()
