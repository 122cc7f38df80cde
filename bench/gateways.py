"""Every gateway that is measured: how it is started in front of the vendor, how it is asked, what it wrote down.

A peer is started as its own documentation says, with what makes it fast and nothing that makes it wrong: no debugging,
no record unless it cannot be switched off. `make bench-peers` installs them; one that is not there is left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psycopg

from bench import machine
from bench.load import NUMBER, Ask
from llmchat.tests.servers import PROJECT, Child, LiveServer, PostgreSQL, ServerFailed, free_port

PEERS = PROJECT / "bench" / ".peers"
#: The vendor's models: what most is measured with, and one whose first token can be told from its last.
MODEL, PACED = "mock-66", "mock-8?delay=0.005"
WORDS = {MODEL: 66, PACED: 8}
_ALIASES = {MODEL: "mock-66", PACED: "paced"}
_START_SECONDS = 120.0
_KEY = "sk-bench"


class Missing(Exception):
    """It is not installed; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is running.

    `process` is its first process (None: the vendor itself, asked directly), `database` that of a database beside it.
    `models` translates the vendor's names. `attempts` and `interactions` count what it has on record.
    """

    name: str
    title: str
    version: str
    command: list[str]
    port: int
    process: int | None
    path: str = "/v1/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    ending: str = "[DONE]"
    workers: int = 1
    database: int | None = None
    counted: Callable[[], tuple[int, int]] | None = None

    def ask(self, model: str, *, streamed: bool, prompt_bytes: int = 0, max_tokens: int | None = None) -> Ask:
        """The same question for everybody; the prompt is `prompt_bytes` longer than usual, the answer as long as the
        model's name says, whatever `max_tokens`."""
        prompt = f"Question {NUMBER}: what is the capital of France?" + " please" * (prompt_bytes // 7)
        body: dict[str, Any] = {
            "model": self.models.get(model, model),
            "messages": [{"role": "user", "content": prompt}],
        }
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        if streamed:
            body["stream"] = True
        return Ask(self.path, dict(self.headers), json.dumps(body), WORDS[model], streamed, self.ending)

    def processes(self) -> list[int]:
        return machine.tree(self.process) if self.process is not None else []

    def database_processes(self) -> list[int]:
        return machine.tree(self.database) if self.database is not None else []

    def web_workers(self) -> list[int]:
        """Of ours: the processes that serve; what its children beyond those do is background work."""
        assert self.process is not None
        children = Path(f"/proc/{self.process}/task/{self.process}/children").read_text().split()
        return [int(pid) for pid in children[: self.workers]]

    def freeze(self) -> None:
        """It takes no time of the core from others until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, sign: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, sign)


# --- The vendor ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upstream:
    """The vendor, running. `log` holds its calls when it was told to keep one."""

    port: int
    process: int
    log: Path | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self) -> int:
        """How many came so far."""
        return self._said("GET", "/calls")["calls"]

    def open_calls(self) -> int:
        """How many of them have not ended."""
        return self._said("GET", "/calls")["open"]

    def release(self) -> None:
        """Lets the streams end that are held."""
        self._said("POST", "/release")

    def _said(self, method: str, path: str) -> dict[str, int]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request(method, path)
            return dict(json.load(connection.getresponse()))

    def direct(self) -> Gateway:
        """Itself, to be asked like a gateway."""
        return Gateway("direct", "the vendor, asked directly", "", [], self.port, None)


@contextmanager
def upstream(directory: Path, *, cores: Sequence[int] = (), log: bool = False) -> Iterator[Upstream]:
    """The vendor of `bench/upstream.py`, on `cores` when some are given."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    calls = directory / "calls.jsonl" if log else None
    command = [sys.executable, "bench/upstream.py", "--port", str(port), *(["--log", str(calls)] if calls else [])]
    with _started("upstream", command, directory, cores=cores, directory_of=PROJECT) as child:
        vendor = Upstream(port, child.pid, calls)
        child.wait_until(lambda: _answers(vendor.direct()))
        yield vendor


# --- Ours ---------------------------------------------------------------------------------------------------------


@contextmanager
def ours(
    directory: Path,
    vendor: Upstream,
    *,
    name: str = "llmchat_sqlite",
    title: str = "llmchat, record on SQLite",
    cores: Sequence[int] = (),
    postgresql: PostgreSQL | None = None,
    redis_url: str | None = None,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
) -> Iterator[tuple[Gateway, LiveServer]]:
    """`manage.py serve` on fresh data, with the key of an organization on the plan `unlimited`.

    Every setting is the default, but for where the vendor, the database and Redis are, and `settings`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    environment = {"OPENAI_API_KEY": "mock", "OPENAI_BASE_URL": f"{vendor.url}/v1", "DEFAULT_MODEL": f"openai/{MODEL}"}
    if postgresql is not None:
        environment["DATABASE_URL"] = postgresql.create_database(name)
    if redis_url is not None:
        environment["REDIS_URL"] = redis_url
    environment |= settings or {}
    server = LiveServer(directory, environment=environment, arguments=["--workers", str(workers)])
    server.manage("migrate", "--verbosity", "0")
    server.manage("create_organization", "bench", "--plan", "unlimited")
    key = server.manage("create_api_key", "--organization", "bench").strip()
    with machine.pinned(cores or os.sched_getaffinity(0)):
        server.start()
    try:
        yield (
            Gateway(
                name=name,
                title=title,
                version=machine.commit(),
                command=[".venv/bin/python", "manage.py", "serve", "--workers", str(workers)],
                port=server.port,
                process=server.pid,
                headers={"Authorization": f"Bearer {key}"},
                models={model: f"openai/{model}" for model in WORDS},
                workers=workers,
                database=postgresql.pid if postgresql is not None else None,
                counted=lambda: counted(server),
            ),
            server,
        )
    finally:
        # It may stand still.
        for pid in machine.tree(server.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        server.stop()


def counted(server: LiveServer) -> tuple[int, int]:
    """Attempts and interactions on record, read from outside."""
    attempts, interactions = "SELECT COUNT(*) FROM chat_attempt", "SELECT COUNT(*) FROM chat_interaction"
    url = server.environment.get("DATABASE_URL")
    if url is None:
        with closing(sqlite3.connect(server.data / "llmchat.sqlite3", timeout=60)) as embedded:
            return embedded.execute(attempts).fetchone()[0], embedded.execute(interactions).fetchone()[0]
    with psycopg.connect(url) as connection:
        first, second = connection.execute(attempts).fetchone(), connection.execute(interactions).fetchone()
        assert first is not None
        assert second is not None
        return first[0], second[0]


# --- The others ---------------------------------------------------------------------------------------------------


@contextmanager
def forwarding(directory: Path, vendor: Upstream, *, cores: Sequence[int]) -> Iterator[Gateway]:
    """An ASGI function that forwards with aiohttp and does nothing else: what Python can do at best."""
    port = free_port()
    address = f"{vendor.url}/v1/chat/completions"
    command = [sys.executable, "-m", "bench.peers.forwarding", str(port), address]
    with _started("forwarding", command, directory, cores=cores, directory_of=PROJECT) as child:
        title = "bare ASGI function with aiohttp"
        gateway = Gateway(
            "forwarding", title, _versions(Path(sys.prefix), "aiohttp", "uvicorn"), command, port, child.pid
        )
        yield _ready(gateway, child)


@contextmanager
def tensorzero(directory: Path, vendor: Upstream, *, cores: Sequence[int]) -> Iterator[Gateway]:
    """The gateway that its Python package carries, its record switched off."""
    python = _installed("tensorzero", "bin/python")
    models = "".join(
        f"[models.{alias}]\nrouting = ['mock']\n\n[models.{alias}.providers.mock]\ntype = 'openai'\n"
        f"model_name = '{model}'\napi_base = '{vendor.url}/v1/'\napi_key_location = 'none'\n\n"
        for model, alias in _ALIASES.items()
    )
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "tensorzero.toml"
    config.write_text(f"[gateway]\nobservability.enabled = false\n\n{models}")
    command = [str(python), str(PROJECT / "bench/peers/tensorzero_serve.py"), str(config)]
    with _started("tensorzero", command, directory, cores=cores) as child:
        address = _said(child, r"http://127\.0\.0\.1:(\d+)/")
        gateway = Gateway(
            name="tensorzero",
            title="TensorZero, no record",
            version=_versions(PEERS / "tensorzero", "tensorzero"),
            command=command,
            port=int(address),
            process=child.pid,
            path="/openai/v1/chat/completions",
            models={model: f"tensorzero::model_name::{alias}" for model, alias in _ALIASES.items()},
        )
        yield _ready(gateway, child)


@contextmanager
def portkey(directory: Path, vendor: Upstream, *, cores: Sequence[int]) -> Iterator[Gateway]:
    """The npm package on Node; it keeps no record."""
    package = _installed("portkey", "node_modules/@portkey-ai/gateway/package.json")
    if shutil.which("node") is None:
        raise Missing("node is not installed (remedy: apt install nodejs npm)")
    port = free_port()
    command = ["node", str(package.parent / "build/start-server.js"), f"--port={port}", "--headless"]
    # Else it refuses to call an address of this machine.
    extra = {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"}
    with _started("portkey", command, directory, cores=cores, environment=extra) as child:
        headers = {
            "Authorization": "Bearer mock",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{vendor.url}/v1",
        }
        version = f"@portkey-ai/gateway {json.loads(package.read_text())['version']}"
        gateway = Gateway("portkey", "Portkey, no record", version, command, port, child.pid, headers=headers)
        yield _ready(gateway, child)


@contextmanager
def litellm(directory: Path, vendor: Upstream, *, cores: Sequence[int]) -> Iterator[Gateway]:
    """Its proxy with one worker and a key, without a database."""
    program = _installed("litellm", "bin/litellm")
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "litellm.yaml"
    # JSON is YAML too.
    config.write_text(
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": "*",
                        "litellm_params": {"model": "openai/*", "api_base": f"{vendor.url}/v1", "api_key": "mock"},
                    }
                ],
                "general_settings": {"master_key": _KEY},
            }
        )
    )
    port = free_port()
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    # The list of prices is the package's: no network, and nothing that waits for it.
    extra = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with _started("litellm", command, directory, cores=cores, environment=extra) as child:
        version = _versions(PEERS / "litellm", "litellm")
        headers = {"Authorization": f"Bearer {_KEY}"}
        gateway = Gateway("litellm", "LiteLLM proxy, no database", version, command, port, child.pid, headers=headers)
        yield _ready(gateway, child)


@contextmanager
def mlflow(directory: Path, vendor: Upstream, *, cores: Sequence[int]) -> Iterator[Gateway]:
    """The AI gateway of its server with one worker; it keeps its traces in SQLite."""
    program = _installed("mlflow", "bin/mlflow")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [str(program), "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    command += ["--default-artifact-root", str(directory / "artifacts")]
    extra = {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": "of no secret that matters, for the benchmark only",
        # Else eight more processes wait for jobs that nobody gives them.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with _started("mlflow", command, directory, cores=cores, environment=extra) as child:
        gateway = Gateway(
            name="mlflow",
            title="MLflow AI gateway, traces on SQLite",
            version=_versions(PEERS / "mlflow", "mlflow"),
            command=command,
            port=port,
            process=child.pid,
            path="/gateway/mlflow/v1/chat/completions",
            models=_ALIASES,
            ending='"finish_reason":"stop"',
        )
        _wait(child, lambda: _status(port, "GET", "/health") == 200)
        names = [f"{alias}={model}" for model, alias in _ALIASES.items()]
        subprocess.run(
            [
                str(program.with_name("python")),
                str(PROJECT / "bench/peers/mlflow_prepare.py"),
                f"http://127.0.0.1:{port}",
                vendor.url,
                *names,
            ],
            cwd=directory,
            env=_environment(directory),
            check=True,
            capture_output=True,
        )
        yield _ready(gateway, child)


#: In the order in which they are measured and shown.
OTHERS = {
    "forwarding": forwarding,
    "tensorzero": tensorzero,
    "portkey": portkey,
    "litellm": litellm,
    "mlflow": mlflow,
}


def plain(words: Sequence[str], *directories: Path) -> str:
    """A command line without the places of this machine."""
    line = " ".join(words).replace(sys.executable, ".venv/bin/python")
    for directory in directories:
        line = line.replace(str(directory), "TMP")
    return line.replace(f"{PROJECT}/", "").replace(str(PROJECT), ".")


# --- Starting -----------------------------------------------------------------------------------------------------


@contextmanager
def _started(
    name: str,
    command: Sequence[str],
    directory: Path,
    *,
    cores: Sequence[int],
    environment: Mapping[str, str] | None = None,
    directory_of: Path | None = None,
) -> Iterator[Child]:
    directory.mkdir(parents=True, exist_ok=True)
    child = Child(directory / f"{name}.log")
    with machine.pinned(cores or os.sched_getaffinity(0)):
        child.start(
            command, environment=_environment(directory) | dict(environment or {}), directory=directory_of or directory
        )
    try:
        yield child
    finally:
        child.kill()


def _environment(home: Path) -> dict[str, str]:
    """Nobody's keys, settings and proxies, and a home that is thrown away."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def _installed(peer: str, path: str) -> Path:
    """Raises Missing."""
    found = PEERS / peer / path
    if not found.exists():
        raise Missing(f"{peer} is not installed (remedy: make bench-peers)")
    return found


def _versions(prefix: Path, *names: str) -> str:
    packages = [str(path) for path in prefix.glob("lib/python*/site-packages")]
    found = {each.name: each.version for each in distributions(path=packages)}
    return ", ".join(f"{name} {found.get(name, 'unknown')}" for name in names)


def _said(child: Child, pattern: str) -> str:
    """The first group of what its log says."""
    _wait(child, lambda: re.search(pattern, child.log_tail()) is not None)
    found = re.search(pattern, child.log_tail())
    assert found is not None
    return found[1]


def _ready(gateway: Gateway, child: Child) -> Gateway:
    """Returns when it has answered a question."""
    _wait(child, lambda: _answers(gateway))
    return gateway


def _wait(child: Child, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if not child.alive or time.monotonic() > deadline:
            raise ServerFailed(f"it {'is not ready' if child.alive else 'ended'}\n{child.log_tail()}")
        time.sleep(0.1)


def _answers(gateway: Gateway) -> bool:
    ask = gateway.ask(MODEL, streamed=False)
    return _status(gateway.port, "POST", ask.path, ask.body.replace(NUMBER, "0"), ask.headers) == 200


def _status(
    port: int, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
) -> int | None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
        return connection.getresponse().status
    return None
