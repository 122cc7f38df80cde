"""Plans, organizations, people and keys in the admin. What changes something is done by `accounts.services`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import RelatedOnlyFieldListFilter
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin, TabularInline
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts import services
from accounts.forms import APIKeyForm, MembershipForm, MembershipFormSet, OrganizationForm, PlanForm
from accounts.models import APIKey, Membership, Organization, Plan, User
from accounts.scoping import OrganizationScoped, SuperusersOnly, managed_organizations, roles_of
from audit.history import AuditHistory

# Rights follow from roles in organizations; groups and permissions by model would promise something else.
admin.site.unregister(Group)

_STATUS_COLOURS = {"active": "success", "expired": "warning", "revoked": "danger"}


@admin.register(Plan)
class PlanAdmin(AuditHistory, SuperusersOnly, ModelAdmin):
    form = PlanForm
    list_display = ("name", "slug", "requests_per_hour", "tokens_per_day", "priority", "organization_count")
    search_fields = ("name", "slug")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        plans: QuerySet[Plan] = super().get_queryset(request).annotate(organization_count=Count("organizations"))
        return plans

    @display(description="organizations", ordering="organization_count")
    def organization_count(self, plan: Plan) -> int:
        count: int = plan.organization_count  # type: ignore[attr-defined]
        return count

    def get_readonly_fields(self, request: HttpRequest, obj: Plan | None = None) -> tuple[str, ...]:
        # It is the primary key: changed, it would be a second plan.
        return ("slug",) if obj else ()

    def save_model(self, request: HttpRequest, obj: Plan, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        services.forget_cached_keys()


class MembershipInline(OrganizationScoped, TabularInline):
    model = Membership
    form = MembershipForm
    formset = MembershipFormSet
    fields = ("username", "role")
    extra = 0

    def get_formset(self, request: HttpRequest, obj: Organization | None = None, **kwargs: Any) -> Any:
        formset = super().get_formset(request, obj, **kwargs)
        formset.may_change_owners = request.user.is_superuser or (
            obj is not None and roles_of(request).get(obj.pk) == Membership.Role.OWNER
        )
        return formset

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        members: QuerySet[Membership] = super().get_queryset(request).select_related("user")
        return members


class APIKeyInline(OrganizationScoped, TabularInline):
    model = APIKey
    fields = readonly_fields = ("prefix", "name", "status", "scope_names", "expires_at", "last_used_at")
    extra = 0
    show_change_link = True

    @display(description="scopes")
    def scope_names(self, key: APIKey) -> str:
        return key.scope_names()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Organization)
class OrganizationAdmin(AuditHistory, OrganizationScoped, ModelAdmin):
    organization_lookup = "pk"
    form = OrganizationForm
    list_per_page = 50
    list_display = ("name", "plan", "is_active", "member_count", "key_count", "created_at")
    list_filter = (("plan", RelatedOnlyFieldListFilter), "is_active", "created_at")
    list_select_related = ("plan",)
    search_fields = ("name", "api_keys__prefix")
    inlines = (MembershipInline, APIKeyInline)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        organizations: QuerySet[Organization] = (
            super()
            .get_queryset(request)
            .annotate(
                member_count=Count("memberships", distinct=True),
                key_count=Count("api_keys", filter=Q(api_keys__revoked_at=None), distinct=True),
            )
        )
        return organizations

    @display(description="members", ordering="member_count")
    def member_count(self, organization: Organization) -> int:
        count: int = organization.member_count  # type: ignore[attr-defined]
        return count

    @display(description="keys", ordering="key_count")
    def key_count(self, organization: Organization) -> int:
        count: int = organization.key_count  # type: ignore[attr-defined]
        return count

    def get_form(self, request: HttpRequest, obj: Organization | None = None, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, **kwargs)
        form.may_keep_more = request.user.is_superuser
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Organization | None = None) -> tuple[str, ...]:
        # What an organization may use, and whether it may at all, is the operator's to say.
        return ("created_at",) if request.user.is_superuser else ("plan", "is_active", "created_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser and super().has_add_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser and super().has_delete_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Organization, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        services.forget_cached_keys()


@admin.register(APIKey)
class APIKeyAdmin(AuditHistory, OrganizationScoped, ModelAdmin):
    """Keys are issued, revoked and rotated, never deleted: what they did stays on record."""

    form = APIKeyForm
    list_per_page = 50
    list_display = (
        "prefix",
        "name",
        "organization",
        "status",
        "scope_names",
        "budget_usd",
        "last_used_at",
        "created_at",
    )
    list_filter = (("organization", RelatedOnlyFieldListFilter), "created_at", "expires_at", "revoked_at")
    list_select_related = ("organization",)
    search_fields = ("prefix", "name", "organization__name")
    actions = ("revoke_selected", "rotate_selected")
    actions_submit_line = ("revoke_this", "rotate_this")
    fieldsets = (
        (None, {"fields": ("prefix", "organization", "status", "name", "scopes", "budget_usd", "expires_at")}),
        ("History", {"fields": ("created_at", "created_by", "last_used_at", "revoked_at")}),
    )
    add_fieldsets = ((None, {"fields": ("organization", "name", "scopes", "budget_usd", "expires_at")}),)

    @display(description="scopes")
    def scope_names(self, key: APIKey) -> str:
        return key.scope_names()

    @display(description="status", label=_STATUS_COLOURS)
    def status(self, key: APIKey) -> str:
        return key.status()

    def get_readonly_fields(self, request: HttpRequest, obj: APIKey | None = None) -> tuple[str, ...]:
        facts = ("prefix", "status", "created_at", "created_by", "last_used_at", "revoked_at")
        return (*facts, "organization") if obj else facts

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "organization":
            kwargs["queryset"] = managed_organizations(request)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:
        values = {name: form.cleaned_data[name] for name in ("name", "scopes", "budget_usd", "expires_at")}
        if change:
            services.update_api_key(obj, **values)
            return
        key, raw = services.create_api_key(obj.organization, created_by=_person(request), **values)
        # The form's own object becomes the key that was made, for the audit log.
        obj.__dict__.update(key.__dict__)
        _remember(request, key, raw)

    def response_add(self, request: HttpRequest, obj: APIKey, post_url_continue: str | None = None) -> HttpResponse:
        return self._issued(request)

    def response_change(self, request: HttpRequest, obj: APIKey) -> HttpResponse:
        for chosen in self.get_actions_submit_line(request, obj.pk):
            if chosen.action_name in request.POST:
                chosen.method(request, obj)
        if _remembered(request):
            return self._issued(request)
        response: HttpResponse = super().response_change(request, obj)
        return response

    def get_actions_submit_line(self, request: HttpRequest, object_id: Any) -> list[UnfoldAction]:
        key = self.get_object(request, str(object_id))
        if key is None or key.revoked_at is not None or not self.has_change_permission(request, key):
            return []
        actions: list[UnfoldAction] = super().get_actions_submit_line(request, object_id)
        return actions

    @action(description="Revoke")
    def revoke_this(self, request: HttpRequest, obj: APIKey) -> None:
        self._revoke(request, obj)
        self.message_user(request, f"The key {obj} is revoked.", messages.SUCCESS)

    @action(description="Rotate")
    def rotate_this(self, request: HttpRequest, obj: APIKey) -> None:
        self._rotate(request, obj)

    @admin.action(description="Revoke selected keys", permissions=["change"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        keys = self._manageable(request, queryset)
        for key in keys:
            self._revoke(request, key)
        self.message_user(request, f"Revoked: {len(keys)}.", messages.SUCCESS)

    @admin.action(description="Rotate selected keys", permissions=["change"])
    def rotate_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> HttpResponse | None:
        keys = self._manageable(request, queryset)
        for key in keys:
            self._rotate(request, key)
        return self._issued(request) if keys else None

    def _manageable(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> list[APIKey]:
        """Those of the selection that can be changed by this person; says so when some are left out."""
        selected = list(queryset.select_related("organization"))
        keys = [key for key in selected if key.revoked_at is None and self.has_change_permission(request, key)]
        if left_out := len(selected) - len(keys):
            self.message_user(
                request,
                f"Left out, because they are revoked or of organizations that you do not manage: {left_out}.",
                messages.WARNING,
            )
        return keys

    def _revoke(self, request: HttpRequest, key: APIKey) -> None:
        services.revoke_api_key(key)
        self.log_change(request, key, "Revoked.")

    def _rotate(self, request: HttpRequest, key: APIKey) -> None:
        successor, raw = services.rotate_api_key(key, created_by=_person(request))
        self.log_change(request, key, f"Rotated: {successor.prefix} follows.")
        self.log_addition(request, successor, f"Follows {key.prefix}.")
        _remember(request, successor, raw)

    def _issued(self, request: HttpRequest) -> HttpResponse:
        """The only page that ever shows raw keys. It answers the very request that made them, so that they are kept
        nowhere on the way: neither in a session nor in a cookie. As all pages of the admin it says "no-store"."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Copy the key now",
            "issued": _remembered(request),
        }
        return TemplateResponse(request, "admin/accounts/apikey/issued.html", context)


@admin.register(User)
class UserAdmin(AuditHistory, SuperusersOnly, DjangoUserAdmin, ModelAdmin):  # type: ignore[type-arg]
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_per_page = 50
    list_display = ("username", "email", "is_active", "is_staff", "is_superuser", "organization_names", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active", ("memberships__organization", RelatedOnlyFieldListFilter))
    search_fields = ("username", "email", "first_name", "last_name", "memberships__organization__name")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("History", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        people: QuerySet[User] = super().get_queryset(request).prefetch_related("memberships__organization")
        return people

    @display(description="organizations")
    def organization_names(self, user: User) -> str:
        return ", ".join(membership.organization.name for membership in user.memberships.all())


_ISSUED = "_accounts_issued_keys"


def _remember(request: HttpRequest, key: APIKey, raw: str) -> None:
    """Hands a raw key on to the page that answers this very request."""
    setattr(request, _ISSUED, [*_remembered(request), (key, raw)])


def _remembered(request: HttpRequest) -> list[tuple[APIKey, str]]:
    issued: list[tuple[APIKey, str]] = getattr(request, _ISSUED, [])
    return issued


def _person(request: HttpRequest) -> User | None:
    return request.user if isinstance(request.user, User) else None
