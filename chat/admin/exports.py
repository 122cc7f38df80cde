"""Exports in the admin: asked for with the filters of the list of interactions, watched, downloaded, removed.

Everybody sees their own, and the operator all. What a file may hold was fixed when it was asked for; at each download
it is asked again whether its owner may still see all of that.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST
from kombu.exceptions import OperationalError as BrokerAway
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.models import Organization, User
from accounts.scoping import roles_of
from chat import selection as selecting
from chat.admin import formats
from chat.admin.listing import ReadOnly
from chat.exports import jobs, reading
from chat.models import Export
from chat.selection import Selection, SelectionError
from llmchat.lib.tables import Format
from llmchat.lib.wording import counted

logger = logging.getLogger(__name__)

_FORMATS = {
    Format.CSV: "CSV, for spreadsheets",
    Format.JSONL: "JSON Lines, one object a row",
    Format.PARQUET: "Parquet, typed columns for analysis",
}


@admin.register(Export)
class ExportAdmin(ReadOnly, ModelAdmin):
    list_display = ("asked", "outcome", "holds", "whose", "size", "until")
    list_display_links = ("asked",)
    list_select_related = ("owner",)
    list_filter = ("state",)
    ordering = ("-id",)
    empty_title = "No exports"
    empty_text = "Filter the list of interactions, then choose Export there: the file is made in the background."

    # --- Who -------------------------------------------------------------------------------------------------------
    def get_queryset(self, request: HttpRequest) -> QuerySet[Export]:
        rows: QuerySet[Export] = super().get_queryset(request)
        return rows if request.user.is_superuser else rows.filter(owner_id=request.user.pk)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user = request.user
        if not (user.is_active and user.is_staff):
            return False
        if user.is_superuser:
            return True
        return bool(roles_of(request)) and (not isinstance(obj, Export) or obj.owner_id == user.pk)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request)

    # --- The list --------------------------------------------------------------------------------------------------
    @display(description="Asked for (UTC)")
    def asked(self, row: Export) -> str:
        return f"{row.created_at:%Y-%m-%d %H:%M}"

    @display(description="State")
    def outcome(self, row: Export) -> SafeString:
        return format_html('<span class="rec-badge rec-{}">{}</span>', *_badge(row))

    @display(description="Holds")
    def holds(self, row: Export) -> SafeString:
        filters = sorted(_filters(row.what, request=None), key=lambda pair: pair[0] in _BOUNDS)
        words = ", ".join(f"{name} {value}" for name, value in filters)
        return format_html(
            "{}{}{}",
            row.what["format"].upper(),
            ", redacted" if row.what["redact"] else "",
            format_html_join(
                "", '<small class="rec-line" title="{0}">{0}</small>', [(line,) for line in (words, row.error) if line]
            ),
        )

    @display(description="Owner")
    def whose(self, row: Export) -> str:
        return row.owner.get_username()

    @display(description="Size")
    def size(self, row: Export) -> str:
        return _amount(row) if jobs.state_of(row) in Export.KEPT else formats.NOTHING

    @display(description="Until (UTC)")
    def until(self, row: Export) -> str:
        is_done = row.expires_at and jobs.state_of(row) == Export.State.DONE
        return f"{row.expires_at:%Y-%m-%d %H:%M}" if is_done else formats.NOTHING

    # --- Pages -----------------------------------------------------------------------------------------------------
    def get_urls(self) -> list[URLPattern]:
        def view(function: Any) -> Any:
            return self.admin_site.admin_view(function)

        return [
            path("<uuid:pk>/download/", view(self.download), name="chat_export_download"),
            path("<uuid:pk>/progress/", view(self.progress), name="chat_export_progress"),
            path("<uuid:pk>/end/", view(require_POST(self.end)), name="chat_export_end"),
            *super().get_urls(),
        ]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Says what would be exported and asks for the format; by POST, asks for the file."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        refusal = ""
        said = request.GET if request.method != "POST" else request.POST
        values = {name: said.getlist(name) for name in said}
        try:
            selection = _seen(request, selecting.parse(values))
            if request.method == "POST":
                export = jobs.ask_for(
                    _person(request),
                    selection,
                    _format(request.POST.get("format", "")),
                    redact=bool(request.POST.get("redact")),
                    organizations=None if request.user.is_superuser else list(roles_of(request)),
                )
                transaction.on_commit(_start)
                return HttpResponseRedirect(reverse("admin:chat_export_change", args=[export.pk]))
        except (SelectionError, jobs.Refused) as error:
            refusal = str(error)
            selection = Selection() if isinstance(error, SelectionError) else selection
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Export",
            "filters": _filters({"selection": selection.values()}, request=request),
            "hidden": [(name, value) for name, value in _pairs(selection.values())],
            "formats": [(form.value, words) for form, words in _FORMATS.items()],
            "refusal": refusal,
            "redacted": sorted(reading.REDACTED),
        }
        return TemplateResponse(request, "admin/chat/export/ask.html", context, status=400 if refusal else 200)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        try:
            export = self._get(request, UUID(object_id))
        except ValueError:
            raise Http404 from None
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Export",
            "export": export,
            "badge": _badge(export),
            "news": _news(export),
            "percent": int(export.progress * 100),
            "amount": _amount(export),
            "is_unfinished": export.state in Export.UNFINISHED,
            "has_file": jobs.state_of(export) == Export.State.DONE and not jobs.is_missing(export),
            "is_own": export.owner_id == request.user.pk,
            "filters": _filters(export.what, request=request),
            "again": _pairs(export.what["selection"]),
            "list_query": urlencode(export.what["selection"], doseq=True),
        }
        return TemplateResponse(request, "admin/chat/export/page.html", context)

    def progress(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """What the page asks for while it is open."""
        export = self._get(request, pk)
        return JsonResponse(
            {
                "state": export.state,
                "percent": int(export.progress * 100),
                "words": _amount(export),
                "over": export.state not in Export.UNFINISHED,
            }
        )

    def download(self, request: HttpRequest, pk: UUID) -> FileResponse | HttpResponseRedirect:
        """The file, to its owner and to the operator; when there is none, the page that says why."""
        export = self._get(request, pk)
        whose = export.what["organizations"]
        if not request.user.is_superuser and not (
            whose is not None and set(whose) <= {str(each) for each in roles_of(request)}
        ):
            raise PermissionDenied("It holds interactions of an organization that you no longer belong to.")
        file = jobs.downloaded(export)
        if file is None:
            return HttpResponseRedirect(reverse("admin:chat_export_change", args=[pk]))
        form = Format(export.what["format"])
        response = FileResponse(
            file,
            as_attachment=True,
            filename=f"interactions-{export.created_at:%Y%m%d-%H%M%S}.{form.value}",
            content_type=form.content_type,
        )
        response["X-Content-Type-Options"] = "nosniff"
        response["Cache-Control"] = "private, no-store"
        return response

    def end(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Cancels what is not made yet; removes what is."""
        export = self._get(request, pk)
        if jobs.cancel(export):
            self.message_user(request, "The export is cancelled.", messages.SUCCESS)
            return HttpResponseRedirect(reverse("admin:chat_export_change", args=[pk]))
        jobs.remove(export)
        self.message_user(request, "The export is removed, and its file with it.", messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:chat_export_changelist"))

    def _get(self, request: HttpRequest, pk: UUID) -> Export:
        export = self.get_queryset(request).filter(pk=pk).first()
        if export is None or not self.has_view_permission(request, export):
            raise Http404
        return export


#: The looks of the record's states.
_LOOKS: dict[str, str] = {
    Export.State.QUEUED: "interrupted",
    Export.State.RUNNING: "interrupted",
    Export.State.DONE: "succeeded",
    Export.State.FAILED: "failed",
    Export.State.CANCELLED: "cancelled",
    Export.State.EXPIRED: "cancelled",
}
_BOUNDS = frozenset({"since", "until"})


def _badge(export: Export) -> tuple[str, str]:
    """Its look, and its words."""
    state = jobs.state_of(export)
    return _LOOKS[state], Export.State(state).label


def _news(export: Export) -> str:
    """What has become of an export that has no file and will get none; nothing of others."""
    if jobs.is_missing(export):
        return (
            "The file was made, and is not on this server any more. Make it again; if that one is missing too, tell "
            "your operator that EXPORTS_DIR must be one directory for all machines."
        )
    match jobs.state_of(export):
        case Export.State.FAILED:
            return export.error
        case Export.State.CANCELLED:
            return "It was cancelled before it was whole."
        case Export.State.EXPIRED:
            return f"It was made, and its file went at {export.expires_at:%Y-%m-%d %H:%M} UTC, when its time was over."
    return ""


def _amount(export: Export) -> str:
    return f"{counted(export.rows, 'interaction')}, {filesizeformat(export.bytes)}"


def _start() -> None:
    # Not earlier: the admin is imported before `serve` has said where counting is done, and what tasks do is counted.
    from chat.tasks import work_on_exports

    # Without a broker it begins within a minute, with the clock's next tick.
    with contextlib.suppress(BrokerAway, OSError):
        work_on_exports.delay()


def _person(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - `admin_view` let nobody else in
    return request.user


def _format(text: str) -> Format:
    try:
        return Format(text)
    except ValueError:
        raise jobs.Refused("Choose a format: CSV, JSON Lines or Parquet.") from None


def _filters(what: dict[str, Any], *, request: HttpRequest | None) -> list[tuple[str, str]]:
    """What is selected, for people."""
    found = []
    for name, value in _pairs(what["selection"]):
        known = None
        if name == "organization" and request is not None and _sees(request, value):
            known = Organization.objects.filter(pk=value).values_list("name", flat=True).first()
        found.append((name, known or value))
    return found


def _seen(request: HttpRequest, selection: Selection) -> Selection:
    """The selection, unless it names an organization whose very existence is none of the person's business."""
    if selection.organization is not None and not _sees(request, str(selection.organization)):
        raise SelectionError("organization", "There is no such organization among yours. Choose another.")
    return selection


def _sees(request: HttpRequest, organization: str) -> bool:
    return bool(request.user.is_superuser) or organization in {str(each) for each in roles_of(request)}


def _pairs(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, str(one)) for name, value in values.items() for one in (value if isinstance(value, list) else [value])
    ]
