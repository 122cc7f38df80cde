"""Who sees and changes which rows in the admin: superusers all, other staff those of the organizations they belong to.

What a person may do there follows from the role in the row's own organization: every member looks, owners and
administrators manage. Django's permissions by model do not count; they know no organizations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import Model, QuerySet
from django.http import HttpRequest

from accounts.models import Membership, Organization, User

if TYPE_CHECKING:
    from django.contrib.admin.options import BaseModelAdmin

    _Admin = BaseModelAdmin[Any]
else:
    _Admin = object

MANAGERS = frozenset({Membership.Role.OWNER, Membership.Role.ADMIN})

_REMEMBERED = "_accounts_roles"


def roles_of(request: HttpRequest) -> dict[UUID, str]:
    """The organizations that the person of this request belongs to, with the role in each. Asked once per request."""
    roles: dict[UUID, str] | None = getattr(request, _REMEMBERED, None)
    if roles is None:
        user = request.user
        roles = dict(user.memberships.values_list("organization_id", "role")) if isinstance(user, User) else {}
        setattr(request, _REMEMBERED, roles)
    return roles


def managed_organizations(request: HttpRequest) -> QuerySet[Organization]:
    """The organizations whose keys and members the person may manage."""
    if _sees_all(request):
        return Organization.objects.all()
    return Organization.objects.filter(pk__in=[pk for pk, role in roles_of(request).items() if role in MANAGERS])


def scope_of(request: HttpRequest) -> frozenset[UUID] | None:
    """The ids of `visible_organizations`, or None for all, asked once per request: for what is not read through a
    `ModelAdmin`."""
    person = request.user
    return _visible(person, lambda: roles_of(request)) if isinstance(person, User) else frozenset()


class OrganizationScoped(_Admin):
    """For a `ModelAdmin` or an inline whose rows belong to an organization; goes before unfold's class.

    `organization_lookup`: the way from a row to its organization, as in a filter ("interaction__organization"). Filters
    by other tables must be `RelatedOnlyFieldListFilter`s, lest they list other organizations' rows.
    """

    organization_lookup = "organization"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        if _sees_all(request):
            return rows
        return rows.filter(**{f"{self.organization_lookup}__in": list(roles_of(request))})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, obj, frozenset(Membership.Role))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, obj, MANAGERS)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, obj, MANAGERS)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, obj, MANAGERS)

    def _may(self, request: HttpRequest, obj: Any, needed: frozenset[str]) -> bool:
        """Whether the person has one of the roles in the row's organization, or, without a row, in any."""
        if not (request.user.is_active and request.user.is_staff):
            return False
        if _sees_all(request):
            return True
        roles = roles_of(request)
        if not isinstance(obj, Model):
            return any(role in needed for role in roles.values())
        return roles.get(self._organization_of(obj)) in needed

    def _organization_of(self, obj: Model) -> UUID:
        if isinstance(obj, Organization):  # an inline is asked about the row it stands in
            return obj.pk
        identifier: UUID = attrgetter(f"{self.organization_lookup.replace('__', '.')}_id")(obj)
        return identifier


class SuperusersOnly(_Admin):
    """For what the operator alone manages."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return _sees_all(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _sees_all(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _sees_all(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _sees_all(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _sees_all(request)


def sees_all(person: User) -> bool:
    """Whether the person is the operator, to whom every organization's rows are open."""
    return person.is_active and person.is_staff and person.is_superuser


def visible_organizations(person: User) -> QuerySet[Organization]:
    """The organizations whose rows the person may see, in the admin and in what is sent on their behalf."""
    visible = _visible(person, person.organization_ids)
    return Organization.objects.all() if visible is None else Organization.objects.filter(pk__in=visible)


def _visible(person: User, belongs_to: Callable[[], Iterable[UUID]]) -> frozenset[UUID] | None:
    """The one rule: None for all, to the operator; to other staff those that they belong to; to anybody else none."""
    if sees_all(person):
        return None
    return frozenset(belongs_to()) if person.is_active and person.is_staff else frozenset()


def _sees_all(request: HttpRequest) -> bool:
    return isinstance(request.user, User) and sees_all(request.user)
