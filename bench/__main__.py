"""llmchat beside other gateways: the same vendor, the same load, the same core, in turns.

    .venv/bin/python -m bench [--quick] [--rounds N] [--seconds S] [--at-most MINUTES] [--only NAME,...]

Writes bench/results/gateways.json and prints the table that the README shows. What is measured, and by which rules, is
in bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import budgets, gateways, machine, others, starting, table
from bench.gateway import MODEL, PACED, WORDS, Gateway
from bench.gateways import Upstream
from bench.load import Tally, Task
from bench.others import Missing
from llmchat.tests.servers import PROJECT, PostgreSQL, Redis, ServerFailed, missing_programs

RESULTS = PROJECT / "bench" / "results" / "gateways.json"
WARM_UP = 0.5
#: Seconds that a process is left alone before its idle memory is read.
SETTLING = 5.0
#: Requests after which ours must not have grown.
MANY = 100_000
PACKAGES = ("django", "uvicorn", "uvloop", "aiohttp", "orjson", "psycopg")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load. `is_headline`: measured in every round, the others once; `max_tokens`: said in the request."""

    name: str
    streamed: bool
    connections: int
    model: str = MODEL
    prompt_bytes: int = 0
    max_tokens: int | None = None
    is_headline: bool = False
    with_two_workers: bool = False


