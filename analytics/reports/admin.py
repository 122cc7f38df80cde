"""Scheduled reports in the admin: who gets which report when, a look at what is sent, and what became of it."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import action, display

from accounts.models import User
from accounts.scoping import OrganizationScoped, managed_organizations
from analytics.reports import schedule_form, schedules, sending
from analytics.reports.models import ReportDelivery, ReportSchedule
from analytics.reports.registry import REPORTS
from analytics.reports.schedule_form import ScheduleForm
from analytics.reports.sending import DeliveryError
from audit.history import AuditHistory
from chat.admin.listing import ReadOnly

_COLOURS: Final = {"sent": "success", "failed": "danger", "pending": "warning", "sending": "info"}
_SHOWN: Final = 10


@admin.register(ReportSchedule)
class ReportScheduleAdmin(AuditHistory, OrganizationScoped, ModelAdmin):
    form = ScheduleForm
    list_display = ("name", "report_title", "organization", "frequency", "next_due_at", "last_run_at", "outcome")
    list_select_related = ("organization",)
    search_fields = ("name",)
    list_filter = ("is_active", "frequency")
    readonly_fields = (
        *("told", "report_title", "webhook"),
        *("next_due_at", "last_run_at", "owner", "outcome", "latest"),
    )
    conditional_fields: ClassVar = {
        "weekday": "frequency == 'weekly'",
        "day_of_month": "frequency == 'monthly'",
    }
    actions_detail = ("preview", "send_now")
    fieldsets = (
        (None, {"fields": ("name", "report", "organization", "parameters")}),
        ("When (UTC)", {"fields": ("frequency", "hour", "weekday", "day_of_month", "is_active")}),
        ("Where to", {"fields": ("recipients", "webhook_url", "webhook_secret")}),
        ("What became of it", {"fields": ("owner", "next_due_at", "last_run_at", "outcome", "latest")}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        groups = super().get_fieldsets(request, obj)
        if obj is None:
            # Nothing can have become of what is not there yet.
            return groups[:-1]
        if self.has_change_permission(request, obj):
            return groups
        # Who may only look reads words instead of what is stored, and no secret, as a webhook's address may be one.
        words = {"parameters": "told", "report": "report_title", "webhook_url": "webhook"}
        told = [
            [words.get(str(name), name) for name in options["fields"] if name != "webhook_secret"]
            for _, options in groups
        ]
        return [(title, {**options, "fields": fields}) for (title, options), fields in zip(groups, told, strict=True)]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> Any:
        """Buttons for those alone who may use them."""
        schedule = self.get_object(request, object_id)
        may_use = schedule is not None and self.has_change_permission(request, schedule)
        return super().get_actions_detail(request, object_id) if may_use else []

    @display(description="what it tells")
    def told(self, schedule: ReportSchedule) -> str:
        return schedule_form.in_words(schedule)

    @display(description="webhook")
    def webhook(self, schedule: ReportSchedule) -> str:
        return sending.shown_address(schedule.webhook_url) if schedule.webhook_url else "None"

    @display(description="report")
    def report_title(self, schedule: ReportSchedule) -> str:
        report = REPORTS.get(schedule.report)
        return report.title if report else schedule.report

    @display(description="last outcome")
    def outcome(self, schedule: ReportSchedule) -> str:
        return schedule.last_error or ("In order" if schedule.last_run_at else "Not sent yet")

    @display(description="latest deliveries")
    def latest(self, schedule: ReportSchedule) -> SafeString | str:
        rows = schedule.deliveries.order_by("-id")[:_SHOWN]
        if not rows:
            return "None yet"
        lines = format_html_join(
            "",
            "<li>{} UTC, {} to {}: {}{}</li>",
            (
                (
                    f"{row.due_at:%Y-%m-%d %H:%M}",
                    row.get_channel_display(),
                    row.target,
                    row.get_state_display(),
                    f" ({row.error})" if row.error else "",
                )
                for row in rows
            ),
        )
        return format_html("<ul>{}</ul>", lines)

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, **kwargs)
        form.person = request.user
        return form

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "organization":
            kwargs["queryset"] = managed_organizations(request)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """From "Send on a schedule" of a report's page."""
        said = request.GET.dict()
        report = REPORTS.get(said.get("report", ""))
        if report is None:
            return {}
        known = schedule_form.names_of(report.form_class)
        return {
            "name": report.title,
            "report": report.slug,
            "organization": said.get("organization"),
            "parameters": {name: value for name, value in said.items() if name in known},
        }

    def save_model(self, request: HttpRequest, obj: ReportSchedule, form: Any, change: bool) -> None:
        # Who saves it answers for what it shows and to whom.
        obj.owner = request.user if isinstance(request.user, User) else None
        super().save_model(request, obj, form, change)
        schedules.plan(obj)

    @action(description="Preview", url_path="preview")
    def preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The mail as it would be sent now."""
        schedule = self._managed(request, object_id)
        try:
            letter = schedules.letter_of(schedule, due=timezone.now())
        except DeliveryError as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect(_page_of(schedule))
        return HttpResponse(letter.html)

    @action(description="Send now", url_path="send-now")
    def send_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        schedule = self._managed(request, object_id)
        if request.method != "POST":
            # What does something is never done by following a link, which others can write.
            context = {**self.admin_site.each_context(request), "title": "Send now", "schedule": schedule}
            return TemplateResponse(request, "admin/reports/send_now.html", {**context, "page": _page_of(schedule)})
        for delivery in schedules.send_now(schedule):
            if delivery.state == ReportDelivery.State.SENT:
                self.message_user(request, f"Sent to {delivery.target}.", messages.SUCCESS)
            else:
                self.message_user(request, f"Not sent to {delivery.target}: {delivery.error}", messages.ERROR)
        return redirect(_page_of(schedule))

    def _managed(self, request: HttpRequest, object_id: str) -> ReportSchedule:
        schedule = self.get_object(request, object_id)
        if schedule is None or not self.has_change_permission(request, schedule):
            raise PermissionDenied
        found: ReportSchedule = schedule
        return found


@admin.register(ReportDelivery)
class ReportDeliveryAdmin(ReadOnly, OrganizationScoped, ModelAdmin):
    organization_lookup = "schedule__organization"
    list_display = ("due_at", "schedule", "channel", "target", "status", "tries", "error", "finished_at")
    list_select_related = ("schedule",)
    list_filter = ("state", "channel")

    @display(description="state", label=_COLOURS)
    def status(self, delivery: ReportDelivery) -> tuple[str, str]:
        return delivery.state, delivery.get_state_display()


def _page_of(schedule: ReportSchedule) -> str:
    return reverse("admin:analytics_reportschedule_change", args=[schedule.pk])
