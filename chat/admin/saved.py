"""Saved filters of the list of interactions: made from what the list shows, kept for a person, shared if they like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display

from accounts.models import Organization, User
from accounts.scoping import roles_of
from audit.history import AuditHistory
from chat import selection
from chat.admin.listing import QuietChangeList
from chat.models import SavedFilter
from chat.selection import SelectionError

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin as DjangoAdmin

    _Admin = DjangoAdmin[Any]
else:
    _Admin = object

#: Filters of one person, beyond which old ones are to go first.
_MOST = 100


def _person(request: HttpRequest) -> User:
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


def visible_to(request: HttpRequest) -> QuerySet[SavedFilter]:
    """The person's own, and those shared with an organization of theirs; operators belong to every one."""
    shared = Q(organization__isnull=False) if request.user.is_superuser else Q(organization__in=list(roles_of(request)))
    return SavedFilter.objects.filter(Q(owner=_person(request)) | shared).select_related("owner", "organization")


def address_of(saved: SavedFilter) -> str:
    """The list as the filter asks for it."""
    # A database may keep them in another order.
    values = {name: saved.values[name] for name in selection.NAMES if name in saved.values}
    return f"{reverse('admin:chat_interaction_changelist')}?{urlencode(values, doseq=True)}"


class _SaveForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = SavedFilter
        fields = ("name", "organization", "is_default")


class Saving(_Admin):
    """For the `ModelAdmin` of interactions."""

    def saving_urls(self) -> list[URLPattern]:
        return [path("save-filter/", self.admin_site.admin_view(self.save_filter), name="chat_interaction_save_filter")]

    def filters_of(self, request: HttpRequest) -> dict[str, Any]:
        """What the list shows of them."""
        found = list(visible_to(request)[:_MOST])
        return {
            "saved": [{"row": row, "url": address_of(row), "is_own": row.owner_id == request.user.pk} for row in found],
            "shareable": _shareable(request)[:_MOST],
        }

    def default_of(self, request: HttpRequest) -> HttpResponse | None:
        """Leads to the person's default filter when nothing is asked for."""
        if request.method != "GET" or request.GET:
            return None
        default = SavedFilter.objects.filter(owner=_person(request), is_default=True).first()
        return HttpResponseRedirect(address_of(default)) if default and default.values else None

    def save_filter(self, request: HttpRequest) -> HttpResponse:
        """Keeps `query`, the list's query string, by a name; a filter of that name is replaced."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if not self.has_view_permission(request):
            return HttpResponseRedirect(reverse("admin:index"))
        back = reverse("admin:chat_interaction_changelist")
        try:
            chosen = selection.parse(dict(QueryDict(request.POST.get("query", "")).lists()))
        except SelectionError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect(f"{back}?all=")
        back = f"{back}?{chosen.parameters()}"
        name = request.POST.get("name", "").strip()
        own = SavedFilter.objects.filter(owner=_person(request))
        known = own.filter(name=name).first()
        row = known or SavedFilter(owner=_person(request))
        form = _SaveForm({**request.POST.dict(), "name": name}, instance=row)
        form.fields["organization"].queryset = _shareable(request)  # type: ignore[attr-defined]
        if not chosen.values():
            self.message_user(request, "Nothing is filtered yet: choose filters or search, then save.", messages.ERROR)
        elif not form.is_valid():
            words = " ".join(f"{field}: {' '.join(map(str, errors))}" for field, errors in form.errors.items())
            self.message_user(request, f"The filter was not saved. {words}", messages.ERROR)
        elif known is None and own.count() >= _MOST:
            self.message_user(request, f"You have {_MOST} filters. Delete one first.", messages.ERROR)
        else:
            _keep(form.instance, chosen.values())
            self.message_user(request, f"Saved as “{name}”.", messages.SUCCESS)
        return HttpResponseRedirect(back)


def _keep(row: SavedFilter, values: dict[str, Any]) -> None:
    row.values = values
    row.save()
    if row.is_default:
        SavedFilter.objects.filter(owner=row.owner).exclude(pk=row.pk).update(is_default=False)


def _shareable(request: HttpRequest) -> QuerySet[Organization]:
    if request.user.is_superuser:
        return Organization.objects.order_by("name")
    return Organization.objects.filter(pk__in=list(roles_of(request))).order_by("name")


@admin.register(SavedFilter)
class SavedFilterAdmin(AuditHistory, ModelAdmin):
    """Everybody's own, to rename, share and delete; others' shared ones to use."""

    list_display = ("name", "leads_to", "organization", "is_default", "owner", "created_at")
    list_select_related = ("organization", "owner")
    fields = ("name", "organization", "is_default")
    show_full_result_count = False
    empty_title = "No saved filters yet"
    empty_text = "Choose filters in the list of interactions, or search there, and save them by a name."

    @display(description="Interactions")
    def leads_to(self, row: SavedFilter) -> SafeString:
        return format_html(
            '<a class="rec-link" href="{}">Show<span class="sr-only"> those of {}</span></a>', address_of(row), row.name
        )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QuietChangeList]:
        return QuietChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[SavedFilter]:
        return visible_to(request)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "organization":
            kwargs["queryset"] = _shareable(request)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: SavedFilter, form: Any, change: bool) -> None:
        _keep(obj, obj.values)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(
            request.user.is_active and request.user.is_staff and (request.user.is_superuser or roles_of(request))
        )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._owns(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._owns(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        return {}

    def _owns(self, request: HttpRequest, obj: Any) -> bool:
        return self.has_view_permission(request) and (obj is None or obj.owner_id == request.user.pk)