#: Ours asks a vendor for a whole answer when it knows that it will be short; else it takes the stream and puts the
#: answer together itself. Peers do the same for both.
SHORT = WORDS[MODEL]
HEADLINES = (
    Scenario("whole_64", streamed=False, connections=64, max_tokens=SHORT, is_headline=True, with_two_workers=True),
    Scenario("whole_64_unlimited", streamed=False, connections=64, is_headline=True),
    Scenario("streamed_32", streamed=True, connections=32, is_headline=True, with_two_workers=True),
    Scenario("whole_1", streamed=False, connections=1, max_tokens=SHORT, is_headline=True),
    Scenario("first_token_1", streamed=True, connections=1, model=PACED, is_headline=True),
)
SCENARIOS = (
    *HEADLINES,
    Scenario("whole_8", streamed=False, connections=8, max_tokens=SHORT),
    Scenario("whole_32", streamed=False, connections=32, max_tokens=SHORT),
    Scenario("whole_512", streamed=False, connections=512, max_tokens=SHORT),
    Scenario("streamed_1", streamed=True, connections=1),
    Scenario("streamed_8", streamed=True, connections=8),
    Scenario("streamed_64", streamed=True, connections=64),
    Scenario("streamed_512", streamed=True, connections=512),
    Scenario("whole_32_100kb", streamed=False, connections=32, prompt_bytes=100_000, max_tokens=SHORT),
    Scenario("streamed_32_100kb", streamed=True, connections=32, prompt_bytes=100_000),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which cores do what. The load and the vendor have one; a database beside ours is on the gateway's."""

    one: list[int]
    two: list[int]
    load: list[int]

    @classmethod
    def of(cls, cores: Iterable[int]) -> Layout:
        known = sorted(cores)
        return cls(one=known[:1], two=known[:2], load=known[-1:])

    @property
    def two_share(self) -> bool:
        """Whether two workers must share a core with the load."""
        return bool(set(self.two) & set(self.load))


class Bench:
    """The gateways that run, and what has been measured of them."""

    def __init__(self, layout: Layout, vendor: Upstream, *, seconds: float, deadline: float) -> None:
        self.layout, self.vendor = layout, vendor
        self.running: list[Gateway] = []
        self.two_workers: Gateway | None = None
        self.runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.skipped: list[str] = []
        self._seconds, self._deadline = seconds, deadline
        self._asked = 0

    def rounds(self, scenarios: Sequence[Scenario], number: int) -> None:
        """Rounds of all scenarios: A B C, then C B A, and so on."""
        for turn in range(number):
            for scenario in scenarios:
                taking_part = [*self.running]
                if scenario.with_two_workers and self.two_workers is not None:
                    taking_part.append(self.two_workers)
                if time.monotonic() > self._deadline:
                    self.skipped.append(f"{scenario.name}, round {turn + 1}: the time was up")
                    continue
                for gateway in taking_part if turn % 2 == 0 else reversed(taking_part):
                    run = self.measure(gateway, scenario)
                    self.runs.setdefault(scenario.name, {}).setdefault(gateway.name, []).append(run)
                    say(f"{scenario.name:<18} {gateway.name:<24} {brief(run)}")

    def measure(self, gateway: Gateway, scenario: Scenario, *, count: int | None = None) -> dict[str, Any]:
        """One run of the load on a gateway that nobody else asks, and what it cost whom."""
        ask = gateway.ask(
            scenario.model,
            streamed=scenario.streamed,
            prompt_bytes=scenario.prompt_bytes,
            max_tokens=scenario.max_tokens,
        )
        task = Task(
            host="127.0.0.1",
            port=gateway.port,
            asks=[ask],
            connections=scenario.connections,
            seconds=self._seconds,
            warm_up=WARM_UP,
            count=count,
            first=self._asked,
            cores=self.layout.load,
        )
        gateway.thaw()
        before = self._meters(gateway)
        tally = load(task)
        after = self._meters(gateway)
        gateway.freeze()
        self._asked += tally.asked
        used = {name: round(after[name] - before[name], 3) for name in before}
        used["load_seconds"] = tally.cpu_seconds
        counted = [name for name in ("upstream_calls", "attempts", "interactions") if name in used]
        counts: dict[str, Any] = {name: int(used.pop(name)) for name in counted}
        mine = used["gateway_seconds"] + used["database_seconds"] + used["vendor_seconds"] + used["load_seconds"]
        core = used["vendor_seconds"] + used["load_seconds"]
        return {
            **asdict(tally),
            **counts,
            **used,
            "per_cpu_second": _ratio(tally.answered, used["gateway_seconds"] + used["database_seconds"]),
            "load_core_used": round(core / tally.seconds, 3),
            "others_used": round(max(0.0, used["busy_seconds"] - mine) / used["wall_seconds"], 3),
        }

    def _meters(self, gateway: Gateway) -> dict[str, float]:
        meters = {
            "upstream_calls": float(self.vendor.calls()),
            "gateway_seconds": machine.cpu_seconds(gateway.processes()),
            "database_seconds": machine.cpu_seconds(gateway.database_processes()),
            "vendor_seconds": machine.cpu_seconds([self.vendor.process]),
            "busy_seconds": machine.busy(),
            "wall_seconds": time.monotonic(),
        }
        if gateway.counted is not None:
            attempts, interactions = gateway.counted()
            meters |= {"attempts": float(attempts), "interactions": float(interactions)}
        return meters


def load(task: Task) -> Tally:
    """The load as a process of its own. Raises ServerFailed when it ends by mistake."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
    )
    if done.returncode != 0:
        raise ServerFailed(f"the load ended with {done.returncode}\n{done.stderr}")
    return Tally(**json.loads(done.stdout))


def figures(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Medians over the rounds, beside every round's values; what is added is a gateway's minus the vendor's own."""
    found: dict[str, Any] = {}
    for scenario, of_gateways in runs.items():
        found[scenario] = {}
        for name, each in of_gateways.items():
            medians = {
                key: _median([run[key] for run in each])
                for key in ("per_second", "per_cpu_second", "p50", "p99", "first_p50", "first_p99", "load_core_used")
            }
            sums = {
                key: sum(run[key] for run in each)
                for key in ("asked", "answered", "upstream_calls", "attempts", "interactions")
                if key in each[0]
            }
            others = max(run["others_used"] for run in each)
            found[scenario][name] = medians | sums | {"others_used": others, "runs": each}
        if (direct := found[scenario].get("direct")) is not None:
            for name, figure in found[scenario].items():
                if name != "direct":
                    for key in ("p50", "p99", "first_p50", "first_p99"):
                        figure[f"added_{key}"] = _difference(figure[key], direct[key])
    return found


def start_ours(bench: Bench, stack: ExitStack, directory: Path) -> dict[str, dict[str, Any]]:
    """Starts ours in its three forms, as far as this machine has what they need."""
    started: dict[str, dict[str, Any]] = {}
    layout, vendor = bench.layout, bench.vendor
    gateway, _ = stack.enter_context(gateways.ours(directory / "sqlite", vendor, cores=layout.one))
    bench.running.append(gateway)
    started[gateway.name] = about(gateway, directory)
    gateway.freeze()
    if missing := missing_programs():
        bench.skipped.append(f"llmchat on PostgreSQL, and with two workers: {'; '.join(missing)}")
        return started
    with machine.pinned(layout.one):
        database = stack.enter_context(PostgreSQL(durable=True))
    with machine.pinned(layout.two):
        # The database of two workers may use both of their cores.
        database_of_two = stack.enter_context(PostgreSQL(durable=True))
        redis = stack.enter_context(Redis())
    gateway, _ = stack.enter_context(
        gateways.ours(
            directory / "postgresql",
            vendor,
            name="llmchat_postgresql",
            title="llmchat, record on PostgreSQL",
            cores=layout.one,
            postgresql=database,
            redis_url=redis.database_url(1),
        )
    )
    bench.running.append(gateway)
    started[gateway.name] = about(gateway, directory)
    gateway.freeze()
    bench.two_workers, _ = stack.enter_context(
        gateways.ours(
            directory / "two",
            vendor,
            name="llmchat_two_workers",
            title="llmchat, two workers, PostgreSQL",
            cores=layout.two,
            postgresql=database_of_two,
            redis_url=redis.database_url(2),
            workers=2,
        )
    )
    started[bench.two_workers.name] = about(bench.two_workers, directory)
    bench.two_workers.freeze()
    return started


def start_others(bench: Bench, stack: ExitStack, directory: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    started = {}
    for name in names:
        try:
            gateway = stack.enter_context(others.OTHERS[name](directory / name, bench.vendor, cores=bench.layout.one))
        except (Missing, ServerFailed, subprocess.CalledProcessError) as problem:
            bench.skipped.append(f"{name}: {problem}")
            say(f"left out: {name}: {problem}")
            continue
        bench.running.append(gateway)
        started[name] = about(gateway, directory)
        gateway.freeze()
    return started


def about(gateway: Gateway, directory: Path) -> dict[str, Any]:
    """What it is, and the memory it takes while nobody asks."""
    time.sleep(SETTLING)
    say(f"started {gateway.name}")
    return {
        "title": gateway.title,
        "version": gateway.version,
        "command": starting.plain(gateway.command, directory),
        "path": gateway.path,
        "workers": gateway.workers,
        "memory": {"idle": _memory(gateway)},
    }


def measure_growth(bench: Bench, started: dict[str, dict[str, Any]], count: int) -> None:
    """What ours takes after many requests; the others after what they have answered so far."""
    many = Scenario("many", streamed=False, connections=64, max_tokens=SHORT)
    for gateway in bench.running:
        if gateway.process is None:
            continue
        memories = started[gateway.name]["memory"]
        if gateway.counted is not None:
            run = bench.measure(gateway, many, count=count)
            bench.runs.setdefault("many", {})[gateway.name] = [run]
            memories["after_requests"] = run["asked"]
            say(f"{'many':<18} {gateway.name:<24} {brief(run)}")
        gateway.thaw()
        time.sleep(SETTLING if gateway.counted is not None else 0.0)
        memories["after"] = _memory(gateway)
        gateway.freeze()


def _memory(gateway: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = {"all": asdict(machine.memory(gateway.processes()))}
    if gateway.counted is not None:
        found["web_workers"] = [asdict(machine.memory([pid])) for pid in gateway.web_workers()]
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    layout = Layout.of(os.sched_getaffinity(0))
    report: dict[str, Any] = {
        "measured_at": machine.now(),
        "commit": machine.commit(),
        "command": starting.plain([sys.executable, "-m", "bench", *sys.argv[1:]]),
        "machine": machine.describe(PACKAGES)
        | {"node": machine.program_version("node"), "postgresql": machine.program_version("postgres")},
        "layout": asdict(layout) | {"two_share": layout.two_share},
        "others_used_before": machine.strangers(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "scenarios": {each.name: asdict(each) for each in SCENARIOS},
    }
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmchat-bench-")))
        vendor = stack.enter_context(gateways.upstream(directory / "vendor", cores=layout.load))
        deadline = time.monotonic() + arguments.at_most * 60
        bench = Bench(layout, vendor, seconds=arguments.seconds, deadline=deadline)
        bench.running.append(vendor.direct())
        report["gateways"] = start_ours(bench, stack, directory)
        wanted = [name for name in others.OTHERS if arguments.only is None or name in arguments.only]
        report["gateways"] |= start_others(bench, stack, directory, wanted)
        try:
            bench.rounds([Scenario("warming", streamed=False, connections=8)], 1)
            bench.runs.clear()
            bench.rounds(HEADLINES, arguments.rounds)
            measure_growth(bench, report["gateways"], arguments.many)
            if not arguments.quick:
                bench.rounds(SCENARIOS[len(HEADLINES) :], 1)
        except KeyboardInterrupt:
            bench.skipped.append("the rest: it was interrupted")
        report["figures"] = figures(bench.runs)
        report["skipped"] = bench.skipped
    report["budgets"] = budgets.evaluate(report)
    report["finished_at"] = machine.now()
    return report


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def brief(run: dict[str, Any]) -> str:
    """A run in one line of the progress."""
    p50 = f"{run['p50'] * 1000:.2f} ms" if run["p50"] is not None else "no answer"
    wrong = f", {sum(run['errors'].values())} WRONG {run['errors']}" if run["errors"] else ""
    others = f", others use {run['others_used']:.2f} cores" if run["others_used"] > table.DISTURBED else ""
    full = ", the load's core is full" if run["load_core_used"] > table.EXHAUSTED else ""
    return f"{run['per_second']:8.0f}/s {run['per_cpu_second'] or 0:8.0f} a CPU second, p50 {p50}{wrong}{others}{full}"


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _difference(one: float | None, other: float | None) -> float | None:
    return one - other if one is not None and other is not None else None


def _ratio(one: float, other: float) -> float | None:
    return round(one / other, 2) if other else None


def arguments_of(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few minutes: the headlines once, a second each")
    parser.add_argument("--rounds", type=int, help="of the headlines (3)")
    parser.add_argument("--seconds", type=float, help="of each measurement, after its warm-up (3)")
    parser.add_argument("--many", type=int, help=f"requests before ours is weighed again ({MANY})")
    parser.add_argument("--at-most", type=float, default=22.0, help="minutes after which no scenario is begun (22)")
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"of {','.join(others.OTHERS)}")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON file (bench/results/gateways.json)")
    arguments = parser.parse_args(words)
    usual = (1, 1.0, 2_000) if arguments.quick else (3, 3.0, MANY)
    for name, value in zip(("rounds", "seconds", "many"), usual, strict=True):
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    arguments = arguments_of(words)
    if not sys.platform.startswith("linux"):
        raise SystemExit("The benchmark reads /proc and pins processes to cores: it needs Linux.")
    machine.end_orderly()
    report = run(arguments)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print(table.markdown(report))
    print(budgets.listing(report["budgets"]))
    for line in report["skipped"]:
        print(f"left out: {line.partition(chr(10))[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
