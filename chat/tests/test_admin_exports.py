"""Exports in the admin: asked for with the list's filters, and for no eyes but their owner's and the operator's."""

from __future__ import annotations

import datetime as dt
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.template.defaultfilters import filesizeformat
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Membership
from accounts.tests.factories import UserFactory
from audit import entries
from audit.models import Entry
from chat import tasks
from chat.exports import jobs
from chat.models import Export
from chat.selection import Selection
from chat.tests.factories import InteractionFactory
from llmchat.lib.tables import Format

pytestmark = pytest.mark.django_db

ADD, LIST = reverse("admin:chat_export_add"), reverse("admin:chat_export_changelist")


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> None:
    settings.EXPORTS_DIR = tmp_path / "exports"


@pytest.fixture(autouse=True)
def begun(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    found: list[None] = []
    monkeypatch.setattr(tasks.work_on_exports, "delay", lambda: found.append(None))
    return found


@pytest.fixture
def operator():
    return UserFactory.create(is_superuser=True, username="olga")


def as_(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def made_by(user: Any, *, organizations: Any = None, form: Format = Format.JSONL) -> Export:
    export = jobs.ask_for(user, Selection(), form, redact=False, organizations=organizations)
    assert jobs.work()
    export.refresh_from_db()
    return export


def page(export: Export, name: str = "change") -> str:
    return reverse(f"admin:chat_export_{name}", args=[export.pk])


def downloaded(client: Client, export: Export) -> bytes:
    answer: Any = client.get(page(export, "download"))
    assert answer.status_code == 200
    data = b"".join(answer.streaming_content)
    return data or b"-"


def test_the_list_of_interactions_offers_an_export_of_what_it_shows(member):
    InteractionFactory.create(organization=member.organization, user_id="ana")
    shown = as_(member.user).get(reverse("admin:chat_interaction_changelist"), {"user": "ana"}).content.decode()
    assert f'href="{ADD}?user=ana"' in shown


def test_a_member_asks_with_the_lists_filters_and_gets_what_they_may_see(
    member, stranger, begun, django_capture_on_commit_callbacks
):
    row = InteractionFactory.create(organization=member.organization, user_id="ana")
    InteractionFactory.create(organization=member.organization, user_id="bo")
    InteractionFactory.create(organization=stranger.organization, user_id="ana")
    client = as_(member.user)
    form = client.get(ADD, {"user": "ana", "status": "succeeded"}).content.decode()
    assert '<input type="hidden" name="user" value="ana">' in form
    assert "<dd>succeeded</dd>" in form
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(ADD, {"user": "ana", "status": "succeeded", "format": "jsonl"})
    export = Export.objects.get()
    assert answer.headers["Location"] == page(export)
    assert len(begun) == 1
    assert export.what["organizations"] == [str(member.organization.pk)]
    waiting = client.get(page(export)).content.decode()
    assert page(export, "progress") in waiting
    assert client.get(page(export, "progress")).json()["over"] is False
    jobs.work()
    assert client.get(page(export, "progress")).json() == {
        "state": "done",
        "percent": 100,
        "words": f"1 interaction, {filesizeformat(jobs.path_of(export).stat().st_size)}",
        "over": True,
    }
    assert page(export, "download") in client.get(page(export)).content.decode()
    file: Any = client.get(page(export, "download"))
    data = b"".join(file.streaming_content)
    assert str(row.pk).encode() in data
    assert data.count(b"\n") == 1
    assert file.headers["Content-Type"] == "application/x-ndjson"
    assert file.headers["Content-Disposition"].startswith('attachment; filename="interactions-')
    assert file.headers["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in file.headers["Cache-Control"]


def test_nobody_else_sees_it_but_the_operator(owner, member, stranger, operator):
    export = made_by(member.user, organizations=[member.organization.pk])
    for other in (owner, stranger):
        client = as_(other.user)
        assert str(export.pk) not in client.get(LIST).content.decode()
        for name in ("change", "progress", "download"):
            assert client.get(page(export, name)).status_code == 404
        assert client.post(page(export, "end")).status_code == 404
    assert Export.objects.filter(pk=export.pk).exists()
    client = as_(operator)
    assert str(export.pk) in client.get(LIST).content.decode()
    assert downloaded(client, export)


def test_who_left_the_organization_downloads_no_more(member):
    export = made_by(member.user, organizations=[member.organization.pk])
    Membership.objects.filter(user=member.user).delete()
    assert as_(member.user).get(page(export, "download")).status_code == 404


def test_who_left_one_of_its_organizations_downloads_no_more(member, stranger):
    Membership.objects.create(user=member.user, organization=stranger.organization, role=Membership.Role.MEMBER)
    export = made_by(member.user, organizations=[member.organization.pk, stranger.organization.pk])
    client = as_(member.user)
    assert downloaded(client, export)
    Membership.objects.filter(user=member.user, organization=stranger.organization).delete()
    assert client.get(page(export, "download")).status_code == 403


def test_an_operator_who_is_none_any_more_downloads_no_more(operator, owner):
    Membership.objects.create(user=operator, organization=owner.organization, role=Membership.Role.OWNER)
    export = made_by(operator)
    operator.is_superuser = False
    operator.save()
    assert as_(operator).get(page(export, "download")).status_code == 403


def test_another_organization_can_neither_be_asked_for_nor_be_found_by_asking(member, stranger):
    client = as_(member.user)
    said = client.get(ADD, {"organization": str(stranger.organization.pk)})
    assert said.status_code == 400
    said = client.get(ADD, {"organization": stranger.organization.name})
    assert said.status_code == 400
    assert str(stranger.organization.pk) not in said.content.decode()
    assert client.post(ADD, {"organization": str(stranger.organization.pk), "format": "csv"}).status_code == 400
    assert not Export.objects.exists()


def test_what_makes_no_sense_is_refused_in_words(member, settings):
    client = as_(member.user)
    assert "is no moment" in client.get(ADD, {"since": "soon"}).content.decode()
    refused = client.post(ADD, {"format": "xlsx"})
    assert (refused.status_code, "Choose a format" in refused.content.decode()) == (400, True)
    settings.EXPORTS_PER_PERSON = 1
    assert client.post(ADD, {"format": "csv"}).status_code == 302
    refused = client.post(ADD, {"format": "csv"})
    assert "You have 1 export already" in refused.content.decode()


def test_it_is_cancelled_while_it_waits_and_removed_when_it_is_made(member):
    client = as_(member.user)
    client.post(ADD, {"format": "parquet", "redact": "1"})
    export = Export.objects.get()
    assert export.what["redact"] is True
    assert client.get(page(export, "end")).status_code == 405
    assert client.post(page(export, "end")).headers["Location"] == page(export)
    export.refresh_from_db()
    assert export.state == Export.State.CANCELLED
    assert "It was cancelled before it was whole." in client.get(page(export)).content.decode()
    made = made_by(member.user, organizations=[member.organization.pk])
    assert client.post(page(made, "end")).headers["Location"] == LIST
    assert not Export.objects.filter(pk=made.pk).exists()
    assert not jobs.path_of(made).exists()
    assert client.get(page(made)).status_code == 404


def made_again(client: Client, export: Export) -> Any:
    """What the button of its page does."""
    fields = re.findall(
        r'<input type="hidden" name="(\w+)" value="([^"]*)">', client.get(page(export)).content.decode()
    )
    given: dict[str, list[str]] = {}
    for name, value in fields:
        given.setdefault(name, []).append(value)
    given.pop("csrfmiddlewaretoken", None)
    return client.post(ADD, given)


def test_what_failed_says_why_and_is_asked_for_again(member, stranger, operator):
    InteractionFactory.create(organization=member.organization, user_id="ana")
    InteractionFactory.create(organization=member.organization, user_id="ana", failed=True)
    client = as_(member.user)
    client.post(ADD, {"user": "ana", "status": ["failed", "cancelled"], "format": "csv", "redact": "1"})
    failed = Export.objects.get()
    jobs.path_of(failed).mkdir()
    assert jobs.work()
    shown = client.get(page(failed)).content.decode()
    assert "The server cannot write the file; its log says why. Tell your operator, then ask again." in shown
    assert "The server cannot write the file" in client.get(LIST).content.decode()
    (query,) = re.findall(rf'{reverse("admin:chat_interaction_changelist")}\?([^"]+)', shown)
    filters = parse_qs(unescape(query))
    assert (filters["user"], filters["status"], "until" in filters) == (["ana"], ["failed", "cancelled"], True)
    again = made_again(client, failed)
    export = Export.objects.exclude(pk=failed.pk).get()
    assert (again.headers["Location"], export.owner) == (page(export), member.user)
    assert export.what == failed.what
    # The operator sees more than its owner does: theirs would be another file.
    shown = as_(operator).get(page(failed)).content.decode()
    assert f"{member.user} can make it again." in shown
    assert "Make it again</button>" not in shown


def test_what_has_expired_says_so_even_before_its_file_is_cleared_away(member):
    export = made_by(member.user, organizations=[member.organization.pk])
    moment = timezone.now() - dt.timedelta(minutes=1)
    Export.objects.update(expires_at=moment)
    client = as_(member.user)
    for expired in (0, 1):
        shown = client.get(page(export)).content.decode()
        assert f"its file went at {moment:%Y-%m-%d %H:%M} UTC" in shown
        assert "Download</a>" not in shown
        assert ">Expired</span>" in client.get(LIST).content.decode()
        assert client.get(page(export, "download")).headers["Location"] == page(export)
        assert jobs.expire() == 1 - expired
    assert made_again(client, export).status_code == 302
    assert Export.objects.filter(state=Export.State.QUEUED).count() == 1


def test_a_file_that_is_missing_is_told_instead_of_offered(member):
    export = made_by(member.user, organizations=[member.organization.pk])
    client = as_(member.user)
    assert "Make it again" not in client.get(page(export)).content.decode()
    jobs.path_of(export).unlink()
    assert client.get(page(export, "download")).headers["Location"] == page(export)
    shown = client.get(page(export)).content.decode()
    assert "is not on this server any more. Make it again" in shown
    assert "Download</a>" not in shown


def test_filters_are_shown_as_text(operator):
    hostile = '"><script>alert(1)</script>'
    client = as_(operator)
    assert "<script>alert(1)" not in client.get(ADD, {"user": hostile}).content.decode()
    client.post(ADD, {"user": hostile, "format": "csv"})
    for address in (LIST, page(Export.objects.get())):
        assert "<script>alert(1)" not in client.get(address).content.decode()


def test_whoever_is_not_of_the_staff_is_sent_to_log_in(member):
    export = made_by(member.user, organizations=[member.organization.pk])
    for address in (LIST, ADD, page(export), page(export, "download")):
        assert Client().get(address).status_code == 302
    assert as_(UserFactory.create(is_staff=False)).get(page(export, "download")).status_code == 302


def test_one_job_after_the_other_costs_the_list_no_more_queries(operator, django_assert_max_num_queries):
    for _ in range(3):
        made_by(operator)
    client = as_(operator)
    client.get(LIST)
    with django_assert_max_num_queries(8):
        client.get(LIST)


def test_the_trail_says_who_asked_downloaded_cancelled_and_removed(member, operator):
    InteractionFactory.create(organization=member.organization)
    client = as_(member.user)
    export = made_by(member.user, organizations=[member.organization.pk])
    downloaded(client, export)
    downloaded(as_(operator), export)
    client.post(page(export, "end"))
    assert client.get(page(export, "download")).status_code == 404
    waiting = jobs.ask_for(member.user, Selection(), Format.CSV, redact=True, organizations=[member.organization.pk])
    client.post(page(waiting, "end"))
    found = Entry.objects.filter(object_type="chat.export").order_by("id")
    name = member.user.get_username()
    assert [(entry.object_id, entry.action, entry.actor) for entry in found if entry.action != "exported"] == [
        (str(export.pk), "downloaded", name),
        (str(export.pk), "downloaded", "olga"),
        (str(export.pk), "deleted", name),
        (str(waiting.pk), "cancelled", name),
    ]
    assert found.filter(action="exported").count() == 2
    assert found.get(action="downloaded", actor="olga").details == {"rows": 1}


def test_what_cannot_be_entered_is_not_downloaded(member, monkeypatch):
    export = made_by(member.user, organizations=[member.organization.pk])

    def refuse(found: Any) -> None:
        raise OSError("the trail is full")

    monkeypatch.setattr(entries, "store", refuse)
    client = as_(member.user)
    client.raise_request_exception = False
    assert client.get(page(export, "download")).status_code == 500
    client.post(page(export, "end"))
    assert Export.objects.get().state == Export.State.DONE
    assert jobs.path_of(export).exists()
