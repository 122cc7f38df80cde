"""The admin's forms where Django's own would ask people to write JSON, or show them everybody there is."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.models import APIKey, Membership, Organization, Plan, User
from accounts.services import DEFAULT_SCOPES


class LinesField(forms.CharField):
    """A list of strings, written one per line."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in (value or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.to_python(data) != (initial or []))


class PlanForm(forms.ModelForm):  # type: ignore[type-arg]
    allowed_models = LinesField(
        required=False, help_text="One name or pattern per line, such as gemini-* or local/*. Empty: every model."
    )

    class Meta:
        model = Plan
        fields = "__all__"  # noqa: DJ007 - a plan is nothing but its limits


class OrganizationForm(forms.ModelForm):  # type: ignore[type-arg]
    """An organization may keep less than the settings say, never more: what is off for all is the operator's promise.
    `may_keep_more` is set by the admin."""

    may_keep_more = False

    class Meta:
        model = Organization
        fields = "__all__"  # noqa: DJ007 - the admin says which may be changed

    def clean_log_prompts(self) -> bool | None:
        return self._at_most("log_prompts", limit=settings.LOG_PROMPTS)

    def clean_log_responses(self) -> bool | None:
        return self._at_most("log_responses", limit=settings.LOG_RESPONSES)

    def _at_most(self, name: str, *, limit: bool) -> bool | None:
        wanted: bool | None = self.cleaned_data[name]
        if wanted and not limit and not self.may_keep_more and not self.initial.get(name):
            raise ValidationError(
                f"The setting {name.upper()} is off here. Ask the operator if these texts are to be kept all the same."
            )
        return wanted


class APIKeyForm(forms.ModelForm):  # type: ignore[type-arg]
    scopes = forms.MultipleChoiceField(
        choices=APIKey.Scope.choices,
        initial=sorted(DEFAULT_SCOPES),
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    class Meta:
        model = APIKey
        fields = ("organization", "name", "scopes", "budget_usd", "expires_at")


class MembershipForm(forms.ModelForm):  # type: ignore[type-arg]
    """Names the person by username: a list to choose from would show who else uses this installation."""

    username = forms.CharField(widget=UnfoldAdminTextInputWidget, help_text="Of a person who exists already.")

    class Meta:
        model = Membership
        fields = ("role",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk is not None:
            self.fields["username"].initial = self.instance.user.username
            self.fields["username"].disabled = True

    def clean_username(self) -> str:
        username: str = self.cleaned_data["username"]
        if self.instance.pk is None:
            user = User.objects.filter(username=username).first()
            if user is None:
                raise ValidationError("There is nobody of this name. Ask the operator to add the person first.")
            self.instance.user = user
        return username


class MembershipFormSet(forms.BaseInlineFormSet):  # type: ignore[type-arg]
    """Keeps an organization in its owners' hands: only an owner (or the operator) makes, changes or removes owners, and
    one of them stays. `may_change_owners` is set by the admin."""

    may_change_owners = False

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        people = [form.instance.user_id for form in self.forms if form.instance.user_id is not None]
        if len(people) != len(set(people)):
            raise ValidationError("Each person can be a member once.")
        owner = Membership.Role.OWNER
        had, has = 0, 0
        for form in self.forms:
            was = form.initial.get("role") == owner and form.instance.pk is not None
            stays = form.cleaned_data.get("role") == owner and not form.cleaned_data.get("DELETE", False)
            had += was
            has += stays and (form.instance.pk is not None or form.has_changed())
            if was != (stays and bool(form.cleaned_data.get("username"))) and not self.may_change_owners:
                raise ValidationError("Only an owner can make, change or remove owners.")
        if had and not has:
            raise ValidationError("An organization keeps at least one owner. Make somebody else owner first.")
