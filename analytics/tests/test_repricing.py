"""What was used at an unknown price is priced later: once, exactly, and roll-ups with it."""

from __future__ import annotations

import datetime as dt
import threading
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accounts.tests.factories import OrganizationFactory
from analytics import rolling, unpriced
from audit.models import Action, Entry
from chat import repricing, rows
from chat.models import Attempt, Interaction, Repricing, Status
from chat.repricing import Draft, NotAgreeable
from chat.rows import ExchangeRows
from chat.tests.factories import id_at
from providers import services
from providers.models import LanguageModel, Price
from providers.pricing import cost_of
from providers.values import Usage

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
ROUTE = ("gemini", "acme-1")


def a_model(name: str = "acme-1") -> LanguageModel:
    return LanguageModel.objects.create(name=name, provider="gemini", upstream_id=name)


def used(
    organization: Any, moment: dt.datetime, *routes: tuple[str, str], tokens: tuple[int, int] = (1000, 500), **last: Any
) -> ExchangeRows:
    """An exchange with an attempt for each route, none priced; the last one answered."""
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    identifier = id_at(moment)
    attempts = []
    routes = routes or (ROUTE,)
    for number, (provider, model) in enumerate(routes, start=1):
        is_last = number == len(routes)
        status = Status.SUCCEEDED if is_last else Status.FAILED
        attempts.append(
            Attempt(
                id=id_at(moment),
                interaction_id=identifier,
                number=number,
                provider=provider,
                model=model,
                started_at=moment,
                status=status,
                error_code="" if is_last else "provider_timeout",
                finish_reason="stop" if is_last else "",
                input_tokens=tokens[0],
                output_tokens=tokens[1],
                cached_input_tokens=0,
                cache_write_tokens=0,
                reasoning_tokens=0,
                **(last if is_last else {}),
            )
        )
    answer = attempts[-1]
    spent = [attempt.cost for attempt in attempts]
    known = [cost for cost in spent if cost is not None]
    row = Interaction(
        id=identifier,
        organization_id=organization.id,
        created_at=moment,
        finished_at=moment,
        endpoint="chat",
        streamed=False,
        user_id="ana",
        plan="free",
        status=Status.SUCCEEDED,
        finish_reason="stop",
        model_requested=answer.model,
        model=answer.model,
        provider=answer.provider,
        retries=len(routes) - len(set(routes)),
        fallback=len(set(routes)) > 1,
        cost=sum(known, Decimal(0)) if len(known) == len(spent) else None,
        **{name: getattr(answer, name) for name in ("input_tokens", "output_tokens", "cached_input_tokens")},
        reasoning_tokens=0,
    )
    return ExchangeRows(interaction=row, attempts=attempts)


def a_draft(since: dt.datetime, *, price: str = "2", output: str = "8") -> Draft:
    return Draft(effective_from=since, input_per_million=Decimal(price), output_per_million=Decimal(output))


def counted(model: LanguageModel, draft: Draft | None) -> Repricing:
    return unpriced.work(repricing.begin(model, draft=draft, reason="the invoice came", by="olga"))


def carried_out(run: Repricing) -> Repricing:
    run = repricing.agree(run)
    # As if the minute were over in which others may not have heard of the price.
    Repricing.objects.filter(pk=run.pk).update(until=timezone.now())
    run.refresh_from_db()
    return unpriced.work(run)


def verify() -> None:
    rolling.roll_up()
    call_command("verify_record", stdout=StringIO())


def test_what_lacked_a_price_gets_it_and_roll_ups_follow(organization):
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - days * DAY) for days in (40, 3, 3, 1)])
    rolling.roll_up()
    assert [(line.model, line.interactions) for line in unpriced.unpriced()] == [("acme-1", 4)]

    run = counted(model, a_draft(now - 50 * DAY))
    # 1,000 tokens at $2 and 500 at $8 a million: $0.006 each.
    assert (run.state, run.counted_interactions, run.counted_cost) == ("counted", 4, Decimal("0.024"))
    assert not Interaction.objects.exclude(cost=None).exists()
    assert not Price.objects.exists()

    run = carried_out(run)
    assert (run.state, run.filled_interactions, run.filled_attempts, run.filled_cost) == (
        "done",
        4,
        4,
        Decimal("0.024"),
    )
    assert set(Interaction.objects.values_list("cost", flat=True)) == {Decimal("0.006")}
    assert set(Attempt.objects.values_list("price", "cost")) == {(run.price_id, Decimal("0.006"))}
    verify()
    assert unpriced.unpriced() == []


