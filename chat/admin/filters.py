"""The filters of the lists. Choices come from settings and plans, never from the record itself: looking for distinct
values would read the whole table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from unfold.contrib.filters.admin import (
    AutocompleteSelectFilter,
    DropdownFilter,
    MultipleDropdownFilter,
    RangeDateFilter,
    TextFilter,
)
from unfold.contrib.filters.forms import AutocompleteDropdownForm
from unfold.utils import parse_date_str

from accounts.models import Plan
from accounts.scoping import roles_of
from chat.models import Interaction, Status
from chat.selection import NONE, PERIODS
from llmchat.lib.uuid7 import floor_at


class PeriodFilter(DropdownFilter):
    """The latest stretch of time."""

    title = "period"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label.capitalize()) for name, (label, _) in PERIODS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if (name := self.value()) not in PERIODS:
            return queryset
        return queryset.filter(id__gte=floor_at(timezone.now() - PERIODS[name][1]))


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


class _Asking:
    """Shows what is chosen and asks for it; the list narrows its rows by the whole selection at once."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class Asking(_Asking, DropdownFilter):
    """One of a few values."""

    #: What there is to choose from, where it is always the same: values, and words for them.
    options: ClassVar[Sequence[tuple[str, str]]] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(self.options)


class AskingText(_Asking, TextFilter):
    """What is typed."""


class SpanFilter(AskingText):
    """From one moment until before another, as an ISO 8601 interval: what a figure elsewhere was counted over."""

    title = "moments (from/until, UTC)"
    parameter_name = "span"


def span(since: dt.datetime, until: dt.datetime) -> str:
    """The value of `SpanFilter` for this range."""
    ends = (moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") for moment in (since, until))
    return "/".join(ends)


class StatusFilter(Asking, MultipleDropdownFilter):
    title = "status"
    parameter_name = "status"
    options = Status.choices


class EndpointFilter(Asking):
    title = "endpoint"
    parameter_name = "endpoint"
    options = Interaction.Endpoint.choices


class ProviderFilter(Asking):
    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(slug, slug) for slug in sorted(settings.PROVIDERS)] + [(NONE, "none")]


class ModelFilter(AskingText):
    title = "model that answered (* for any part)"
    parameter_name = "model"


class AskedFilter(AskingText):
    title = "model asked for (* for any part)"
    parameter_name = "asked"


class ErrorFilter(AskingText):
    title = "error code (* for any)"
    parameter_name = "error"


class MetadataFilter(AskingText):
    title = "metadata (key or key=value)"
    parameter_name = "metadata"


class TraceFilter(AskingText):
    title = "request id (X-Request-Id)"
    parameter_name = "trace"


class RequestFilter(AskingText):
    title = "caller's request id"
    parameter_name = "request"


class _YesNo(Asking):
    options = (("1", "Yes"), ("0", "No"))


class StreamedFilter(_YesNo):
    title = "streamed"
    parameter_name = "streamed"


class FallbackFilter(_YesNo):
    title = "fallback"
    parameter_name = "fallback"


class CachedFilter(_YesNo):
    title = "answered from the cache"
    parameter_name = "cached"


class PlanFilter(Asking):
    """The plan at the time of the request."""

    title = "plan"
    parameter_name = "plan"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(Plan.objects.values_list("slug", "name"))


class PriceFilter(Asking):
    """Unpriced is what has spent tokens at a price that nobody knew."""

    title = "price"
    parameter_name = "price"
    options = (("unpriced", "Unpriced"), ("priced", "Priced"))


class UserFilter(TextFilter):
    """The caller's user, by the whole name."""

    title = "user (whole name)"
    parameter_name = "user"

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").strip()
        return queryset.filter(user_id=name) if name else queryset


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


class ChosenOrganizationFilter(_Asking, OrganizationFilter):
    """The same by a selection's name for it."""

    def __init__(self, field: Any, request: HttpRequest, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        chosen = params.pop("organization", None)
        if chosen:
            params[f"{kwargs['field_path']}__id__exact"] = chosen
        super().__init__(field, request, params, *args, **kwargs)
        self.lookup_kwarg = "organization"
        self.used_parameters = {"organization": chosen} if chosen else {}


def worth_offering(list_filter: Sequence[Any], request: HttpRequest) -> list[Any]:
    """The filters without the one by organization for people who belong to one only."""
    if request.user.is_superuser or len(roles_of(request)) > 1:
        return list(list_filter)
    return [entry for entry in list_filter if entry not in {BY_ORGANIZATION, BY_CHOSEN_ORGANIZATION}]


BY_ORGANIZATION = ("organization", OrganizationFilter)
BY_CHOSEN_ORGANIZATION = ("organization", ChosenOrganizationFilter)
