"""Unpriced use in the admin: what was used at an unknown price, and pricing it later, seen before it is agreed to."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSplitDateTimeWidget, UnfoldAdminTextInputWidget

from accounts.scoping import SuperusersOnly
from analytics import unpriced
from analytics.unpriced import Unpriced
from audit import history
from chat import repricing
from chat.admin import formats
from chat.admin.listing import ReadOnly
from chat.models import Repricing
from chat.repricing import Draft, NotAgreeable
from llmchat.lib.wording import counted
from providers.models import LanguageModel

#: Seconds that somebody waits for the next page while rows are counted or priced; the rest is the background worker's.
_PATIENCE: Final = 1.5
_STATES: Final = {
    Repricing.State.COUNTING: "cancelled",
    Repricing.State.COUNTED: "interrupted",
    Repricing.State.FILLING: "cancelled",
    Repricing.State.DONE: "succeeded",
    Repricing.State.CANCELLED: "failed",
}
_WORKING: Final = frozenset({Repricing.State.COUNTING, Repricing.State.FILLING})


def _dollars(label: str, *, required: bool = True, help_text: str = "") -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        min_value=0,
        max_digits=14,
        decimal_places=6,
        required=required,
        help_text=help_text,
        widget=UnfoldAdminDecimalFieldWidget(),
    )


class DraftForm(forms.Form):
    """A price that begins in the past, in US dollars per million tokens."""

    effective_from = forms.SplitDateTimeField(label="in force from (UTC)", widget=UnfoldAdminSplitDateTimeWidget())
    input_per_million = _dollars("input")
    output_per_million = _dollars("output", help_text="Reasoning included.")
    cached_input_per_million = _dollars("cached input", required=False, help_text="Empty: as input.")
    cache_write_per_million = _dollars("cache write", required=False, help_text="Empty: as input.")
    reason = forms.CharField(
        max_length=300, help_text="Goes into the audit trail.", widget=UnfoldAdminTextInputWidget()
    )


@admin.register(Repricing)
class RepricingAdmin(ReadOnly, SuperusersOnly, ModelAdmin):
    list_display = ("model", "status", "interactions", "amount", "reason", "by", "begun")
    list_select_related = ("model",)
    list_before_template = "admin/chat/repricing/unpriced.html"
    search_fields = ("model__name",)
    search_help_text = "The model's name"
    list_title = "Unpriced use"
    empty_title = "Nothing has been priced later yet"
    empty_text = "What is priced after it was used is listed here, with who agreed to it."

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        lines = [_line(found) for found in unpriced.unpriced()] if self.has_view_permission(request) else []
        response: HttpResponse = super().changelist_view(request, {"unpriced": lines, **(extra_context or {})})
        return response

    @display(description="Status")
    def status(self, run: Repricing) -> SafeString:
        return format_html(
            '<span class="rec-badge rec-{}">{}</span>', _STATES[Repricing.State(run.state)], run.get_state_display()
        )

    @display(description="Interactions")
    def interactions(self, run: Repricing) -> str:
        return formats.count(_so_far(run)[0])

    @display(description="Amount")
    def amount(self, run: Repricing) -> str:
        return formats.money(_so_far(run)[1])

    @display(description="Begun (UTC)")
    def begun(self, run: Repricing) -> str:
        return f"{run.created_at:%Y-%m-%d %H:%M}"

    # --- The page of a run -----------------------------------------------------------------------------------------
    def page_context(self, request: HttpRequest, row: Repricing) -> dict[str, Any]:
        return {
            "title": "Pricing of old rows",
            "run": row,
            "badge": _STATES[Repricing.State(row.state)],
            "figures": _figures(row),
            "is_working": row.state in _WORKING,
            "history": history.url_of(row.model),
        }

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("price/<int:model>/", view(self.price), name="chat_repricing_price"),
            path("<uuid:pk>/agree/", view(self.agree), name="chat_repricing_agree"),
            path("<uuid:pk>/cancel/", view(self.cancel), name="chat_repricing_cancel"),
            *super().get_urls(),
        ]

    def price(self, request: HttpRequest, model: int) -> HttpResponse:
        """Asks for the price, and counts what it would do."""
        self._insist(request)
        row = get_object_or_404(LanguageModel, pk=model)
        found = [line for line in unpriced.unpriced() if line.catalogued == row]
        by = request.user.get_username()
        first = min((line.since for line in found), default=None)
        form = DraftForm(request.POST or None, initial={"effective_from": first})
        if request.method == "POST" and "as_recorded" in request.POST:
            run = repricing.begin(row, draft=None, reason="By the prices on record", by=by)
            return self._go_on(run)
        if request.method == "POST" and form.is_valid():
            values = dict(form.cleaned_data)
            reason = values.pop("reason")
            try:
                return self._go_on(repricing.begin(row, draft=Draft(**values), reason=reason, by=by))
            except ValidationError as error:
                for name, words in error.message_dict.items():
                    form.add_error(name if name in form.fields else None, words)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"Price {row.name}",
            "form": form,
            "row": row,
            "lines": [_line(line) for line in found],
            "prices": row.prices.order_by("-effective_from"),
        }
        return TemplateResponse(request, "admin/chat/repricing/price.html", context)

    def agree(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        return self._decide(request, pk, repricing.agree)

    def cancel(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        return self._decide(request, pk, repricing.cancel)

    def _decide(self, request: HttpRequest, pk: UUID, decide: Any) -> HttpResponse:
        self._insist(request)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        run = Repricing.objects.select_related("model").filter(pk=pk).first()
        if run is None:
            raise Http404
        try:
            run = decide(run)
        except NotAgreeable as problem:
            self.message_user(request, str(problem), messages.ERROR)
            return HttpResponseRedirect(_page(run))
        return self._go_on(run)

    def _go_on(self, run: Repricing) -> HttpResponse:
        if run.state in _WORKING:
            unpriced.work(run, seconds=_PATIENCE)
        return HttpResponseRedirect(_page(run))

    def _insist(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied


def _page(run: Repricing) -> str:
    return reverse("admin:chat_repricing_change", args=[run.pk])


def _line(found: Unpriced) -> dict[str, Any]:
    """A line of the table, with where to see the rows and where to price them."""
    wanted = urlencode(
        {
            "price": "unpriced",
            "provider": found.provider,
            "model": found.model,
            "created_at_from": f"{found.since:%Y-%m-%d}",
            "created_at_to": f"{found.until:%Y-%m-%d}",
        }
    )
    add = urlencode(
        {
            "provider": found.provider,
            "name": found.model,
            "upstream_id": found.model.removeprefix(f"{found.provider}/"),
        }
    )
    model = found.catalogued
    return {
        "provider": found.provider,
        "model": found.model,
        "interactions": formats.count(found.interactions),
        "counted": counted(found.interactions, "interaction"),
        "since": found.since,
        "rows": f"{reverse('admin:chat_interaction_changelist')}?{wanted}",
        "page": reverse("admin:providers_languagemodel_change", args=[model.pk]) if model else None,
        "price": reverse("admin:chat_repricing_price", args=[model.pk]) if model else None,
        "add": f"{reverse('admin:providers_languagemodel_add')}?{add}",
    }


def _so_far(run: Repricing) -> tuple[int, Any]:
    if run.agreed_at is None:
        return run.counted_interactions, run.counted_cost
    return run.filled_interactions, run.filled_cost


def _figures(run: Repricing) -> list[dict[str, str]]:
    interactions, cost = _so_far(run)
    would = "" if run.agreed_at else "would be "
    attempts = run.counted_attempts if run.agreed_at is None else run.filled_attempts
    of = f"of about {run.counted_interactions:,} counted" if run.agreed_at else ""
    exact = formats.exact_money(cost)
    return [
        {"label": f"Interactions {would}priced", "value": f"{interactions:,}", "remark": of},
        {"label": f"Attempts {would}priced", "value": f"{attempts:,}", "remark": ""},
        {"label": "Amount", "value": formats.money(cost), "remark": exact if exact != formats.money(cost) else ""},
    ]
