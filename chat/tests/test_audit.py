"""Every change to what people administer leaves an entry, in the transaction of the change, without secrets."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.utils import timezone

from accounts import services as accounts
from accounts.models import APIKey, Membership, Organization, Plan, User
from accounts.tests.factories import MembershipFactory, OrganizationFactory, UserFactory
from audit import actors, entries
from audit.models import Action, ActorKind, Entry
from audit.retention import purge
from audit.tracking import Audited, AuditedQuerySet
from chat.models import Attempt, Change, Conversation, Interaction
from chat.tests.factories import InteractionFactory, id_at
from providers import services as providers
from providers.models import LanguageModel, Price

pytestmark = pytest.mark.django_db


def _latest() -> Entry:
    entry = Entry.objects.order_by("-id").first()
    assert entry is not None
    return entry


def _model() -> LanguageModel:
    return LanguageModel.objects.create(name="acme-1", provider="gemini", upstream_id="acme-1")


def test_a_change_is_entered_with_its_fields_before_and_after():
    plan = Plan.objects.create(slug="gold", name="Gold", requests_per_hour=10)
    assert _latest().action == Action.ADDED
    plan.requests_per_hour = 20
    plan.save()
    entry = _latest()
    assert (entry.action, entry.object_type, entry.object_id, entry.object_name) == (
        Action.CHANGED,
        "accounts.plan",
        "gold",
        "Gold",
    )
    assert entry.changes == {"requests_per_hour": [10, 20]}


def test_what_changes_nothing_leaves_no_entry(member):
    before = Entry.objects.count()
    member.organization.save()
    member.user.last_login = timezone.now()
    member.user.save(update_fields=["last_login"])
    APIKey.objects.filter(pk=member.key.pk).update(last_used_at=timezone.now())
    assert Entry.objects.count() == before


def test_an_entry_belongs_to_the_organization_of_its_row(owner):
    key, _ = accounts.create_api_key(owner.organization, name="ours")
    assert _latest().organization_id == owner.organization.pk
    assert _latest().object_id == str(key.pk)
    owner.organization.is_active = False
    owner.organization.save()
    assert (_latest().organization_id, _latest().changes) == (owner.organization.pk, {"is_active": [True, False]})


def test_keys_leave_no_secret(owner):
    key, raw = accounts.create_api_key(owner.organization, name="ours")
    assert _latest().changes["digest"] == [None, entries.MASK]
    said = str(list(Entry.objects.values()))
    assert raw not in said
    assert key.digest not in said


def test_passwords_leave_no_secret():
    person = UserFactory.create()
    person.set_password("a wholly new pass phrase")
    person.save()
    assert _latest().changes == {"password": [entries.MASK, entries.MASK]}
    assert person.password not in str(list(Entry.objects.values()))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("secret", "abc", entries.MASK),
        ("webhook_secret", "abc", entries.MASK),
        ("webhook_url", "https://hooks.example.org/T0/B1/x?token=1", f"https://hooks.example.org/{entries.MASK}"),
        ("url", "https://ana:pass@example.org/a", f"https://example.org/{entries.MASK}"),
        ("password", "", ""),
        ("tokens_per_day", 5, 5),
        ("note", "call with sk-abcdefghijkl please", "call with [redacted] please"),
        ("settings", {"api_key": "x", "secret": "abc"}, {"api_key": "x", "secret": entries.MASK}),
        ("note", "nul \x00", "nul \ufffd"),
    ],
)
def test_secrets_are_masked_by_name_and_by_form(name, value, shown):
    assert entries.masked(name, value) == shown


def test_revoking_and_rotating_are_called_so(owner):
    _, _ = accounts.rotate_api_key(owner.key)
    assert _latest().action == Action.ROTATED
    assert "successor" in _latest().details
    accounts.revoke_api_key(owner.key)
    assert _latest().action == Action.REVOKED
    count = Entry.objects.count()
    accounts.revoke_api_key(owner.key)
    assert Entry.objects.count() == count


def test_what_is_updated_by_the_dozen_is_entered_row_by_row():
    _model()
    LanguageModel.objects.create(name="acme-2", provider="gemini", upstream_id="acme-2", is_enabled=False)
    Entry.objects.all().delete()
    assert providers.set_enabled(LanguageModel.objects.filter(name__startswith="acme"), enabled=False) == 1
    assert [(entry.object_name, entry.changes) for entry in Entry.objects.all()] == [
        ("acme-1", {"is_enabled": [True, False]})
    ]


def test_people_and_rows_added_by_the_dozen_are_entered():
    User.objects.filter(pk=UserFactory.create().pk).update(is_superuser=True)
    assert _latest().changes == {"is_superuser": [False, True]}
    Plan.objects.bulk_create([Plan(slug="one", name="One"), Plan(slug="two", name="Two")])
    assert {entry.object_id for entry in Entry.objects.filter(action=Action.ADDED, object_type="accounts.plan")} >= {
        "one",
        "two",
    }


def test_what_goes_with_another_row_is_entered():
    membership = MembershipFactory.create(role=Membership.Role.OWNER)
    pk = membership.pk
    membership.user.delete()
    entry = Entry.objects.get(object_type="accounts.membership", object_id=str(pk), action=Action.DELETED)
    assert entry.changes["role"] == ["owner", None]
    assert entry.organization_id == membership.organization_id


def test_changed_references_are_named():
    organization = OrganizationFactory.create(name="Acme")
    organization.plan = Plan.objects.get(slug="premium")
    organization.save()
    before, after = _latest().changes["plan"]
    assert (before, after) == ("Unlimited (unlimited)", f"{organization.plan} (premium)")


def test_a_price_is_entered_and_so_is_its_withdrawal():
    price = providers.set_price(
        _model(),
        input_per_million=Decimal(1),
        output_per_million=Decimal(2),
        effective_from=timezone.now() + dt.timedelta(days=1),
    )
    assert (_latest().action, _latest().object_id) == (Action.ADDED, str(price.pk))
    providers.withdraw_price(price)
    assert _latest().action in {Action.DELETED, Action.WITHDRAWN}


def _rename(plan):
    plan.name = "Silver"
    plan.save()


_WAYS = {
    "save": _rename,
    "update": lambda plan: Plan.objects.filter(slug="gold").update(name="Silver"),
    "bulk": lambda plan: Plan.objects.bulk_create([Plan(slug="more", name="Silver")]),
    "delete": lambda plan: plan.delete(),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("way", sorted(_WAYS))
def test_a_change_whose_entry_cannot_be_written_does_not_happen(way, monkeypatch):
    plan = Plan.objects.create(slug="gold", name="Gold")

    def refuse(found):
        raise OSError("the trail is full")

    monkeypatch.setattr(entries, "store", refuse)
    with pytest.raises(OSError, match="full"):
        _WAYS[way](plan)
    assert list(Plan.objects.filter(slug__in=["gold", "more"]).values_list("name", flat=True)) == ["Gold"]


@pytest.mark.django_db(transaction=True)
def test_an_entry_outside_of_a_transaction_is_refused():
    with pytest.raises(entries.NoTransaction):
        entries.record(Action.CHANGED, object_type="accounts.plan")
    with transaction.atomic():
        entries.record(Action.CHANGED, object_type="accounts.plan")
    assert Entry.objects.count() == 1


def test_a_command_is_named_with_its_account(monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "create_organization", "Acme"])
    accounts.create_organization("Acme", plan=Plan.objects.get(slug="free"))
    assert _latest().actor_kind == ActorKind.COMMAND
    assert _latest().actor.startswith("manage.py create_organization (")


def test_a_server_and_a_task_are_the_system(monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "serve"])
    assert actors.current() == actors.Actor(kind=ActorKind.SYSTEM, name="serve")
    with actors.acting("retention"):
        assert actors.current().name == "retention"


def test_the_record_is_not_audited():
    before = Entry.objects.count()
    organization = OrganizationFactory.create()
    there = Entry.objects.count()
    InteractionFactory.create(organization=organization)
    assert Entry.objects.count() == there
    assert there > before
    for model in (Interaction, Attempt, Conversation, Change):
        assert not issubclass(model, Audited)


def test_every_audited_model_enters_what_is_changed_by_the_dozen():
    audited = [model for model in apps.get_models() if issubclass(model, Audited)]
    assert {Plan, Organization, User, Membership, APIKey, LanguageModel, Price} <= set(audited)
    for model in audited:
        assert isinstance(model.objects.all(), AuditedQuerySet), model
        assert isinstance(model._default_manager.all(), AuditedQuerySet), model
    assert connection.vendor


def test_old_entries_go_when_the_setting_says_so(settings):
    old = Entry(id=id_at(timezone.now() - dt.timedelta(days=40)), actor_kind=ActorKind.SYSTEM, action=Action.CHANGED)
    old.save()
    Plan.objects.create(slug="gold", name="Gold")
    assert purge() == 0
    settings.AUDIT_RETENTION_DAYS = 30
    assert purge() == 1
    assert not Entry.objects.filter(pk=old.pk).exists()
    assert (_latest().action, _latest().details["entries"]) == (Action.REMOVED, 1)
    assert purge() == 0