def test_what_has_a_price_or_a_reported_cost_keeps_it(organization):
    model, other, now = a_model(), a_model("acme-2"), timezone.now()
    old = Price.objects.create(
        model=model, effective_from=now - 2 * DAY, input_per_million=1, output_per_million=1, reason="x"
    )
    cost = Decimal("0.0015")
    exchanges = [
        used(organization, now - DAY, price_id=old.pk, cost=cost),
        used(organization, now - DAY, cost=Decimal(7), cost_reported=True),
        used(organization, now - DAY, ("gemini", "acme-2")),
        used(organization, now - 3 * DAY),
        used(organization, now - 9 * DAY),
    ]
    rows.store(exchanges)
    run = carried_out(counted(model, a_draft(now - 5 * DAY)))
    found = [Interaction.objects.get(pk=each.id).cost for each in exchanges]
    assert found == [cost, Decimal(7), None, Decimal("0.006"), None]
    assert run.filled_interactions == 1
    assert other.pk
    verify()


def test_each_attempt_gets_the_version_in_force_when_it_began(organization):
    model, now = a_model(), timezone.now()
    exchanges = [used(organization, now - days * DAY) for days in (9, 5, 1)]
    rows.store(exchanges)
    for days, price in ((6, 10), (3, 100)):
        services.set_price(
            model,
            input_per_million=Decimal(price),
            output_per_million=Decimal(0),
            effective_from=now - days * DAY,
            reason="late",
        ) if days == 6 else Price.objects.create(
            model=model, input_per_million=price, output_per_million=0, effective_from=now - days * DAY
        )
    run = carried_out(counted(model, None))
    assert run.price_id is None
    assert [Interaction.objects.get(pk=each.id).cost for each in exchanges] == [None, Decimal("0.01"), Decimal("0.1")]


def test_an_interaction_costs_nothing_known_until_each_of_its_attempts_does(organization):
    first, second, now = a_model(), a_model("acme-2"), timezone.now()
    both = used(organization, now - DAY, ROUTE, ("gemini", "acme-2"))
    unheard = used(organization, now - DAY, ROUTE, ("gemini", "acme-2"))
    # The last attempt came to nothing: roll-ups do not count it as unpriced.
    answer = unheard.attempts[-1]
    answer.input_tokens = answer.output_tokens = answer.cached_input_tokens = None
    answer.reasoning_tokens = answer.cache_write_tokens = None
    answer.status, answer.error_code, answer.finish_reason = Status.FAILED, "provider_timeout", ""
    row = unheard.interaction
    row.status, row.error_code, row.finish_reason = Status.FAILED, "provider_timeout", ""
    row.input_tokens = row.output_tokens = row.cached_input_tokens = row.reasoning_tokens = None
    rows.store([both, unheard])
    rolling.roll_up()
    run = carried_out(counted(first, a_draft(now - 2 * DAY)))
    assert (run.filled_attempts, run.filled_interactions) == (2, 1)
    assert Interaction.objects.get(pk=both.id).cost is None
    assert Interaction.objects.get(pk=unheard.id).cost == Decimal("0.006")
    verify()
    carried_out(counted(second, a_draft(now - 2 * DAY, price="1", output="0")))
    assert Interaction.objects.get(pk=both.id).cost == Decimal("0.007")
    verify()


def test_doing_it_again_changes_nothing(organization):
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - DAY)])
    carried_out(counted(model, a_draft(now - 2 * DAY)))
    before = list(Attempt.objects.values()), list(Interaction.objects.values())
    again = counted(model, None)
    assert (again.counted_attempts, again.counted_cost) == (0, Decimal(0))
    carried_out(again)
    assert (list(Attempt.objects.values()), list(Interaction.objects.values())) == before


