"""The filters of the lists. Choices come from settings and plans, never from the record itself: looking for distinct
values would read the whole table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import AutocompleteSelectFilter, DropdownFilter, RangeDateFilter, TextFilter
from unfold.contrib.filters.forms import AutocompleteDropdownForm
from unfold.utils import parse_date_str

from accounts.models import Plan
from accounts.scoping import roles_of
from llmchat.lib.uuid7 import floor_at


class PeriodFilter(DropdownFilter):
    """The latest stretch of time."""

    title = "period"
    parameter_name = "period"
    spans = {
        "hour": ("Last hour", dt.timedelta(hours=1)),
        "day": ("Last 24 hours", dt.timedelta(days=1)),
        "week": ("Last 7 days", dt.timedelta(days=7)),
        "month": ("Last 30 days", dt.timedelta(days=30)),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label) for name, (label, _) in self.spans.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if (name := self.value()) not in self.spans:
            return queryset
        return queryset.filter(id__gte=floor_at(timezone.now() - self.spans[name][1]))


class DayRangeFilter(RangeDateFilter):
    """From one day to another, both included (UTC). Asks the primary key, which is ordered by time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "day (UTC)"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        since, until = (self._day(end) for end in ("from", "to"))
        if since:
            queryset = queryset.filter(id__gte=floor_at(since))
        if until:
            queryset = queryset.filter(id__lt=floor_at(until + dt.timedelta(days=1)))
        return queryset

    def _day(self, end: str) -> dt.datetime | None:
        raw = self.used_parameters.get(f"{self.parameter_name}_{end}")
        day = parse_date_str(raw) if raw else None
        # Years that the id cannot hold, or that have no next day, are no years of the record.
        if day is None or not 1970 <= day.year < 9999:
            return None
        return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


class ProviderFilter(DropdownFilter):
    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(slug, slug) for slug in sorted(settings.PROVIDERS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


class ModelFilter(TextFilter):
    """A part of the name of the model that answered or was asked."""

    title = "model (part of its name)"
    parameter_name = "model"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").strip()
        return queryset.filter(Q(model__icontains=name) | Q(model_requested__icontains=name)) if name else queryset


class UserFilter(TextFilter):
    """The caller's user, by the whole name."""

    title = "user (whole name)"
    parameter_name = "user"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").strip()
        return queryset.filter(user_id=name) if name else queryset


class PlanFilter(DropdownFilter):
    """The plan at the time of the request."""

    title = "plan"
    parameter_name = "plan"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Plan.objects.values_list("slug", "name"))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(plan=self.value()) if self.value() else queryset


class PriceFilter(DropdownFilter):
    """Unpriced is what has spent tokens at a price that nobody knew."""

    title = "price"
    parameter_name = "price"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("unpriced", "Unpriced"), ("priced", "Priced")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "unpriced":
                return queryset.filter(cost=None, input_tokens__isnull=False)
            case "priced":
                return queryset.filter(cost__isnull=False)
        return queryset


class _OrganizationForm(AutocompleteDropdownForm):
    """Finds the name of the chosen organization among those that the person may see."""

    def __init__(self, request: HttpRequest, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, name, *args, **kwargs)
        field = self.fields[name]
        organizations = field.queryset.model
        visible = kwargs["model_admin"].admin_site.get_model_admin(organizations).get_queryset(request)
        try:
            field.queryset = visible.filter(pk=self.data.get(name) or None)
        except ValidationError:
            field.queryset = visible.none()


class OrganizationFilter(AutocompleteSelectFilter):
    """An organization, found by typing, among those that the person may see."""

    form_class = _OrganizationForm


def worth_offering(list_filter: Sequence[Any], request: HttpRequest) -> list[Any]:
    """The filters without the one by organization for people who belong to one only."""
    if request.user.is_superuser or len(roles_of(request)) > 1:
        return list(list_filter)
    return [entry for entry in list_filter if entry != BY_ORGANIZATION]


BY_ORGANIZATION = ("organization", OrganizationFilter)
