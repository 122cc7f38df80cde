"""The form of a schedule. What its report is asked is said by the report's own fields, as on the report's page; nobody
writes the parameters that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from accounts.forms import LinesField
from accounts.models import User
from accounts.scoping import sees_all
from analytics.reports import ranges
from analytics.reports.asking import ReportForm, Scope
from analytics.reports.models import ReportSchedule
from analytics.reports.registry import REPORTS
from llmchat.lib import webhooks

_RECIPIENTS_AT_MOST: Final = 20
_SECRET_AT_LEAST: Final = 16
#: Fields of a report's form that a schedule has no use for: it has its own organization, and days that stand still
#: would be the same each time.
_ELSEWHERE: Final = frozenset({"organization", "since", "until"})


def names_of(form_class: type[ReportForm]) -> list[str]:
    """The fields of this report's form that a schedule says."""
    return [name for name in form_class.base_fields if name not in {*_ELSEWHERE, *form_class.hidden}]


def in_words(schedule: ReportSchedule) -> str:
    """What a schedule's report is asked, for who may only look at it."""
    report = REPORTS.get(schedule.report)
    if report is None:
        return "The report is no more."
    form = report.form_class(schedule.parameters, scope=Scope.of(schedule.owner), now=timezone.now())
    told = []
    for name in [name for name in names_of(report.form_class) if name in form.fields]:
        value = form[name].value()
        if value not in {None, ""}:
            choices = dict(getattr(form.fields[name], "choices", ()))
            told.append(f"{form[name].label}: {choices.get(value, value)}")
    return "; ".join(told) or "It asks nothing else."


@dataclass(frozen=True, slots=True)
class _Shown:
    """A field of a report's form, as the template of such fields shows it."""

    id_for_label: str
    label: str
    help_text: str
    html: str
    errors: Sequence[str]

    def __str__(self) -> SafeString:
        return SafeString(self.html)


