"""Pages about two interactions: the comparison, and the form that asks another model the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from accounts.scoping import MANAGERS, OrganizationScoped
from chat import rerun
from chat.admin import comparing
from chat.models import Interaction
from llmchat.lib.envelope import APIError
from providers.models import LanguageModel

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    _Admin = ModelAdmin[Any]
else:
    _Admin = object

#: Characters of a model's name.
_LONGEST = 256


class Beside(OrganizationScoped, _Admin):
    """For the `ModelAdmin` of interactions."""

    def beside_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("compare/", wrap(self.compare), name="chat_interaction_compare"),
            path("<uuid:pk>/run-again/", wrap(self.run_again), name="chat_interaction_run_again"),
        ]

    def may_run_again(self, request: HttpRequest, row: Interaction) -> bool:
        """It spends the organization's money: who manages it."""
        return self._may(request, row, MANAGERS)

    @admin.action(description="Compare the two selected interactions")
    def compare_selected(self, request: HttpRequest, queryset: QuerySet[Interaction]) -> HttpResponse | None:
        found = list(queryset.order_by("id").values_list("pk", flat=True)[:3])
        if len(found) != 2:
            self.message_user(request, "Select two interactions to compare, no more and no fewer.", messages.WARNING)
            return None
        return HttpResponseRedirect(comparison_of(*found))

    def compare(self, request: HttpRequest) -> HttpResponse:
        """`?of=ID&of=ID`, or `?of=ID&with=ID` as the form on an interaction's page sends it."""
        named = [text.strip() for text in (*request.GET.getlist("of"), *request.GET.getlist("with"))]
        rows = [self._row(request, text) for text in dict.fromkeys(named)]
        missing = [text for text, row in zip(dict.fromkeys(named), rows, strict=True) if row is None]
        if missing or len(rows) != 2:
            problem = f"There is no interaction {missing[0][:80]!r}." if missing else "A comparison is of two."
            self.message_user(request, f"{problem} Select two in the list, or give the other's id.", messages.ERROR)
            known = next((row for row in rows if row is not None), None)
            return HttpResponseRedirect(
                reverse("admin:chat_interaction_change", args=[known.pk])
                if known
                else reverse("admin:chat_interaction_changelist")
            )
        left, right = (row for row in rows if row is not None)
        context = {
            **self.admin_site.each_context(request),
            "title": "Compare",
            "opts": self.opts,
            "sides": [left, right],
            "texts": comparing.texts(left, right),
            "figures": comparing.figures(left, right),
            "settings": comparing.settings(left, right),
            "swapped": comparison_of(right.pk, left.pk),
            "is_again": right.metadata.get(rerun.OF) == str(left.pk),
        }
        return TemplateResponse(request, "admin/chat/interaction/compare.html", context)

    def run_again(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Asks which model, asks it, and shows both answers."""
        row = self._row(request, str(pk))
        if row is None:
            raise Http404
        if not self.may_run_again(request, row):
            raise PermissionDenied
        model = request.POST.get("model", "").strip()
        if request.method == "POST" and 0 < len(model) <= _LONGEST and model.isprintable():
            try:
                token = UUID(request.POST.get("token", ""))
            except ValueError:
                token = uuid4()
            try:
                outcome = rerun.run_again(row, model=model, by=request.user.get_username(), token=token)
            except rerun.NotOnRecord:
                self.message_user(request, "The question is not on record as it was asked.", messages.ERROR)
            except APIError as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                if outcome.problem:
                    self.message_user(request, outcome.problem, messages.ERROR)
                # To load it again asks nobody again.
                return HttpResponseRedirect(comparison_of(row.pk, outcome.interaction_id))
        elif request.method == "POST":
            self.message_user(request, "Name a model, in 256 characters at most.", messages.ERROR)
        context = {
            **self.admin_site.each_context(request),
            "title": "Run again",
            "opts": self.opts,
            "row": row,
            "may_be_run": rerun.may_be_run(row),
            "model": model or row.model_requested,
            "models": LanguageModel.objects.filter(is_enabled=True).values_list("name", flat=True)[:500],
            "token": uuid4(),
        }
        return TemplateResponse(request, "admin/chat/interaction/run_again.html", context)

    def _row(self, request: HttpRequest, text: str) -> Interaction | None:
        """The interaction of this id, if the person may see it."""
        try:
            row: Interaction | None = self.get_queryset(request).select_related("organization__plan").get(pk=UUID(text))
        except (ValueError, ValidationError, Interaction.DoesNotExist):
            return None
        return row


def comparison_of(left: UUID, right: UUID) -> str:
    """The address of the comparison."""
    return f"{reverse('admin:chat_interaction_compare')}?of={left}&of={right}"
