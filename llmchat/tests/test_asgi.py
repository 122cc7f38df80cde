"""What a web process does behind its first requests, so that they need not wait for it."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from llmchat import asgi
from providers import catalogue, registry


@pytest.mark.django_db(transaction=True)
async def test_first_request_finds_the_catalogue_read(monkeypatch: pytest.MonkeyPatch) -> None:
    await asgi._warm_up()

    def fail() -> catalogue.Snapshot:
        raise AssertionError("It is read again.")

    monkeypatch.setattr(catalogue, "_read", fail)
    await catalogue.snapshot()
    await registry.aclose_all()


async def test_process_starts_without_a_word_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> catalogue.Snapshot:
        raise OperationalError("gone")

    catalogue.forget()
    monkeypatch.setattr(catalogue._held, "snapshot", None)
    monkeypatch.setattr(catalogue, "_read", fail)
    await asgi._warm_up()
    assert caplog.records == []
    await registry.aclose_all()