class ParametersWidget(forms.Widget):
    """The fields of every report, of which those of the chosen one are visible. `report`, `scope` and `faults` (names
    of fields of the chosen report) are set by the form."""

    report = ""
    scope = Scope.of(None)
    faults: Mapping[str, Sequence[str]]

    class Media:
        css: Mapping[str, Sequence[str]] = {"all": ("analytics/reports.css",)}
        js = ("analytics/schedule.js",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.faults = {}

    def id_for_label(self, id_: str) -> str:
        # Each field has a label of its own.
        return ""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> dict[str, str]:
        report = REPORTS.get(data.get("report", ""))
        if report is None:
            return {}
        said = {field: data.get(_html_name(name, report.slug, field)) for field in names_of(report.form_class)}
        return {field: value.strip() for field, value in said.items() if isinstance(value, str)}

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return False

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        parts = []
        for slug, report in REPORTS.items():
            is_chosen = slug == self.report
            said = value if is_chosen and isinstance(value, dict) else {}
            form = report.form_class(said, scope=self.scope, now=timezone.now())
            names = [each for each in names_of(report.form_class) if each in form.fields]
            fields = {each: self._shown(form, name, slug, each, is_chosen) for each in names}
            parts.append(
                {
                    "slug": slug,
                    "about": report.about,
                    "is_chosen": is_chosen,
                    "primary": [shown for each, shown in fields.items() if each not in form.secondary],
                    "secondary": [shown for each, shown in fields.items() if each in form.secondary],
                    "has_more": any(form[each].value() for each in names if each in form.secondary)
                    or bool(is_chosen and {*self.faults} & {*form.secondary}),
                }
            )
        return render_to_string("admin/reports/parameters.html", {"parts": parts})

    def _shown(self, form: ReportForm, name: str, slug: str, field_name: str, is_chosen: bool) -> _Shown:
        bound: Any = form[field_name]
        html_name = _html_name(name, slug, field_name)
        widget = bound.field.widget
        if field_name == "range":
            widget.choices = list(ranges.RELATIVE.items())
        faults = self.faults.get(field_name, ()) if is_chosen else ()
        attrs = {"id": f"id_{html_name}", **({"aria-invalid": "true"} if faults else {})}
        return _Shown(
            id_for_label=f"id_{html_name}",
            label=str(bound.label),
            help_text=str(bound.help_text),
            html=widget.render(html_name, bound.value(), attrs=attrs),
            errors=faults,
        )


def _html_name(name: str, slug: str, field_name: str) -> str:
    return f"{name}-{slug}-{field_name}"


class ParametersField(forms.Field):
    widget = ParametersWidget

    def to_python(self, value: Any) -> dict[str, str]:
        return value if isinstance(value, dict) else {}


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    """`person`, set by the admin, is on whose behalf the report is sent from now on."""

    person: User

    report = forms.ChoiceField(
        choices=[(report.slug, report.title) for report in REPORTS.values()], widget=UnfoldAdminSelectWidget
    )
    parameters = ParametersField(label="What it tells", required=False)
    recipients = LinesField(
        label="E-mail addresses",
        required=False,
        help_text="One per line.",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )
    webhook_secret = forms.CharField(
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "type": "password"}),
        help_text="Signs messages, so that the receiver knows they are from here; never shown again. Empty: the one "
        "that is there stays. Make one with: openssl rand -hex 32",
    )

    class Meta:
        model = ReportSchedule
        fields = (
            "name",
            "report",
            "parameters",
            "organization",
            "frequency",
            "hour",
            "weekday",
            "day_of_month",
            "recipients",
            "webhook_url",
            "webhook_secret",
            "is_active",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "webhook_secret" in self.initial:
            self.initial["webhook_secret"] = ""
        if "parameters" in self.fields:
            widget: Any = self.fields["parameters"].widget
            widget.scope = Scope.of(self.person)
            widget.report = self["report"].value() or next(iter(REPORTS))

    def clean_recipients(self) -> list[str]:
        addresses: list[str] = self.cleaned_data["recipients"]
        if len(addresses) > _RECIPIENTS_AT_MOST:
            raise ValidationError(f"{_RECIPIENTS_AT_MOST} addresses at most. Send to a list's address instead.")
        for address in addresses:
            try:
                validate_email(address)
            except ValidationError:
                raise ValidationError(f"{address} is not an e-mail address. Write one per line.") from None
        return list(dict.fromkeys(addresses))

    def clean_webhook_url(self) -> str:
        url: str = self.cleaned_data["webhook_url"].strip()
        if url:
            try:
                webhooks.parts_of(url)
            except webhooks.WebhookError as error:
                raise ValidationError(str(error)) from error
        return url

    def clean_webhook_secret(self) -> str:
        secret: str = self.cleaned_data["webhook_secret"]
        if not secret:
            # As it is, even when it cannot be read at the moment.
            kept: str = self.instance.webhook_secret
            return kept
        if len(secret) < _SECRET_AT_LEAST:
            raise ValidationError(f"At least {_SECRET_AT_LEAST} characters. Make one with: openssl rand -hex 32")
        return secret

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not cleaned.get("recipients") and not cleaned.get("webhook_url") and not self.errors:
            self.add_error("recipients", "Say where to send it: an e-mail address or a webhook.")
        if cleaned.get("webhook_url") and not cleaned.get("webhook_secret") and "webhook_secret" not in self.errors:
            self.add_error("webhook_secret", "A webhook needs a secret. Make one with: openssl rand -hex 32")
        if cleaned.get("organization") is None and not sees_all(self.person) and "organization" not in self.errors:
            self.add_error("organization", "Choose an organization: only the operator may report on all.")
        if "report" in cleaned and "organization" not in self.errors:
            self._check_parameters(cleaned)
        return cleaned

    def _check_parameters(self, cleaned: dict[str, Any]) -> None:
        """By the report's own form; kept is what does not go without saying, and the range always."""
        said, report = cleaned.get("parameters") or {}, REPORTS[cleaned["report"]]
        if said.get("range") == ranges.CUSTOM:
            self.add_error("parameters", "Days that stand still are the same each time. Choose a range by its name.")
            return
        organization = cleaned.get("organization")
        form = report.form_class(
            {**said, "organization": str(organization.pk) if organization else ""},
            scope=Scope.of(self.person),
            now=timezone.now(),
        )
        names = names_of(report.form_class)
        if form.errors:
            widget: Any = self.fields["parameters"].widget
            widget.faults = {name: [str(error) for error in errors] for name, errors in form.errors.items()}
            self.add_error("parameters", "This cannot be answered as it is asked: see what is said at the fields.")
            for name, errors in form.errors.items():
                if name not in names:
                    self.add_error("parameters", [f"{form[name].label}: {error}" for error in errors])
        told = form.parameters()
        kept = {name: told[name] for name in names if name in told}
        cleaned["parameters"] = {"range": form.data["range"], **kept} if "range" in names else kept
