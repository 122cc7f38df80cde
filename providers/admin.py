"""Models, aliases, prices and health in the admin. What is more than a row saved is done by `providers.services`.

Nothing here belongs to an organization: who may see and change it is said by Django's own permissions.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.contrib import admin, messages
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet
from django.forms import ChoiceField, Field
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import BooleanRadioFilter, DropdownFilter
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget

from audit.history import AuditHistory
from llmchat.lib.wording import counted
from providers import registry, services
from providers.models import LanguageModel, ModelAlias, ModelHealth, Price

_HEALTH_COLOURS = {"online": "success", "degraded": "warning", "offline": "danger"}
_PRICE_COLOURS = {"in force": "success", "planned": "info"}
_EMPTY_HINT_TEMPLATE = "admin/providers/empty_hint.html"


class CatalogueAdmin(AuditHistory, ModelAdmin):
    """Rows that the running processes hold a picture of: what is changed here, this one sees at once.

    `empty_hint`: what to do when there are no rows at all.
    """

    empty_hint = ""
    list_before_template = _EMPTY_HINT_TEMPLATE
    list_filter_submit = True
    list_per_page = 50

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        services.note_change()

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        services.note_change()

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        super().delete_model(request, obj)
        services.note_change()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        super().delete_queryset(request, queryset)
        services.note_change()


class FactsAdmin(ModelAdmin):
    """Rows that are read here and changed nowhere."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ProviderFilter(DropdownFilter):
    title = "provider"
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        there = model_admin.model.objects.order_by("provider").values_list("provider", flat=True).distinct()
        return [(slug, slug) for slug in there]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


class PricedFilter(DropdownFilter):
    title = "price"
    parameter_name = "priced"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Known"), ("no", "Unknown")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in {"yes", "no"}:
            return queryset
        return queryset.filter(input_price__isnull=self.value() == "no")


class ModelAliasInline(TabularInline):
    model = ModelAlias
    fields = ("name",)
    extra = 0
    verbose_name_plural = "aliases: other names by which callers may ask for it"


class PriceColumns:
    """The numbers of a price, to be read, and until when it holds."""

    @display(description="in force until")
    def until(self, price: Any) -> str:
        return f"{price.until:%Y-%m-%d %H:%M}" if price.until else "further notice"

    @display(description="input", ordering="input_per_million")
    def input_price(self, price: Price) -> str:
        return _dollars(price.input_per_million)

    @display(description="output", ordering="output_per_million")
    def output_price(self, price: Price) -> str:
        return _dollars(price.output_per_million)

    @display(description="cached input", ordering="cached_input_per_million", empty_value="as input")
    def cached_input_price(self, price: Price) -> str | None:
        return None if price.cached_input_per_million is None else _dollars(price.cached_input_per_million)

    @display(description="cache write", ordering="cache_write_per_million", empty_value="as input")
    def cache_write_price(self, price: Price) -> str | None:
        return None if price.cache_write_per_million is None else _dollars(price.cache_write_per_million)


