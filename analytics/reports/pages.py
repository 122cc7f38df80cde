"""The pages of reports in the admin: a form, an answer, a file. Who may see what is said by `Scope`."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from accounts.scoping import MANAGERS, roles_of
from analytics.reports import files, showing
from analytics.reports.asking import Asked, ReportForm, Scope
from analytics.reports.registry import REPORTS, Report
from analytics.reports.tables import Outcome, ordered

#: Parameters of the page that are not the form's.
_SORT, _FORMAT = "sort", "format"
_FILE: Final = "csv"


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The group of the side bar, for who belongs to an organization."""
    if not _has_organizations(request):
        return []
    items = [{"title": report.title, "icon": report.icon, "link": _page_of(report)} for report in REPORTS.values()]
    schedules, deliveries = (
        reverse(f"admin:analytics_{name}_changelist") for name in ("reportschedule", "reportdelivery")
    )
    items.append({"title": "Schedules", "icon": "schedule_send", "link": schedules})
    items.append({"title": "Deliveries", "icon": "outgoing_mail", "link": deliveries})
    return [{"title": "Reports", "separator": True, "collapsible": True, "items": items}]


def index(request: HttpRequest) -> HttpResponse:
    """All reports, with what each is for."""
    context = {
        **admin.site.each_context(request),
        "title": "Reports",
        "reports": [{"report": report, "url": _page_of(report)} for report in REPORTS.values()],
        "has_organizations": _has_organizations(request),
    }
    return TemplateResponse(request, "admin/reports/index.html", context)


def report(request: HttpRequest, slug: str) -> HttpResponse:
    """One report: its form, and what it answers."""
    if (wanted := REPORTS.get(slug)) is None:
        raise Http404
    form = wanted.form_class(request.GET.dict(), scope=Scope.of(request.user), now=timezone.now())
    context: dict[str, Any] = {
        **admin.site.each_context(request),
        "title": wanted.title,
        "report": wanted,
        "form": form,
        "has_organizations": _has_organizations(request),
    }
    if form.is_valid():
        asked = form.asked()
        outcome = wanted.make(asked)
        if request.GET.get(_FORMAT) == _FILE:
            return _file(wanted, asked, outcome)
        context |= _answer(request, wanted, form, asked, outcome)
    return TemplateResponse(request, "admin/reports/report.html", context)


def _answer(request: HttpRequest, wanted: Report, form: ReportForm, asked: Asked, outcome: Outcome) -> dict[str, Any]:
    sort = request.GET.get(_SORT, "")
    parameters = form.parameters()
    first, *others = outcome.tables
    page = _page_of(wanted)

    def sorted_by(name: str) -> str:
        return f"{page}?{urlencode({**parameters, _SORT: name})}#{first.name}"

    return {
        "asked": asked,
        "outcome": outcome,
        "tables": [
            showing.table(ordered(first, sort), sort=sort, link=sorted_by),
            *(showing.table(table) for table in others),
        ],
        "chart": showing.chart(outcome.chart) if outcome.chart else None,
        "file_url": f"{page}?{urlencode({**parameters, _FORMAT: _FILE})}",
        "schedule_url": _schedule_url(request, wanted, form, parameters),
    }


def _schedule_url(request: HttpRequest, wanted: Report, form: ReportForm, parameters: dict[str, str]) -> str:
    """Where this very report is sent by a clock; empty for who may not say so, and for days that stand still."""
    is_manager = Scope.of(request.user).sees_all or any(role in MANAGERS for role in roles_of(request).values())
    if not is_manager or form.cleaned_data.get("range") == "custom":
        return ""
    page = reverse("admin:analytics_reportschedule_add")
    said = {"range": form.data["range"], **parameters, "report": wanted.slug}
    return f"{page}?{urlencode(said)}"


def _file(wanted: Report, asked: Asked, outcome: Outcome) -> HttpResponse:
    content = files.csv_of(outcome.tables[0])
    name = f"{wanted.slug}-{asked.span.first_day:%Y%m%d}-{asked.span.last_day:%Y%m%d}.csv"
    return HttpResponse(
        content,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _page_of(wanted: Report) -> str:
    return reverse("reports:report", args=[wanted.slug])


def _has_organizations(request: HttpRequest) -> bool:
    return Scope.of(request.user).sees_all or bool(roles_of(request))
