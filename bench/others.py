"""The other gateways, each in front of the same vendor.

Each is started as its own documentation says, with what makes it fast and nothing that makes it wrong: no debugging,
no record unless it cannot be switched off. `make bench-peers` installs them; one that is not there is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.gateway import MODEL, PACED, Gateway
from bench.gateways import Upstream
from bench.starting import environment_of, said_in_log, started, status_of, versions, wait_until, when_ready
from llmchat.tests.servers import PROJECT, free_port

PEERS = PROJECT / "bench" / ".peers"
_ALIASES = {MODEL: "mock-66", PACED: "paced"}
_KEY = "sk-bench"


class Missing(Exception):
    """It is not installed; the message names the remedy."""


@contextmanager
def forwarding(directory: Path, vendor: Upstream, *, cores: Sequence[int]) -> Iterator[Gateway]:
    """An ASGI function that forwards with aiohttp and does nothing else: what Python can do at best."""
    port = free_port()
    address = f"{vendor.url}/v1/chat/completions"
    command = [sys.executable, "-m", "bench.peers.forwarding", str(port), address]
    with started("forwarding", command, directory, cores=cores, directory_of=PROJECT) as child:
        title = "bare ASGI function with aiohttp"
        gateway = Gateway(
            "forwarding", title, versions(Path(sys.prefix), "aiohttp", "uvicorn"), command, port, child.pid
        )
        yield when_ready(gateway, child)


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
    with started("tensorzero", command, directory, cores=cores) as child:
        address = said_in_log(child, r"http://127\.0\.0\.1:(\d+)/")
        gateway = Gateway(
            name="tensorzero",
            title="TensorZero, no record",
            version=versions(PEERS / "tensorzero", "tensorzero"),
            command=command,
            port=int(address),
            process=child.pid,
            path="/openai/v1/chat/completions",
            models={model: f"tensorzero::model_name::{alias}" for model, alias in _ALIASES.items()},
        )
        yield when_ready(gateway, child)


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
    with started("portkey", command, directory, cores=cores, environment=extra) as child:
        headers = {
            "Authorization": "Bearer mock",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{vendor.url}/v1",
        }
        version = f"@portkey-ai/gateway {json.loads(package.read_text())['version']}"
        gateway = Gateway("portkey", "Portkey, no record", version, command, port, child.pid, headers=headers)
        yield when_ready(gateway, child)


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
    with started("litellm", command, directory, cores=cores, environment=extra) as child:
        version = versions(PEERS / "litellm", "litellm")
        headers = {"Authorization": f"Bearer {_KEY}"}
        gateway = Gateway("litellm", "LiteLLM proxy, no database", version, command, port, child.pid, headers=headers)
        yield when_ready(gateway, child)


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
    with started("mlflow", command, directory, cores=cores, environment=extra) as child:
        gateway = Gateway(
            name="mlflow",
            title="MLflow AI gateway, traces on SQLite",
            version=versions(PEERS / "mlflow", "mlflow"),
            command=command,
            port=port,
            process=child.pid,
            path="/gateway/mlflow/v1/chat/completions",
            models=_ALIASES,
            ending='"finish_reason":"stop"',
        )
        wait_until(child, lambda: status_of(port, "GET", "/health") == 200)
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
            env=environment_of(directory),
            check=True,
            capture_output=True,
        )
        yield when_ready(gateway, child)


#: In the order in which they are measured and shown.
OTHERS = {
    "forwarding": forwarding,
    "tensorzero": tensorzero,
    "portkey": portkey,
    "litellm": litellm,
    "mlflow": mlflow,
}


def _installed(peer: str, path: str) -> Path:
    """Raises Missing."""
    found = PEERS / peer / path
    if not found.exists():
        raise Missing(f"{peer} is not installed (remedy: make bench-peers)")
    return found
