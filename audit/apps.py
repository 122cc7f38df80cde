"""Django's registration of the app."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.db.models.signals import post_delete


class AuditConfig(AppConfig):
    name = "audit"
    verbose_name = "Audit trail"

    def ready(self) -> None:
        from audit import tracking

        # Django alone knows all that goes with a row. Connected by sender: a listener to all would slow down each
        # deletion in the record.
        for model in apps.get_models():
            if issubclass(model, tracking.Audited):
                post_delete.connect(tracking.note_deletion, sender=model, dispatch_uid="audit")
