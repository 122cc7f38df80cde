"""A report as a letter: made once as text, HTML, CSV and JSON, and brought on its way by mail or webhook."""

from __future__ import annotations

import smtplib
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.template.loader import render_to_string
from django.urls import reverse

from analytics.reports import files, showing
from analytics.reports.asking import Asked, ReportForm
from analytics.reports.models import ReportDelivery, ReportSchedule
from analytics.reports.registry import Report
from analytics.reports.tables import Outcome, Table, without_private
from chat.fields import is_readable
from llmchat.lib import webhooks

#: Lines of a table in a mail and in a webhook's message; the attached file has all.
_LINES_IN_MAIL, _LINES_IN_JSON = 50, 1_000
#: Seconds for one webhook.
_SECONDS: Final = 10.0


class DeliveryError(Exception):
    """It was not sent. `is_permanent`: trying again would not help."""

    def __init__(self, message: str, *, is_permanent: bool) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    subject: str
    text: str
    html: str
    file_name: str
    file: bytes
    json: dict[str, Any]


def letter(schedule: ReportSchedule, *, report: Report, asked: Asked, outcome: Outcome, form: ReportForm) -> Letter:
    """Without texts of the record, which never leave the admin."""
    told = without_private(outcome)
    page = f"{reverse('reports:report', args=[report.slug])}?{urlencode(form.parameters())}"
    url = f"{settings.SITE_URL.rstrip('/')}{page}"
    context = {
        "schedule": schedule,
        "report": report,
        "asked": asked,
        "outcome": told,
        "url": url,
        "tables": [(table, showing.table(_cut(table, _LINES_IN_MAIL))) for table in told.tables],
        "lines": _LINES_IN_MAIL,
    }
    return Letter(
        # A line break in a name would begin another header.
        subject=" ".join(f"{report.title}: {asked.subject}, {asked.span}".split()),
        text=render_to_string("reports/mail.txt", context),
        html=render_to_string("reports/mail.html", context),
        file_name=f"{report.slug}-{asked.span.first_day:%Y%m%d}-{asked.span.last_day:%Y%m%d}.csv",
        file=files.csv_of(told.tables[0]),
        json={
            "schedule": {"id": str(schedule.pk), "name": schedule.name},
            "report": report.slug,
            "title": report.title,
            "organization": {"id": str(asked.organization.pk), "name": asked.organization.name}
            if asked.organization
            else None,
            "since": asked.span.since.isoformat(),
            "until": asked.span.until.isoformat(),
            "is_complete": told.pending_since is None,
            "remarks": [remark.text for remark in told.remarks],
            "tables": [_json(table) for table in told.tables],
            "url": url,
        },
    )


def by_mail(delivery: ReportDelivery, sent: Letter) -> None:
    """Raises DeliveryError."""
    if not settings.EMAIL_IS_SET_UP:
        raise DeliveryError(
            "Mail is not set up. Set EMAIL_URL, such as smtp+tls://user:password@smtp.example.com:587, and restart.",
            is_permanent=True,
        )
    host = settings.DEFAULT_FROM_EMAIL.rpartition("@")[2].rstrip(">") or "llmchat"
    message = EmailMultiAlternatives(
        subject=sent.subject,
        body=sent.text,
        to=list(delivery.schedule.recipients),
        # The same for each try: whoever gets it twice can tell.
        headers={"Message-ID": f"<{delivery.pk}@{host}>", "Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(sent.html, "text/html")
    message.attach(sent.file_name, sent.file, "text/csv")
    try:
        message.send()
    except smtplib.SMTPAuthenticationError as error:
        raise DeliveryError("The mail server refused user and password of EMAIL_URL.", is_permanent=False) from error
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise DeliveryError(
            f"The mail server refused the recipients: {', '.join(error.recipients)}.",
            is_permanent=all(code >= 500 for code in codes),
        ) from error
    except (OSError, smtplib.SMTPException) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DeliveryError(f"The mail server could not be used: {reason}.", is_permanent=False) from error


def by_webhook(delivery: ReportDelivery, sent: Letter) -> None:
    """Raises DeliveryError."""
    schedule = delivery.schedule
    if not is_readable(schedule.webhook_secret):
        raise DeliveryError(
            "The webhook's secret is encrypted with a key that is not in TEXT_ENCRYPTION_KEYS. Give it again.",
            is_permanent=True,
        )
    body = orjson.dumps({"id": str(delivery.pk), "due_at": delivery.due_at.isoformat(), **sent.json})
    try:
        webhooks.post(
            schedule.webhook_url,
            body,
            secret=schedule.webhook_secret,
            headers={"X-Llmchat-Delivery": str(delivery.pk), "X-Llmchat-Event": "report"},
            seconds=_SECONDS,
            allow_private=settings.WEBHOOK_PRIVATE_ADDRESSES,
        )
    except webhooks.WebhookError as error:
        raise DeliveryError(str(error), is_permanent=error.is_permanent) from error


def shown_address(url: str) -> str:
    """A webhook's address as anybody may see it: the rest of it may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}/…"


def _cut(table: Table, lines: int) -> Table:
    return Table(
        name=table.name,
        title=table.title,
        columns=table.columns,
        lines=table.lines[:lines],
        total=table.total,
        note=table.note,
        empty=table.empty,
        is_sortable=False,
    )


def _json(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    return {
        "name": table.name,
        "title": table.title,
        "columns": [{"name": column.name, "label": column.label, "kind": column.kind} for column in table.columns],
        "rows": [{name: _plain(line.values.get(name)) for name in names} for line in table.lines[:_LINES_IN_JSON]],
        "total": None if table.total is None else {name: _plain(value) for name, value in table.total.items()},
        "is_cut": len(table.lines) > _LINES_IN_JSON,
    }


def _plain(value: Any) -> Any:
    """Money as text, lest a reader makes floats of it."""
    told = files.raw(value)
    return (
        told
        if isinstance(told, str | int | float | None)
        else told.isoformat()
        if hasattr(told, "isoformat")
        else f"{told:f}"
    )
