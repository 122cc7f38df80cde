"""Rows of which every change is entered in the audit trail, in the transaction of the change.

    class Plan(Audited): ...

For the small tables that people administer, never for the record: each change costs two queries more. Whatever is
saved, updated or deleted by the ORM is entered; `bulk_create(ignore_conflicts=True)`, which does not say what it added,
is the caller's to enter, as are statements past the ORM.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from django.db import DEFAULT_DB_ALIAS, models, transaction

from audit import entries
from audit.models import Action, Entry

Row = TypeVar("Row", bound=models.Model)

#: Fields that move on by themselves.
_INCIDENTAL = frozenset({"created_at", "updated_at", "date_joined", "last_login", "last_used_at"})

Values = dict[str, Any]


class AuditedQuerySet(models.QuerySet[Row]):
    """Enters what is changed by the dozen."""

    def update(self, **kwargs: Any) -> int:
        if not _worth_entering(self.model, kwargs):
            return super().update(**kwargs)
        with transaction.atomic(using=self.db):
            chosen = self.model._base_manager.using(self.db).filter(pk__in=list(self.values_list("pk", flat=True)))
            before = {row.pk: row for row in chosen}
            changed = super().update(**kwargs)
            after = self.model._base_manager.using(self.db).filter(pk__in=list(before))
            entries.store([entry for row in after if (entry := _changed(before[row.pk], row)) is not None])
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        with transaction.atomic(using=self.db):
            created = super().bulk_create(objs, *args, **kwargs)
            if not kwargs.get("ignore_conflicts") and not kwargs.get("update_conflicts"):
                entries.store([_added(row) for row in created])
        return created


class Audited(models.Model):
    """The base of a model whose rows people administer. `audit_ignored`: further fields that nobody need know of."""

    audit_ignored: ClassVar[Collection[str]] = ()

    if not TYPE_CHECKING:  # each model's own type is found by the checker itself
        objects = AuditedQuerySet.as_manager()

    class Meta:
        abstract = True

    def save_base(
        self,
        raw: bool = False,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """As Django's; with the entry, in one transaction."""
        using = using or DEFAULT_DB_ALIAS
        fields = None if update_fields is None else list(update_fields)
        save = super().save_base
        if fields is not None and not _worth_entering(type(self), fields):
            save(raw, force_insert, force_update, using, fields)
            return
        rows = type(self)._base_manager.using(using)
        with transaction.atomic(using=using):
            before = None if self.pk is None or force_insert else rows.filter(pk=self.pk).first()
            save(raw, force_insert, force_update, using, fields)
            # As the database has it: a form's "5" is 5 by now.
            after = rows.get(pk=self.pk)
            entry = _added(after) if before is None else _changed(before, after)
            if entry is not None:
                entries.store([entry])


def note_deletion(sender: type[models.Model], instance: models.Model, **kwargs: Any) -> None:
    """A row goes, by itself or with another; Django tells of it within the transaction."""
    gone = {name: (value, None) for name, value in _values(instance).items() if value not in (None, "")}
    entries.store([entries.of_fields(instance, Action.DELETED, gone)])


def _worth_entering(model: type[models.Model], names: Iterable[str]) -> bool:
    ignored = _ignored(model)
    return any(name not in ignored for name in names)


def _ignored(model: type[models.Model]) -> frozenset[str]:
    return _INCIDENTAL.union(getattr(model, "audit_ignored", ()))


def _added(row: models.Model) -> Entry:
    there = {name: (None, value) for name, value in _values(row).items() if value not in (None, "")}
    return entries.of_fields(row, Action.ADDED, there)


def _changed(before: models.Model, after: models.Model) -> Entry | None:
    """What differs; None when nothing does."""
    earlier, later = _values(before), _values(after)
    changes = {name: (earlier[name], value) for name, value in later.items() if value != earlier[name]}
    if not changes:
        return None
    return entries.of_fields(after, Action.CHANGED, _named(after, changes))


def _values(row: models.Model) -> Values:
    """What is worth entering of a row, by its fields' names, without its key."""
    ignored = _ignored(type(row))
    return {
        field.name: field.value_from_object(row)
        for field in row._meta.concrete_fields
        if not field.primary_key and field.name not in ignored
    }


def _named(row: models.Model, changes: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, Any]]:
    """With the names of the rows that changed references mean."""
    found = {}
    for name, (before, after) in changes.items():
        field = row._meta.get_field(name)
        related = field.related_model if field.is_relation else None
        if isinstance(related, type):
            rows = related._base_manager.in_bulk([key for key in (before, after) if key is not None])
            found[name] = (_with_name(before, rows), _with_name(after, rows))
        else:
            found[name] = (before, after)
    return found


def _with_name(key: Any, rows: Mapping[Any, models.Model]) -> Any:
    return f"{rows[key]} ({key})" if key in rows else key
