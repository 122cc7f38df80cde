"""Rows of scheduled reports: what is sent to whom and when, and what became of each delivery.

`analytics.reports.schedules` alone moves them on.
"""

from __future__ import annotations

import calendar
import datetime as dt
from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from audit.tracking import Audited
from chat.fields import EncryptedTextField
from llmchat.lib.uuid7 import uuid7


class ReportSchedule(Audited):
    """A report that is sent by the clock (UTC), on behalf of its owner: it tells what the owner may see, no more."""

    class Frequency(models.TextChoices):
        DAILY = "daily", "Every day"
        WEEKLY = "weekly", "Every week"
        MONTHLY = "monthly", "Every month"

    class Weekday(models.IntegerChoices):
        MONDAY = 0, "Monday"
        TUESDAY = 1, "Tuesday"
        WEDNESDAY = 2, "Wednesday"
        THURSDAY = 3, "Thursday"
        FRIDAY = 4, "Friday"
        SATURDAY = 5, "Saturday"
        SUNDAY = 6, "Sunday"

    audit_ignored = ("next_due_at", "last_run_at", "last_error")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=128)
    report = models.CharField(max_length=32)
    parameters = models.JSONField(default=dict, blank=True)
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text="Empty: all organizations together, which only the operator may ask for.",
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, editable=False, related_name="+"
    )
    frequency = models.CharField(max_length=16, choices=Frequency, default=Frequency.WEEKLY)
    hour = models.PositiveSmallIntegerField(
        "hour (UTC)", default=7, validators=[MaxValueValidator(23)], help_text="From 0 to 23."
    )
    weekday = models.PositiveSmallIntegerField(
        choices=Weekday, default=Weekday.MONDAY, help_text="For what is sent every week."
    )
    day_of_month = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(31)],
        help_text="For what is sent every month; in a shorter month, its last day.",
    )
    recipients = models.JSONField("e-mail addresses", default=list, blank=True)
    webhook_url = models.CharField("webhook", max_length=2000, blank=True)
    webhook_secret = EncryptedTextField(blank=True)
    is_active = models.BooleanField("active", default=True)
    next_due_at = models.DateTimeField("next run", null=True, editable=False, db_index=True)
    last_run_at = models.DateTimeField("last run", null=True, editable=False)
    last_error = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def due_after(self, moment: dt.datetime) -> dt.datetime:
        """The first time after `moment` that the clock says so."""
        day = moment.astimezone(dt.UTC).date()
        # Two months hold each of them at least once.
        for number in range(63):
            candidate = day + dt.timedelta(days=number)
            due = dt.datetime.combine(candidate, dt.time(self.hour), tzinfo=dt.UTC)
            if due > moment and self._is_on(candidate):
                return due
        raise AssertionError("No day in two months.")

    def _is_on(self, day: dt.date) -> bool:
        match self.frequency:
            case self.Frequency.WEEKLY:
                return day.weekday() == self.weekday
            case self.Frequency.MONTHLY:
                return day.day == min(self.day_of_month, calendar.monthrange(day.year, day.month)[1])
        return True


class ReportDelivery(models.Model):
    """One report on its way by one channel. The id is the message's, by which a receiver knows one that came twice."""

    class Channel(models.TextChoices):
        EMAIL = "email", "E-mail"
        WEBHOOK = "webhook", "Webhook"

    class State(models.TextChoices):
        PENDING = "pending", "Waiting"
        SENDING = "sending", "On its way"
        SENT = "sent", "Sent"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    schedule = models.ForeignKey(ReportSchedule, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    due_at = models.DateTimeField("due", help_text="The moment that the report is about.")
    channel = models.CharField(max_length=16, choices=Channel)
    target = models.CharField("to", max_length=500)
    state = models.CharField(max_length=16, choices=State, default=State.PENDING)
    tries = models.PositiveSmallIntegerField(default=0)
    not_before = models.DateTimeField("next try", default=timezone.now)
    claimed_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField("finished", null=True)
    error = models.TextField(blank=True)

    class Meta:
        verbose_name = "delivery"
        verbose_name_plural = "deliveries"
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["schedule", "due_at", "channel"], name="report_delivery_once")
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["not_before"],
                name="report_delivery_open",
                condition=models.Q(state__in=["pending", "sending"]),
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_channel_display()}, {self.due_at:%Y-%m-%d %H:%M}"
