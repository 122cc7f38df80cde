"""The vendor of `bench/upstream.py` as a process of the test's own, and what its log tells."""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llmchat.tests.servers import PROJECT, Child


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One call that the vendor received. `ended`: `finished` or `gone`, None while it is being answered."""

    number: int
    prompt: str
    streamed: bool
    ended: str | None
    chunks: int | None


class MockUpstream:
    """Args: an empty directory for its log and its output."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / "calls.jsonl"
        self.url = ""
        self._child = Child(directory / "output")

    @property
    def environment(self) -> dict[str, str]:
        """Settings with which llmchat takes this for OpenAI."""
        return {"OPENAI_API_KEY": "mock", "OPENAI_BASE_URL": f"{self.url}/v1"}

    def release(self) -> None:
        """Lets the streams end that are held (`mock-1000?held=1`)."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/release", method="POST"), timeout=60):
            pass

    def calls(self) -> list[UpstreamCall]:
        """All calls so far, in the order in which they came."""
        received: dict[int, dict[str, object]] = {}
        for line in self.log.read_text(encoding="utf-8").splitlines():
            fields = json.loads(line)
            received.setdefault(fields["call"], {}).update(fields)
        return [
            UpstreamCall(
                number=number,
                prompt=str(fields["prompt"]),
                streamed=bool(fields["streamed"]),
                ended=fields.get("ended"),  # type: ignore[arg-type]
                chunks=fields.get("chunks"),  # type: ignore[arg-type]
            )
            for number, fields in received.items()
        ]

    def __enter__(self) -> Self:
        command = [sys.executable, "bench/upstream.py", "--log", str(self.log)]
        self._child.start(command, environment=dict(os.environ), directory=PROJECT)
        self._child.wait_until(self._says_where)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()

    def _says_where(self) -> bool:
        found = re.search(r"^(http://\S+)\n", self._child.log_tail())
        self.url = found[1] if found else ""
        return bool(found)
