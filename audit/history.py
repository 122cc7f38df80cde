"""The way from a thing's page in the admin to its entries in the audit trail."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse


def url_of(row: Model) -> str:
    """The list of the entries about a row."""
    return url(row._meta.label_lower, row.pk)


def url(object_type: str, object_id: object) -> str:
    wanted = urlencode({"object": f"{object_type}:{object_id}"})
    return f"{reverse('admin:audit_entry_changelist')}?{wanted}"


class AuditHistory:
    """For a `ModelAdmin` of audited rows: "History" leads to the audit trail, which says who may read it."""

    opts: Any

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(url(self.opts.label_lower, object_id))
