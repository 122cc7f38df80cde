"""What a report is asked: the form that reads it from an address or from a schedule, and the value that comes out.

One form serves screen, file and schedule, so that a schedule accepts what the screen does and says the same of a fault.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from uuid import UUID

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.utils.safestring import SafeString, mark_safe
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import APIKey, Organization, Plan, User
from accounts.scoping import sees_all, visible_organizations
from analytics.models import Grain
from analytics.questions import Question
from analytics.reports import ranges
from analytics.reports.ranges import Span
from chat.models import Status
from llmchat.lib.markup import options

#: Dimensions that a report can be narrowed to: the form's word and the roll-ups' name.
FILTERS: Final[Mapping[str, str]] = {
    "provider": "provider",
    "model": "model",
    "plan": "plan",
    "status": "status",
    "error_code": "error_code",
    "route_reason": "route_reason",
    "cached": "cached",
    "key": "api_key_id",
    "user": "user_id",
}
#: How people call dimensions.
WORDS: Final[Mapping[str, str]] = {
    "organization": "Organization",
    "key": "API key",
    "user": "User",
    "provider": "Provider",
    "model": "Model",
    "plan": "Plan",
    "status": "Status",
    "error_code": "Error code",
    "route_reason": "Route reason",
    "cached": "From the cache",
}
DIMENSIONS: Final[Mapping[str, str]] = {"organization": "organization_id", **FILTERS}

#: A range longer than this is a slip of the keyboard.
_DAYS_AT_MOST: Final = 3660


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whose figures a person may see: all organizations' for the operator, else those of their own."""

    organizations: QuerySet[Organization]
    sees_all: bool

    @classmethod
    def of(cls, person: Any) -> Scope:
        if not isinstance(person, User):
            return cls(organizations=Organization.objects.none(), sees_all=False)
        return cls(organizations=visible_organizations(person), sees_all=sees_all(person))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A report's question, checked. `organization`: None for all together, which only the operator may ask. `only`:
    values by the roll-ups' names. `options`: what else the report's form says."""

    now: dt.datetime
    span: Span
    organization: Organization | None
    only: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def organization_id(self) -> UUID | None:
        return self.organization.pk if self.organization else None

    def question(
        self,
        by: Sequence[str] = (),
        *,
        interval: Grain | None = None,
        span: Span | None = None,
        only: Mapping[str, Any] | None = None,
        times: bool = False,
        **more: Any,
    ) -> Question:
        """A question to the roll-ups of this organization and range, with these filters and others."""
        asked = span or self.span
        return Question(
            organization_id=self.organization_id,
            since=asked.since,
            until=asked.until,
            only={**self.only, **(only or {})},
            by=tuple(by),
            interval=interval,
            times=times,
            **more,
        )

    @property
    def subject(self) -> str:
        return self.organization.name if self.organization else "All organizations"


class _Select(UnfoldAdminSelectWidget):  # type: ignore[misc]  # unfold ships no types
    """The theme's, whose template takes a template for each option: there are hundreds of organizations."""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        context = self.get_context(name, value, attrs)
        groups, context["widget"]["optgroups"] = context["widget"]["optgroups"], []
        written = options(
            (option["value"], option["label"], option["selected"]) for _, group, _ in groups for option in group
        )
        frame = self._render(self.template_name, context, renderer)
        whole: SafeString = mark_safe(frame.replace("</select>", f"{written}</select>", 1))  # noqa: S308 - both escaped
        return whole


def choice(label: str, choices: Any, *, help_text: str = "", required: bool = False) -> forms.ChoiceField:
    return forms.ChoiceField(label=label, choices=choices, help_text=help_text, required=required, widget=_Select)


def text(label: str, *, help_text: str = "", max_length: int = 256) -> forms.CharField:
    return forms.CharField(
        label=label, help_text=help_text, required=False, max_length=max_length, widget=UnfoldAdminTextInputWidget
    )


class _DayInput(UnfoldAdminTextInputWidget):  # type: ignore[misc]  # unfold ships no types
    """The browser's own calendar."""

    input_type = "date"