class PriceInline(PriceColumns, TabularInline):
    """The history; a new version is set on a page of its own."""

    model = Price
    fields = readonly_fields = (
        "effective_from",
        "until",
        "input_price",
        "output_price",
        "cached_input_price",
        "cache_write_price",
        "source",
        "set_by",
        "reason",
    )
    hide_title = True
    ordering = ("-effective_from",)
    extra = 0
    verbose_name_plural = "prices: US dollars per million tokens, newest first"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        prices: QuerySet[Price] = super().get_queryset(request).with_end()
        return prices

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(LanguageModel)
class LanguageModelAdmin(CatalogueAdmin):
    list_display = ("name", "provider", "window", "price", "health", "is_enabled")
    list_editable = ("is_enabled",)
    list_filter = (ProviderFilter, PricedFilter, ("is_enabled", BooleanRadioFilter))
    search_fields = ("name", "upstream_id", "display_name", "aliases__name")
    search_help_text = "Names, aliases, the provider's own ids"
    fields = (
        ("name", "display_name"),
        ("provider", "upstream_id"),
        ("context_window", "max_output_tokens"),
        "is_enabled",
    )
    inlines = (ModelAliasInline, PriceInline)
    actions = ("switch_on", "switch_off")
    actions_detail = ("set_new_price", "price_the_past")
    empty_hint = "There are no models yet. Run manage.py update_prices, which knows those of all common providers."

    def get_queryset(self, request: HttpRequest) -> QuerySet[LanguageModel]:
        models: QuerySet[LanguageModel] = super().get_queryset(request).with_price_in_force().with_health()
        return models

    def get_readonly_fields(self, request: HttpRequest, obj: LanguageModel | None = None) -> tuple[str, ...]:
        # Prices and the record are about the provider's model: with another one behind it they would be wrong.
        return ("provider", "upstream_id") if obj else ()

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Field | None:
        if db_field.name == "provider":
            choices = [(slug, slug) for slug in registry.configs()]
            return ChoiceField(choices=choices, widget=UnfoldAdminSelectWidget, help_text=db_field.help_text)
        field: Field | None = super().formfield_for_dbfield(db_field, request, **kwargs)
        return field

    @display(description="context window", ordering="context_window")
    def window(self, model: LanguageModel) -> str | None:
        return None if model.context_window is None else f"{model.context_window:,}"

    @display(description="price in / out ($ per million)", ordering="input_price", empty_value="unknown")
    def price(self, model: Any) -> str | None:
        if model.input_price is None:
            return None
        return f"{_dollars(model.input_price)} / {_dollars(model.output_price)}"

    @display(description="health", ordering="health", label=_HEALTH_COLOURS)
    def health(self, model: Any) -> str:
        return model.health or ModelHealth.Status.UNKNOWN.value

    @action(description="Switch on: callers may name them", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[LanguageModel]) -> None:
        self._switch(request, queryset, enabled=True)

    @action(description="Switch off: callers cannot name them", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[LanguageModel]) -> None:
        self._switch(request, queryset, enabled=False)

    @action(description="Set a new price", permissions=["set_price"], url_path="price")
    def set_new_price(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponseRedirect(f"{reverse('admin:providers_price_add')}?model={int(object_id)}")

    @action(description="Price the past", permissions=["set_price"], url_path="past")
    def price_the_past(self, request: HttpRequest, object_id: str) -> HttpResponse:
        # That page is of an app above this one.
        return HttpResponseRedirect(reverse("admin:chat_repricing_price", args=[int(object_id)]))

    def has_set_price_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        # Named by its codename, unfold would look for it in the database at every check, migrated or not.
        return request.user.has_perm("providers.add_price")

    def _switch(self, request: HttpRequest, queryset: QuerySet[LanguageModel], *, enabled: bool) -> None:
        chosen = LanguageModel.objects.filter(pk__in=queryset.values("pk"))
        changed = services.set_enabled(chosen, enabled=enabled)
        messages.success(request, f"{counted(changed, 'model')} switched {'on' if enabled else 'off'}.")


@admin.register(ModelAlias)
class ModelAliasAdmin(CatalogueAdmin):
    list_display = ("name", "model", "provider")
    list_select_related = ("model",)
    search_fields = ("name", "model__name")
    autocomplete_fields = ("model",)
    empty_hint = (
        "There are no aliases yet. With an alias callers keep the name (fast, best) while you move what is behind it."
    )

    @display(description="provider", ordering="model__provider")
    def provider(self, alias: ModelAlias) -> str:
        return alias.model.provider


@admin.register(Price)
class PriceAdmin(PriceColumns, CatalogueAdmin):
    """A price is set, never changed; one that is not in force yet may be withdrawn."""

    list_display = (
        "model",
        "effective_from",
        "until",
        "state",
        "input_price",
        "output_price",
        "cached_input_price",
        "cache_write_price",
        "source",
        "set_by",
    )
    list_select_related = ("model",)
    search_fields = ("model__name",)
    search_help_text = "The model's name"
    autocomplete_fields = ("model",)
    fields = (
        "model",
        "effective_from",
        ("input_per_million", "output_per_million"),
        ("cached_input_per_million", "cache_write_per_million"),
    )
    ordering = ("-effective_from", "model__name")
    empty_hint = "No price is known yet, so no cost is either. Run manage.py update_prices, or set prices here."

    def get_queryset(self, request: HttpRequest) -> QuerySet[Price]:
        now = timezone.now()
        later = Price.objects.filter(
            model=OuterRef("model"), effective_from__gt=OuterRef("effective_from"), effective_from__lte=now
        )
        prices: QuerySet[Price] = (
            super().get_queryset(request).with_end().annotate(in_force=~Exists(later) & Q(effective_from__lte=now))
        )
        return prices

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return isinstance(obj, Price) and obj.is_planned and super().has_delete_permission(request, obj)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        if isinstance(obj, Price):
            services.withdraw_price(obj)

    @display(description="", label=_PRICE_COLOURS)
    def state(self, price: Any) -> str:
        if price.in_force:
            return "in force"
        return "planned" if price.is_planned else "past"


@admin.register(ModelHealth)
class ModelHealthAdmin(FactsAdmin):
    list_display = ("provider", "about", "state", "average_response", "errors", "attempts", "last_error", "checked_at")
    list_filter = (ProviderFilter,)
    list_filter_submit = True
    list_per_page = 50
    search_fields = ("provider", "upstream_id")
    list_before_template = _EMPTY_HINT_TEMPLATE
    empty_hint = "Nothing has been checked yet. The background worker probes the providers every minute."

    @display(description="model", ordering="upstream_id", empty_value="the provider as a whole")
    def about(self, health: ModelHealth) -> str | None:
        return health.upstream_id or None

    @display(description="status", ordering="status", label=_HEALTH_COLOURS)
    def state(self, health: ModelHealth) -> str:
        return health.status

    @display(description="average response", ordering=F("average_response_ms").asc(nulls_last=True))
    def average_response(self, health: ModelHealth) -> str | None:
        return None if health.average_response_ms is None else f"{health.average_response_ms:,.0f} ms"

    @display(description="errors", ordering="error_rate")
    def errors(self, health: ModelHealth) -> str | None:
        return None if health.error_rate is None else f"{health.error_rate:.1%}"


def _dollars(amount: Decimal) -> str:
    """Without the zeros that say nothing: 0.15, 10, 0."""
    return f"${amount.normalize():f}"
