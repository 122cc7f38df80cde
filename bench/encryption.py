"""What encryption at rest costs a row: microseconds to store and to read an interaction, with and without a key.

    .venv/bin/python bench/encryption.py [--rows N]

Measured is what the columns do, without a database: that costs the same either way, save for a third more bytes.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmchat.settings")
DATA = tempfile.TemporaryDirectory(prefix="llmchat-bench-")
os.environ |= {"ENV_FILE": os.devnull, "DATA_DIR": DATA.name}

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402

from chat.fields import EncryptedJSONField, EncryptedTextField  # noqa: E402
from chat.models import Interaction  # noqa: E402

COLUMNS = [
    field for field in Interaction._meta.concrete_fields if isinstance(field, EncryptedTextField | EncryptedJSONField)
]


def row(size: int) -> Interaction:
    """A plain exchange: prompt and response of `size` bytes each, and what usually stands beside them."""
    text = (secrets.token_hex(16) + " ") * (size // 33 + 1)
    return Interaction(
        prompt=text[:size],
        response=text[:size],
        system_prompt="You are the shop's assistant. Be brief.",
        parameters={"temperature": 0.7, "max_tokens": 400},
        metadata={"app": "shop"},
    )


def stored(interaction: Interaction) -> list[Any]:
    return [field.get_db_prep_save(getattr(interaction, field.attname), connection) for field in COLUMNS]


def read(values: list[Any]) -> list[Any]:
    return [field.from_db_value(value, None, connection) for field, value in zip(COLUMNS, values, strict=True)]


def microseconds(work: Any, *, rows: int) -> float:
    """Of the processor's time, the best of twenty rounds: what disturbs a round only makes it slower."""
    best = float("inf")
    for _ in range(20):
        began = time.process_time()
        for _ in range(rows):
            work()
        best = min(best, time.process_time() - began)
    return best / rows * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="rows of 1 KB in a round; a twentieth of them of 100 KB")
    count = parser.parse_args().rows
    print(f"{'':22}{'plain':>10}{'encrypted':>12}{'more':>10}   (microseconds a row)")
    for size, rows in ((1_000, count), (100_000, max(1, count // 20))):
        interaction = row(size)
        figures = []
        for keys in ((), (secrets.token_bytes(32),)):
            settings.TEXT_ENCRYPTION_KEYS = keys
            values = stored(interaction)
            works = (partial(stored, interaction), partial(read, values))
            figures.append([microseconds(work, rows=rows) for work in works])
        for what, plain, encrypted in zip(("store", "read"), *figures, strict=True):
            print(f"{what + f', 2 x {size // 1000} KB':22}{plain:10.1f}{encrypted:12.1f}{encrypted - plain:10.1f}")


if __name__ == "__main__":
    main()
