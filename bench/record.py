"""What the durable record costs: rows a second on one core, and the processor's time of each step of an exchange.

    .venv/bin/python -m bench.record [--label NAME] [--exchanges N]

Exchanges as they are (a prompt and an answer of 1 KB, one attempt, a known price) go through recorder, journal and
committer into SQLite and into a throw-away PostgreSQL, without HTTP and without a provider. This process is pinned to
one core, PostgreSQL to the others. Each run is measured beside what is usual: one transaction a request by the ORM, on
a thread. A table on the terminal; the figures go under NAME (`now` by default) into bench/results/record.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bench import machine
from llmchat.tests.servers import PROJECT, PostgreSQL, missing_programs

if TYPE_CHECKING:
    from chat.recorder import Recorder

RESULTS = PROJECT / "bench" / "results" / "record.json"
CONCURRENCY = 64
#: The slow way is not asked for more than this.
ORM_EXCHANGES = 400
ROUNDS = 3
STREAMED_EVENTS = 66


# --- In the measured process ------------------------------------------------------------------------------------------
class Subject:
    """What the exchanges have in common. Made once Django is ready, in a database that is migrated and empty."""

    def __init__(self) -> None:
        from accounts.models import Plan
        from accounts.principals import PlanLimits, Principal
        from accounts.services import create_organization
        from chat.calls import Call
        from providers import catalogue
        from providers.adapters.base import ProviderConfig, Timeouts
        from providers.adapters.simulated import SimulatedAdapter
        from providers.failover import Candidate
        from providers.models import LanguageModel, Price
        from providers.values import ChatRequest, Finished, FinishReason, Message, TextDelta, Usage

        organization = create_organization(f"bench {secrets.token_hex(4)}", plan=Plan.objects.get(slug="unlimited"))
        model, _ = LanguageModel.objects.get_or_create(
            name="bench-model", defaults={"provider": "openai", "upstream_id": "bench-model"}
        )
        if not model.prices.exists():
            Price.objects.create(
                model=model, input_per_million=Decimal("0.15"), output_per_million=Decimal("0.6"), source="manual"
            )
        catalogue.forget()
        self.snapshot = catalogue.current()
        self.resolved = self.snapshot.resolve("bench-model")
        text = (secrets.token_hex(16) + " ") * 31
        messages = [Message(role="user", content=text)]
        self.call = Call(
            principal=Principal(
                organization_id=organization.id,
                organization_name=organization.name,
                api_key_id=None,
                key_name="bench",
                scopes=frozenset({"chat"}),
                plan=PlanLimits(slug="unlimited", name="Unlimited"),
            ),
            endpoint="chat",
            user_id="12345",
            messages=messages,
            trace_id="bench-0123456789abcdef",
            model="bench-model",
            parameters={"temperature": 0.7, "max_tokens": 400},
            metadata={"app": "shop"},
        )
        self.candidate = Candidate(
            provider="openai",
            model="bench-model",
            adapter=SimulatedAdapter(ProviderConfig(slug="openai", adapter="")),
            request=ChatRequest(model="bench-model", messages=messages, temperature=0.7, max_tokens=400),
            timeouts=Timeouts(),
        )
        self.answer = TextDelta(text)
        self.pieces = [TextDelta(text[i * 15 : i * 15 + 15]) for i in range(STREAMED_EVENTS)]
        self.usage = Usage(input_tokens=250, output_tokens=260)
        self.response_id = "chatcmpl-0123456789abcdef"
        self.finished = Finished(
            reason=FinishReason.STOP, raw_reason="stop", usage=self.usage, response_id=self.response_id
        )

    def recorder(self) -> Recorder:
        from chat.recorder import Recorder
        from llmchat.lib.uuid7 import uuid7

        return Recorder(
            self.call,
            identifier=uuid7(),
            snapshot=self.snapshot,
            resolved=self.resolved,
            thread=None,
            history_messages=0,
        )

    def started(self) -> Any:
        from providers.failover import AttemptStarted

        return AttemptStarted(number=1, candidate=self.candidate)

    def ended(self) -> Any:
        from providers.failover import AttemptEnded

        return AttemptEnded(number=1, finished=self.finished)

    def ended_recorder(self, made: Recorder) -> Recorder:
        from chat.models import Status

        made.fold(self.started())
        made.fold(self.answer)
        made.fold(self.ended())
        made.fold(self.finished)
        made.end(Status.SUCCEEDED)
        return made


async def exchange(subject: Subject) -> float:
    """One exchange on the record; how many seconds its commit took."""
    recorder = subject.ended_recorder(subject.recorder())
    began = time.perf_counter()
    await recorder.commit()
    return time.perf_counter() - began


async def exchange_by_orm(subject: Subject) -> float:
    """The usual way: the same facts, stored by the ORM in a transaction of their own, on a thread."""
    from django.db import transaction

    from chat.models import Attempt, Interaction, Status
    from llmchat.lib.threads import in_thread
    from llmchat.lib.uuid7 import moment_of, uuid7
    from providers.pricing import cost_of

    call, usage = subject.call, subject.usage
    identifier, attempt_id = uuid7(), uuid7()
    moment = moment_of(identifier)
    price = subject.snapshot.price_for("openai", "bench-model", moment)
    cost = cost_of(usage, price)
    shared: dict[str, Any] = {
        "status": Status.SUCCEEDED,
        "provider": "openai",
        "model": "bench-model",
        "finish_reason": "stop",
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "cost": cost,
    }

    def store() -> None:
        with transaction.atomic():
            interaction = Interaction(
                id=identifier,
                organization_id=call.principal.organization_id,
                user_id=call.user_id,
                plan="unlimited",
                endpoint=call.endpoint,
                streamed=False,
                trace_id=call.trace_id,
                created_at=moment,
                finished_at=datetime.now(UTC),
                model_requested=call.model,
                route_reason="named",
                prompt=call.prompt,
                response=subject.answer.text,
                parameters=dict(call.parameters),
                metadata=dict(call.metadata),
                latency_ms=1.0,
                **shared,
            )
            interaction.save(force_insert=True)
            Attempt(
                id=attempt_id,
                interaction_id=identifier,
                number=1,
                started_at=moment,
                raw_finish_reason="stop",
                upstream_request_id=subject.response_id,
                price_id=price.id if price else None,
                latency_ms=1.0,
                **shared,
            ).save(force_insert=True)

    began = time.perf_counter()
    await in_thread(store)
    return time.perf_counter() - began


def rate(
    one: Callable[[Subject], Awaitable[float]], subject: Subject, *, exchanges: int, concurrency: int
) -> dict[str, float]:
    """Exchanges a second with so many at once, and the processor's microseconds of each, by threads."""
    import uvloop

    async def run() -> dict[str, float]:
        left = exchanges
        waits: list[float] = []

        async def worker() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                waits.append(await one(subject))

        async def all_workers() -> None:
            await asyncio.gather(*(worker() for _ in range(concurrency)))

        await all_workers()  # warms up, and is not counted
        left, waits = exchanges, []
        began, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
        await all_workers()
        seconds = time.perf_counter() - began
        loop, cpu = time.thread_time() - loop, time.process_time() - cpu
        done = len(waits)
        waits.sort()
        return {
            "rows_per_second": round(done / seconds, 1),
            "cpu_us": round(cpu / done * 1e6, 1),
            "loop_cpu_us": round(loop / done * 1e6, 1),
            "other_threads_cpu_us": round((cpu - loop) / done * 1e6, 1),
            "commit_ms_p50": round(waits[done // 2] * 1000, 3),
            "commit_ms_p99": round(waits[done * 99 // 100] * 1000, 3),
        }

    return uvloop.run(run())


def steps(subject: Subject, *, exchanges: int) -> dict[str, float]:
    """Processor's microseconds of each step of an exchange, each done for many exchanges in a row."""
    from chat import durability, metrics, rows
    from chat.models import Status

    journal = durability.committer().journal
    found: dict[str, float] = {}

    def measured(name: str, work: Callable[[Any], Any], items: Any, *, of: int = exchanges) -> list[Any]:
        began = time.thread_time()
        made = [work(item) for item in items]
        found[name] = round((time.thread_time() - began) / of * 1e6, 2)
        return made

    recorders = measured("recorder_made", lambda _: subject.recorder(), range(exchanges))
    started, ended = subject.started(), subject.ended()
    measured("attempt_begins_with_journal_begin", lambda each: each.fold(started), recorders)
    measured("one_event_folded", lambda each: each.fold(subject.answer), recorders)
    measured("attempt_ends_with_price", lambda each: (each.fold(ended), each.fold(subject.finished)), recorders)
    measured("end", lambda each: each.end(Status.SUCCEEDED), recorders)
    whole = measured("rows_built", lambda each: each._rows(), recorders)  # noqa: SLF001
    measured("journal_end", lambda each: journal.end(each.id, rows.as_facts(each)), whole)
    batches = [whole[place : place + CONCURRENCY] for place in range(0, len(whole), CONCURRENCY)]
    measured("database_in_batches_of_64", rows.store, batches)
    journal.settle([each.id for each in whole])
    measured(
        "metrics",
        lambda each: metrics.observe(
            each.interaction, [facts.row for facts in each.attempts], name_of=subject.snapshot.name_of
        ),
        recorders,
    )
    found["sum"] = round(sum(found.values()), 1)
    streamed = [subject.recorder() for _ in range(200)]
    for each in streamed:
        each.fold(started)
    measured(
        "each_event_of_a_stream",
        lambda each: [each.fold(piece) for piece in subject.pieces],
        streamed,
        of=200 * STREAMED_EVENTS,
    )
    journal.settle([each.interaction.id for each in streamed])
    return found


def measure(exchanges: int) -> dict[str, Any]:
    """All figures of this process's database."""
    import django

    from llmchat.lib import metrics as files

    with tempfile.TemporaryDirectory(prefix="llmchat-bench-metrics-") as directory:
        from pathlib import Path

        files.begin(Path(directory))
        django.setup()
        from django.core.management import call_command
        from django.db import connections

        from chat import durability

        call_command("migrate", verbosity=0)
        subject = Subject()
        runs = [
            {
                "record": rate(exchange, subject, exchanges=exchanges, concurrency=CONCURRENCY),
                "orm": rate(exchange_by_orm, subject, exchanges=min(exchanges, ORM_EXCHANGES), concurrency=CONCURRENCY),
                "record_one_at_a_time": rate(exchange, subject, exchanges=500, concurrency=1),
            }
            for _ in range(ROUNDS)
        ]
        split = [steps(subject, exchanges=2_000) for _ in range(ROUNDS)]
        durability.close()
        connections.close_all()
    medians: dict[str, Any] = {
        name: {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]} for name in runs[0]
    }
    medians["steps_cpu_us"] = {name: min(run[name] for run in split) for name in split[0]}
    assert threading.current_thread() is threading.main_thread()
    return medians


# --- In the process that starts it ------------------------------------------------------------------------------------
def measured_apart(database_url: str | None, core: int, exchanges: int) -> dict[str, Any]:
    """`measure` in a process of its own, pinned to one core, on this database."""
    with tempfile.TemporaryDirectory(prefix="llmchat-bench-") as data:
        environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
        environment |= {"ENV_FILE": os.devnull, "DATA_DIR": data, "DJANGO_SETTINGS_MODULE": "llmchat.settings"}
        if database_url:
            environment["DATABASE_URL"] = database_url
        command = [sys.executable, "-m", "bench.record", "--measure", str(core), "--exchanges", str(exchanges)]
        said = subprocess.run(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", default="now", help="the name of the figures in bench/results/record.json")
    parser.add_argument("--exchanges", type=int, default=6_000, help="exchanges of one round")
    parser.add_argument("--measure", type=int, metavar="CORE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure is not None:
        os.sched_setaffinity(0, {asked.measure})
        print(json.dumps(measure(asked.exchanges)))
        return
    *others, core = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or {core})
    report: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": {**machine.describe(("django", "psycopg", "orjson")), "cores": len(others) + 1},
        "load_average": os.getloadavg(),
        "concurrency": CONCURRENCY,
        "exchanges": asked.exchanges,
        "rounds": ROUNDS,
        "sqlite": measured_apart(None, core, asked.exchanges),
    }
    if missing := missing_programs():
        print("\n".join(missing))
    else:
        with PostgreSQL() as server:
            report["postgresql"] = measured_apart(server.create_database("bench"), core, asked.exchanges)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[asked.label] = report
    RESULTS.write_text(json.dumps(kept, indent=2) + "\n")
    show(report)


def show(report: dict[str, Any]) -> None:
    load = ", ".join(f"{each:.1f}" for each in report["load_average"])
    print(f"commit {report['commit']}, load average {load}; {report['concurrency']} at once, one core")
    for database in ("sqlite", "postgresql"):
        if (found := report.get(database)) is None:
            continue
        print(f"{database}\n  {'':22}{'rows/s':>9}{'CPU us':>9}{'loop':>8}{'others':>8}{'p50 ms':>9}{'p99 ms':>9}")
        for name in ("record", "orm", "record_one_at_a_time"):
            print(
                f"  {name:22}{found[name]['rows_per_second']:9.0f}{found[name]['cpu_us']:9.0f}"
                f"{found[name]['loop_cpu_us']:8.0f}{found[name]['other_threads_cpu_us']:8.0f}"
                f"{found[name]['commit_ms_p50']:9.2f}{found[name]['commit_ms_p99']:9.2f}"
            )
        for name, spent in found["steps_cpu_us"].items():
            print(f"    {name:40}{spent:8.2f} us")


if __name__ == "__main__":
    main()