def test_it_goes_on_where_it_ended(organization, monkeypatch):
    monkeypatch.setattr(repricing, "BATCH", 2)
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - days * DAY) for days in range(1, 8)])
    run = repricing.agree(counted(model, a_draft(now - 9 * DAY)))
    run = unpriced.work(run, seconds=0)
    assert (run.state, run.filled_interactions) == ("filling", 2)
    verify()
    Repricing.objects.update(until=timezone.now())
    unpriced.work_all()
    run.refresh_from_db()
    assert (run.state, run.filled_interactions) == ("done", 7)
    verify()


def test_rows_of_who_has_not_heard_of_the_price_follow_within_the_minute(organization):
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - DAY)])
    run = unpriced.work(repricing.agree(counted(model, a_draft(now - 2 * DAY))))
    assert run.state == "filling"
    late = used(organization, timezone.now())
    rows.store([late])
    run = unpriced.work(run)
    assert Interaction.objects.get(pk=late.id).cost == Decimal("0.006")
    Repricing.objects.update(until=timezone.now())
    run.refresh_from_db()
    assert unpriced.work(run).state == "done"
    verify()


def test_rows_that_come_at_the_new_price_stay_as_they_are(organization):
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - DAY)])
    run = repricing.agree(counted(model, a_draft(now - 2 * DAY)))
    priced = used(organization, timezone.now(), price_id=run.price_id, cost=Decimal("0.006"))
    rows.store([priced])
    run = unpriced.work(run)
    assert run.filled_interactions == 1
    verify()


def test_the_audit_trail_says_who_began_it_and_what_it_made(organization):
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - DAY)])
    carried_out(counted(model, a_draft(now - 2 * DAY)))
    begun, ended = Entry.objects.filter(action__startswith="repricing").order_by("id")
    assert (begun.action, ended.action) == (Action.REPRICING_BEGUN, Action.REPRICING_ENDED)
    for entry in (begun, ended):
        assert (entry.object_type, entry.object_id) == ("providers.languagemodel", str(model.pk))
        assert (entry.details["interactions"], entry.details["usd"]) == (1, "0.006000000000")
        assert (entry.details["reason"], entry.details["asked for by"]) == ("the invoice came", "olga")
    price = Entry.objects.get(object_type="providers.price")
    assert price.changes["reason"] == [None, "the invoice came"]


def test_a_run_needs_a_reason_and_a_price_that_can_be(organization):
    model, now = a_model(), timezone.now()
    with pytest.raises(ValidationError, match="Say why"):
        repricing.begin(model, draft=None, reason=" ", by="olga")
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        repricing.begin(model, draft=a_draft(now - DAY, price="-1"), reason="x", by="olga")
    Price.objects.create(model=model, effective_from=now - 5 * DAY, input_per_million=1, output_per_million=1)
    with pytest.raises(ValidationError, match="Another price was in force then"):
        repricing.begin(model, draft=a_draft(now - DAY), reason="x", by="olga")
    assert not Repricing.objects.exists()


def test_only_what_was_counted_can_be_agreed_to_and_only_once(organization):
    model, now = a_model(), timezone.now()
    run = repricing.begin(model, draft=a_draft(now - DAY), reason="x", by="olga")
    with pytest.raises(NotAgreeable, match="being counted"):
        repricing.agree(run)
    run = unpriced.work(run)
    repricing.agree(run)
    with pytest.raises(NotAgreeable):
        repricing.agree(run)
    with pytest.raises(NotAgreeable):
        repricing.cancel(run)
    assert Price.objects.count() == 1


def test_a_price_that_was_set_meanwhile_stops_the_run(organization):
    model, now = a_model(), timezone.now()
    run = counted(model, a_draft(now - DAY))
    Price.objects.create(model=model, effective_from=now - 5 * DAY, input_per_million=1, output_per_million=1)
    with pytest.raises(NotAgreeable, match="Another price was in force then"):
        repricing.agree(run)
    run.refresh_from_db()
    assert run.state == "counted"
    assert not Entry.objects.filter(action__startswith="repricing").exists()