class ReportForm(forms.Form):
    """The range and the organization, which every report asks for. Fields of which nothing was said get `defaults`."""

    defaults: ClassVar[Mapping[str, str]] = {"range": "last-30-days"}
    #: Fields that stand behind "More filters", and fields that nobody needs to see.
    secondary: ClassVar[Sequence[str]] = ()
    hidden: ClassVar[Sequence[str]] = ()

    range = choice("Range (UTC)", [*ranges.RELATIVE.items(), (ranges.CUSTOM, "From one day to another")], required=True)
    since = forms.DateField(label="From", required=False, widget=_DayInput)
    until = forms.DateField(label="To, included", required=False, widget=_DayInput)
    organization = forms.ModelChoiceField(
        Organization.objects.none(),
        label="Organization",
        required=False,
        empty_label="All organizations",
        widget=_Select,
    )

    def __init__(self, data: Mapping[str, Any], *, scope: Scope, now: dt.datetime) -> None:
        said = {name: value for name, value in data.items() if value not in {None, ""} or self._may_be_empty(name)}
        self._scope, self._now = scope, now
        if not scope.sees_all and not said.get("organization") and (first := scope.organizations.first()):
            said["organization"] = str(first.pk)
        super().__init__({**self.defaults, **said})
        field: Any = self.fields["organization"]
        field.queryset = scope.organizations
        if not scope.sees_all:
            field.required, field.empty_label = True, None
            field.error_messages["required"] = "You belong to no organization, so there is nothing to report."
        # A stranger's organization is answered like one that does not exist.
        field.error_messages["invalid_choice"] = "There is no such organization among those you may see."

    def clean_since(self) -> dt.date | None:
        return _day(self.cleaned_data["since"])

    def clean_until(self) -> dt.date | None:
        return _day(self.cleaned_data["until"])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("range") != ranges.CUSTOM:
            return cleaned
        since, until = cleaned.get("since"), cleaned.get("until")
        if not self.errors.keys() & {"since", "until"}:
            if since is None or until is None:
                self.add_error("since" if since is None else "until", "Say both days, or choose a range by its name.")
            elif until < since:
                self.add_error("until", f"The last day is before the first, {since}. Exchange the two.")
            elif (until - since).days >= _DAYS_AT_MOST:
                self.add_error("until", f"That is longer than {_DAYS_AT_MOST} days. Take a shorter range.")
        return cleaned

    def asked(self) -> Asked:
        """Of a form that is valid."""
        said = dict(self.cleaned_data)
        name, since, until = (said.pop(key) for key in ("range", "since", "until"))
        span = ranges.of_days(since, until) if name == ranges.CUSTOM else ranges.named(name, now=self._now)
        organization = said.pop("organization")
        only = {dimension: said.pop(word) for word, dimension in FILTERS.items() if word in said}
        return Asked(
            now=self._now,
            span=span,
            organization=organization,
            only={dimension: value for dimension, value in only.items() if value not in {None, ""}},
            options=said,
        )

    def parameters(self) -> dict[str, str]:
        """What was said, without what goes without saying: the parameters of an address or of a schedule."""
        return {
            name: str(value)
            for name, value in self.data.items()
            if name in self.fields and (value or "") != self.defaults.get(name, "")
        }

    @classmethod
    def _may_be_empty(cls, name: str) -> bool:
        """Whether nothing is a choice of its own: "by nothing" is not the default "by model"."""
        choices: Any = getattr(cls.base_fields.get(name), "choices", ())
        return name in cls.defaults and any(value == "" for value, _ in choices)

    @property
    def has_more(self) -> bool:
        """Whether one of the secondary fields says something."""
        return any(self.data.get(name) or name in self.errors for name in self.secondary)

    def primary_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in {*self.secondary, *self.hidden}]

    def secondary_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name in self.secondary]


class FilterForm(ReportForm):
    """With the dimensions to narrow it to."""

    secondary = tuple(FILTERS)

    provider = choice("Provider", lambda: [("", "Any"), *((slug, slug) for slug in sorted(settings.PROVIDERS))])
    model = text("Model", help_text="The whole name of the model that answered.")
    plan = choice("Plan", lambda: [("", "Any"), *Plan.objects.values_list("slug", "name")])
    status = choice("Status", [("", "Any"), *Status.choices])
    error_code = text("Error code", max_length=64)
    route_reason = text("Route reason", max_length=128)
    cached = choice("From the cache", [("", "Either"), ("yes", "From the cache"), ("no", "From a model")])
    key = text("API key", help_text="Its prefix, as the list of keys shows it.", max_length=64)
    user = text("User", help_text="The whole name. Goes with no other filter.", max_length=128)

    def clean_cached(self) -> bool | None:
        return {"yes": True, "no": False}.get(self.cleaned_data["cached"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if prefix := cleaned.get("key"):
            cleaned["key"] = self._key_of(prefix.strip().rstrip("…"), cleaned.get("organization"))
        others = [WORDS[word].lower() for word in FILTERS if word != "user" and cleaned.get(word) not in {None, ""}]
        if cleaned.get("user") and others:
            self.add_error(
                "user",
                f"Users are counted by themselves, not by {_listed(others)}. Take one away, the user or the other.",
            )
        return cleaned

    def _key_of(self, prefix: str, organization: Organization | None) -> UUID | None:
        keys = APIKey.objects.filter(prefix=prefix, organization__in=self._scope.organizations)
        if organization is not None:
            keys = keys.filter(organization=organization)
        found = list(keys.values_list("pk", flat=True)[:2])
        if len(found) != 1:
            known = "No key" if not found else "More than one key"
            self.add_error("key", f"{known} that you may see begins with {prefix!r}. The list of keys shows prefixes.")
            return None
        return found[0]


def _day(value: dt.date | None) -> dt.date | None:
    if value is not None and not 1970 <= value.year < 9999:
        raise ValidationError("Choose a day of the record: a year from 1970 on.")
    return value


def _listed(words: Sequence[str]) -> str:
    return " or ".join(words)
