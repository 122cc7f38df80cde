"""Runs inside TensorZero's own environment: starts the gateway that its Python package carries, and says where.

python tensorzero_serve.py CONFIG
"""

from __future__ import annotations

import signal
import sys

import tensorzero

gateway = tensorzero._start_http_gateway(  # noqa: SLF001 - the package's only way to serve HTTP
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
)
print(gateway.base_url, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
gateway.close()
