"""Scheduled reports: sent once, by mail and webhook, tried again, refused with reasons, only what the owner sees."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from accounts.models import Membership
from accounts.tests.fixtures import Person
from analytics import rolling, tasks
from analytics.models import ReportDelivery, ReportSchedule
from analytics.reports import schedules
from analytics.tests.receivers import Inbox, Mailbox, mail_server, web_server
from analytics.tests.record import exchange, store
from analytics.tests.reporting import operator
from audit.models import Entry
from chat.tests.test_admin_interactions import browser_of

SECRET = "correct-horse-battery-staple"
NOW = dt.datetime(2026, 5, 20, 7, 0, 30, tzinfo=dt.UTC)  # a Wednesday
MINUTE = dt.timedelta(minutes=1)

ADD = "/admin/analytics/reportschedule/add/"


@pytest.fixture
def mailbox(settings: Any) -> Iterator[Mailbox]:
    with mail_server() as box:
        settings.EMAIL_IS_SET_UP = True
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", box.port
        yield box


@pytest.fixture
def inbox(settings: Any) -> Iterator[Inbox]:
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    with web_server() as box:
        yield box


def schedule_of(person: Person, **fields: Any) -> ReportSchedule:
    values: dict[str, Any] = {
        "name": "Yesterday",
        "report": "usage",
        "parameters": {"range": "yesterday"},
        "organization": person.organization,
        "owner": person.user,
        "frequency": "daily",
        "hour": 7,
        "next_due_at": NOW.replace(second=0),
    }
    return ReportSchedule.objects.create(**{**values, **fields})


@pytest.fixture
def filled(owner: Person, stranger: Person) -> None:
    store([exchange(owner.organization, NOW - dt.timedelta(days=1), model="=2+3") for _ in range(3)])
    store([exchange(stranger.organization, NOW - dt.timedelta(days=1), model="theirs")])
    rolling.roll_up(now=NOW)


def states(schedule: ReportSchedule) -> list[tuple[str, str, int]]:
    return list(schedule.deliveries.order_by("id").values_list("channel", "state", "tries"))


# --- Sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.usefixtures("filled")
def test_mail_has_text_html_and_a_file_of_the_owners_figures(owner: Person, mailbox: Mailbox) -> None:
    schedule = schedule_of(owner, recipients=["ops@example.com", "boss@example.com"])
    assert schedules.run_due(now=NOW) == 1
    (message,) = mailbox.messages
    assert mailbox.recipients == ["ops@example.com", "boss@example.com"]
    assert message["Subject"] == "Usage and cost: Acme, 2026-05-19"
    assert str(schedule.deliveries.get().pk) in message["Message-ID"]
    assert "=2+3 | 3 |" in message.get_body(("plain",)).get_content()
    assert "<td" in message.get_body(("html",)).get_content()
    (file,) = message.iter_attachments()
    assert file.get_filename() == "usage-20260519-20260519.csv"
    assert "'=2+3,3,0,0.0,0.0000615" in file.get_content()
    assert "theirs" not in message.as_string()
    schedule.refresh_from_db()
    assert (schedule.next_due_at, schedule.last_run_at) == (NOW.replace(day=21, second=0), NOW)


@pytest.mark.django_db
@pytest.mark.usefixtures("filled")
def test_webhook_is_signed_and_says_what_it_is_about(owner: Person, inbox: Inbox) -> None:
    schedule = schedule_of(owner, webhook_url=inbox.url, webhook_secret=SECRET)
    assert schedules.run_due(now=NOW) == 1
    (message,) = inbox.messages
    assert message.path == "/hook?team=1"
    signed = message.headers["X-Llmchat-Timestamp"].encode() + b"." + message.body
    expected = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert message.headers["X-Llmchat-Signature"] == f"sha256={expected}"
    said = json.loads(message.body)
    assert said["id"] == message.headers["X-Llmchat-Delivery"] == str(schedule.deliveries.get().pk)
    assert (said["report"], said["organization"]["name"], said["since"]) == (
        "usage",
        "Acme",
        "2026-05-19T00:00:00+00:00",
    )
    (row,) = said["tables"][0]["rows"]
    assert (row["model"], row["requests"], row["cost"]) == ("=2+3", 3, "0.0000615")


@pytest.mark.django_db
def test_what_does_not_arrive_is_tried_again_with_pauses_and_then_given_up(owner: Person, inbox: Inbox) -> None:
    schedule = schedule_of(owner, webhook_url=inbox.url, webhook_secret=SECRET)
    inbox.answers = [500] * 5
    now = NOW
    for tries, pause in enumerate(schedules.PAUSES, start=1):
        schedules.run_due(now=now)
        assert states(schedule) == [("webhook", "pending", tries)]
        schedules.run_due(now=now + pause - MINUTE / 2)
        assert len(inbox.messages) == tries
        now += pause
    schedules.run_due(now=now)
    assert states(schedule) == [("webhook", "failed", 5)]
    schedule.refresh_from_db()
    assert schedule.last_error == "127.0.0.1 answered 500."
    assert len({json.loads(message.body)["id"] for message in inbox.messages}) == 1


@pytest.mark.django_db
def test_what_arrives_at_the_second_try_clears_the_error(owner: Person, inbox: Inbox) -> None:
    schedule = schedule_of(owner, webhook_url=inbox.url, webhook_secret=SECRET)
    inbox.answers = [503]
    schedules.run_due(now=NOW)
    schedules.run_due(now=NOW + MINUTE)
    assert states(schedule) == [("webhook", "sent", 2)]
    schedule.refresh_from_db()
    assert schedule.last_error == ""


@pytest.mark.django_db
@pytest.mark.parametrize("answer", [302, 400, 410])
def test_redirects_and_refusals_are_not_tried_again(owner: Person, inbox: Inbox, answer: int) -> None:
    schedule = schedule_of(owner, webhook_url=inbox.url, webhook_secret=SECRET)
    inbox.answers, inbox.location = [answer], inbox.url
    schedules.run_due(now=NOW)
    assert states(schedule) == [("webhook", "failed", 1)]
    assert len(inbox.messages) == 1


@pytest.mark.django_db
def test_own_network_is_not_called_unless_allowed(owner: Person, inbox: Inbox, settings: Any) -> None:
    settings.WEBHOOK_PRIVATE_ADDRESSES = False
    schedule = schedule_of(owner, webhook_url=inbox.url, webhook_secret=SECRET)
    schedules.run_due(now=NOW)
    assert states(schedule) == [("webhook", "failed", 1)]
    assert "private network" in schedule.deliveries.get().error
    assert not inbox.messages


@pytest.mark.django_db
def test_mail_that_is_not_set_up_says_so(owner: Person, settings: Any) -> None:
    settings.EMAIL_IS_SET_UP = False
    schedule = schedule_of(owner, recipients=["ops@example.com"])
    schedules.run_due(now=NOW)
    assert states(schedule) == [("email", "failed", 1)]
    assert "Set EMAIL_URL" in schedule.deliveries.get().error


@pytest.mark.django_db
def test_refused_recipients_are_told(owner: Person, mailbox: Mailbox) -> None:
    mailbox.refusals = ["550 nobody of this name"]
    schedule = schedule_of(owner, recipients=["nobody@example.com"])
    schedules.run_due(now=NOW)
    assert states(schedule) == [("email", "failed", 1)]
    assert "refused the recipients: nobody@example.com" in schedule.deliveries.get().error


@pytest.mark.django_db
def test_owner_who_may_not_see_it_any_more_sends_nothing(owner: Person, mailbox: Mailbox) -> None:
    of_all = schedule_of(owner, organization=None, recipients=["a@example.com"])
    left = schedule_of(owner, recipients=["b@example.com"])
    gone = schedule_of(owner, owner=None, recipients=["c@example.com"])
    Membership.objects.filter(user=owner.user).delete()
    schedules.run_due(now=NOW)
    assert not mailbox.messages
    for schedule in (of_all, left, gone):
        assert "may not see these figures any more" in schedule.deliveries.get().error


@pytest.mark.django_db
def test_missed_runs_are_not_made_up_for(owner: Person, mailbox: Mailbox) -> None:
    schedule = schedule_of(owner, recipients=["ops@example.com"])
    later = NOW + dt.timedelta(days=4)
    assert schedules.run_due(now=later) == 1
    schedule.refresh_from_db()
    assert schedule.next_due_at == later.replace(second=0) + dt.timedelta(days=1)
    assert schedules.run_due(now=later) == 0


@pytest.mark.django_db
def test_delivery_whose_worker_died_is_sent_again_later(owner: Person, mailbox: Mailbox) -> None:
    schedule = schedule_of(owner, recipients=["ops@example.com"])
    schedules.claim(schedule, now=NOW)
    assert schedules._take(NOW) is not None
    assert schedules.run_due(now=NOW + MINUTE) == 0
    assert schedules.run_due(now=NOW + schedules.STALE + MINUTE) == 1
    assert states(schedule) == [("email", "sent", 2)]


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_send_once(owner: Person, mailbox: Mailbox) -> None:
    for number in range(4):
        schedule_of(owner, name=f"{number}", recipients=["ops@example.com"])
    begin = threading.Barrier(2)
    sent: list[int] = []

    def work() -> None:
        begin.wait()
        try:
            sent.append(schedules.run_due(now=NOW))
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(sent) == len(mailbox.messages) == 4
    assert ReportDelivery.objects.filter(state="sent", tries=1).count() == 4


@pytest.mark.django_db
def test_task_sends_what_is_due(owner: Person, mailbox: Mailbox) -> None:
    schedule_of(owner, recipients=["ops@example.com"], next_due_at=timezone.now())
    tasks.send_reports()
    assert len(mailbox.messages) == 1


@pytest.mark.parametrize(
    ("clock", "after", "due"),
    [
        ({"frequency": "daily", "hour": 7}, "2026-05-20T06:59", "2026-05-20T07:00"),
        ({"frequency": "daily", "hour": 7}, "2026-05-20T07:00", "2026-05-21T07:00"),
        ({"frequency": "weekly", "hour": 0, "weekday": 0}, "2026-05-20T00:00", "2026-05-25T00:00"),
        ({"frequency": "weekly", "hour": 9, "weekday": 2}, "2026-05-20T08:00", "2026-05-20T09:00"),
        ({"frequency": "monthly", "hour": 1, "day_of_month": 31}, "2026-01-31T02:00", "2026-02-28T01:00"),
        ({"frequency": "monthly", "hour": 1, "day_of_month": 1}, "2026-12-01T01:00", "2027-01-01T01:00"),
    ],
)
def test_next_run_is_by_the_clock(clock: dict[str, Any], after: str, due: str) -> None:
    moments = [dt.datetime.fromisoformat(f"{text}+00:00") for text in (after, due)]
    assert ReportSchedule(**clock).due_after(moments[0]) == moments[1]


# --- The admin -------------------------------------------------------------------------------------------------------


def said_of(person: Person, **said: Any) -> dict[str, Any]:
    return {
        "name": "Weekly",
        "report": "usage",
        "parameters-usage-range": "last-week",
        "organization": str(person.organization.pk),
        "frequency": "weekly",
        "hour": "7",
        "weekday": "0",
        "day_of_month": "1",
        "recipients": "ops@example.com",
        "webhook_url": "",
        "webhook_secret": "",
        "is_active": "on",
        **said,
    }


@pytest.mark.django_db
def test_owner_makes_a_schedule_and_the_secret_is_shown_nowhere(owner: Person) -> None:
    browser = browser_of(owner.user)
    said = said_of(owner, webhook_url="https://hooks.example.com/token-of-ours", webhook_secret=SECRET)
    response = browser.post(ADD, said)
    assert response.status_code == 302, response.context["adminform"].form.errors
    schedule = ReportSchedule.objects.get()
    assert (schedule.owner, schedule.webhook_secret) == (owner.user, SECRET)
    assert schedule.next_due_at > timezone.now()
    page = f"/admin/analytics/reportschedule/{schedule.pk}/change/"
    assert SECRET not in browser.get(page).content.decode()
    # Saved again without one, it stays.
    assert browser.post(page, {**said, "webhook_secret": "", "name": "Other"}).status_code == 302
    schedule.refresh_from_db()
    assert (schedule.name, schedule.webhook_secret) == ("Other", SECRET)
    entries = json.dumps(list(Entry.objects.values_list("changes", flat=True)))
    assert SECRET not in entries
    assert "token-of-ours" not in entries


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("said", "field", "words"),
    [
        ({"recipients": ""}, "recipients", "Say where to send it"),
        ({"recipients": "nobody"}, "recipients", "nobody is not an e-mail address"),
        ({"recipients": "a@example.com\r\nBcc: b@example.com"}, "recipients", "is not an e-mail address"),
        ({"webhook_url": "ftp://example.com"}, "webhook_url", "Begin it with https://"),
        ({"webhook_url": "https://user:word@example.com/"}, "webhook_url", "Take it out"),
        ({"webhook_url": "https://example.com/"}, "webhook_secret", "needs a secret"),
        ({"webhook_url": "https://example.com/", "webhook_secret": "short"}, "webhook_secret", "At least 16"),
        ({"parameters-usage-range": "custom"}, "parameters", "by its name"),
        ({"parameters-usage-group_by": "x"}, "parameters", "see what is said at the fields"),
        ({"parameters-usage-user": "ana"}, "parameters", "see what is said at the fields"),
        ({"organization": ""}, "organization", "only the operator"),
        ({"hour": "24"}, "hour", "less than or equal to 23"),
    ],
)
def test_what_cannot_be_sent_is_explained(owner: Person, said: dict[str, str], field: str, words: str) -> None:
    response = browser_of(owner.user).post(ADD, said_of(owner, **said))
    assert response.status_code == 200
    assert words in " ".join(response.context["adminform"].form.errors[field])
    assert not ReportSchedule.objects.exists()


@pytest.mark.django_db
def test_what_is_wrong_with_a_reports_field_is_said_at_the_field(owner: Person) -> None:
    said = said_of(owner, **{"parameters-usage-range": "last-month", "parameters-usage-user": "ana"})
    page = browser_of(owner.user).post(ADD, said).content.decode()
    assert "Users are counted by themselves" in page
    assert re.search(r'<input[^>]* name="parameters-usage-user"[^>]* value="ana"', page)
    assert '<option value="last-month" selected>' in page


@pytest.mark.django_db
def test_schedule_says_what_its_report_is_asked_by_the_reports_own_fields(owner: Person) -> None:
    browser = browser_of(owner.user)
    said = {"report": "errors", "parameters-errors-range": "last-month", "parameters-errors-provider": "gemini"}
    # What other reports' fields say is nothing to this one.
    assert browser.post(ADD, said_of(owner, **said)).status_code == 302
    schedule = ReportSchedule.objects.get()
    assert schedule.parameters == {"range": "last-month", "provider": "gemini"}
    page = f"/admin/analytics/reportschedule/{schedule.pk}/change/"
    assert '<option value="gemini" selected>' in browser.get(page).content.decode()
    assert browser.post(page, said_of(owner, **{**said, "report": "forecast"})).status_code == 302
    schedule.refresh_from_db()
    assert schedule.parameters == {}


@pytest.mark.django_db
def test_who_may_only_look_reads_words_and_gets_no_buttons(owner: Person, member: Person) -> None:
    schedule = schedule_of(
        owner,
        parameters={"range": "last-week", "group_by": "provider"},
        webhook_url="https://hooks.example.com/token-of-ours",
        webhook_secret=SECRET,
    )
    address = f"/admin/analytics/reportschedule/{schedule.pk}/change/"
    mine, theirs = (browser_of(person.user).get(address).content.decode() for person in (owner, member))
    for button in ("preview", "send-now"):
        assert (_action(button, schedule) in mine, _action(button, schedule) in theirs) == (True, False)
    assert "Range (UTC): Last week, Monday to Sunday; Group by: Provider" in theirs
    assert "https://hooks.example.com/…" in theirs
    assert SECRET not in theirs
    assert "token-of-ours" not in theirs


@pytest.mark.django_db
def test_schedules_belong_to_their_organization(owner: Person, member: Person, stranger: Person) -> None:
    schedule = schedule_of(owner, recipients=["ops@example.com"])
    page = f"/admin/analytics/reportschedule/{schedule.pk}"
    assert browser_of(member.user).get(f"{page}/change/").status_code == 200
    assert browser_of(member.user).get(ADD).status_code == 403
    for person in (member, stranger):
        for path in ("preview", "send-now"):
            assert browser_of(person.user).get(f"{_action(path, schedule)}").status_code in {302, 403}
            assert browser_of(person.user).post(f"{_action(path, schedule)}").status_code in {302, 403}
    assert browser_of(stranger.user).get(f"{page}/change/").status_code == 302
    refused = browser_of(stranger.user).post(ADD, said_of(owner))
    assert refused.status_code == 200
    assert "organization" in refused.context["adminform"].form.errors
    assert not ReportDelivery.objects.exists()
    deliveries = "/admin/analytics/reportdelivery/"
    schedules.claim(schedule, now=NOW)
    assert "ops@example.com" in browser_of(member.user).get(deliveries).content.decode()
    assert "ops@example.com" not in browser_of(stranger.user).get(deliveries).content.decode()


def _action(path: str, schedule: ReportSchedule) -> str:
    return reverse(f"admin:analytics_reportschedule_{path.replace('-', '_')}", args=[schedule.pk])


@pytest.mark.django_db
@pytest.mark.usefixtures("filled")
def test_manager_looks_at_it_and_sends_it_now(owner: Person, mailbox: Mailbox) -> None:
    schedule = schedule_of(owner, recipients=["ops@example.com"])
    browser = browser_of(owner.user)
    assert "Usage and cost" in browser.get(_action("preview", schedule)).content.decode()
    # A link alone sends nothing.
    assert "Send “Yesterday” now?" in browser.get(_action("send-now", schedule)).content.decode()
    assert not mailbox.messages
    assert browser.post(_action("send-now", schedule)).status_code == 302
    assert len(mailbox.messages) == 1
    schedule.refresh_from_db()
    assert schedule.next_due_at == NOW.replace(second=0)


@pytest.mark.django_db
def test_report_page_leads_to_a_filled_form(owner: Person) -> None:
    browser = browser_of(owner.user)
    page = browser.get("/admin/reports/errors/", {"range": "last-week", "provider": "openai"})
    form = browser.get(page.context["schedule_url"]).context["adminform"].form
    assert form.initial["report"] == "errors"
    assert form.initial["parameters"] == {"range": "last-week", "provider": "openai"}
    assert str(form.initial["organization"]) == str(owner.organization.pk)


@pytest.mark.django_db
def test_operator_schedules_all_organizations(filled: None, mailbox: Mailbox) -> None:
    person = operator()
    schedule = ReportSchedule.objects.create(
        name="All",
        report="usage",
        parameters={"range": "yesterday", "group_by": "organization"},
        owner=person,
        recipients=["ops@example.com"],
        next_due_at=NOW,
    )
    assert schedules.run_due(now=NOW) == 1
    text = mailbox.messages[0].get_body(("plain",)).get_content()
    assert "Acme | 3" in text
    assert schedule.deliveries.get().state == "sent"