def test_what_is_sealed_stays_as_it_is(organization):
    model, now = a_model(), timezone.now()
    old = used(organization, now - 20 * DAY)
    rows.store([old, used(organization, now - DAY)])
    rolling.roll_up()
    rolling.seal(now - 10 * DAY)
    run = carried_out(counted(model, a_draft(now - 30 * DAY)))
    assert run.filled_interactions == 1
    assert Interaction.objects.get(pk=old.id).cost is None
    verify()


@pytest.mark.django_db(transaction=True)
def test_two_at_once_do_each_row_once(monkeypatch):
    monkeypatch.setattr(repricing, "BATCH", 3)
    monkeypatch.setattr(repricing, "PAUSE", 0)
    organization = OrganizationFactory.create()
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - hours * dt.timedelta(hours=7)) for hours in range(1, 40)])
    run = repricing.agree(counted(model, a_draft(now - 30 * DAY)))
    Repricing.objects.update(until=timezone.now())
    problems: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(60):
                found = Repricing.objects.select_related("model").get(pk=run.pk)
                if found.state == "done":
                    break
                unpriced.work(found)
        except BaseException as error:
            problems.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert not problems
    run.refresh_from_db()
    assert (run.state, run.filled_interactions, run.filled_cost) == ("done", 39, 39 * Decimal("0.006"))
    assert Entry.objects.filter(action=Action.REPRICING_ENDED).count() == 1
    verify()


#: SQLite keeps 15 digits of a cost: three before the point and twelve behind it.
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    usages=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**5)), min_size=1, max_size=6),
    prices=st.tuples(st.decimals(0, 800, places=6), st.decimals(0, 999, places=6)),
)
def test_costs_are_exact_and_their_sum_is_the_runs(db, usages, prices):
    Interaction.objects.all().delete()
    LanguageModel.objects.filter(name="acme-1").exists() or a_model()
    model, now = LanguageModel.objects.get(name="acme-1"), timezone.now()
    Attempt.objects.all().delete()
    Price.objects.all()._raw_delete("default")
    organization = OrganizationFactory.create()
    exchanges = [used(organization, now - DAY, tokens=usage) for usage in usages]
    rows.store(exchanges)
    draft = Draft(effective_from=now - 2 * DAY, input_per_million=prices[0], output_per_million=prices[1])
    run = carried_out(counted(model, draft))
    stored = {row.pk: row.cost for row in Interaction.objects.all()}
    assert stored == {each.id: cost_total(each, prices) for each in exchanges}
    assert run.filled_cost == run.counted_cost == sum(cost for cost in stored.values() if cost is not None)


def cost_total(each: ExchangeRows, prices: tuple[Decimal, Decimal]) -> Decimal:
    attempt = each.attempts[0]
    usage = Usage(input_tokens=attempt.input_tokens or 0, output_tokens=attempt.output_tokens or 0)
    cost = cost_of(usage, Price(input_per_million=prices[0], output_per_million=prices[1]))
    assert cost is not None
    return cost


# --- The command ------------------------------------------------------------------------------------------------------


def said(*arguments: str) -> str:
    out = StringIO()
    call_command("price_unpriced", *arguments, stdout=out)
    return out.getvalue()


def test_the_command_counts_and_prices(organization):
    model, now = a_model(), timezone.now()
    rows.store([used(organization, now - DAY), used(organization, now - DAY)])
    services.set_price(
        model,
        input_per_million=Decimal(2),
        output_per_million=Decimal(8),
        effective_from=now - 2 * DAY,
        reason="the invoice came",
    )
    assert said("--model", "acme-1", "--dry-run") == ("Would be priced: 2 interactions with 2 attempts, $0.012.\n")
    assert not Interaction.objects.exclude(cost=None).exists()
    assert said("--model", "acme-1") == (
        "To be priced: 2 interactions with 2 attempts, $0.012.\nPriced: 2 interactions with 2 attempts, $0.012.\n"
    )
    verify()
    assert said("--model", "acme-1") == "To be priced: 0 interactions with 0 attempts, $0.\n"


def test_the_command_says_what_is_missing():
    with pytest.raises(CommandError, match="There is no model 'nobody'"):
        said("--model", "nobody")
    a_model()
    with pytest.raises(CommandError, match="No price of acme-1 is known"):
        said("--model", "acme-1")
