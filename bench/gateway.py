"""A gateway that is running, whoever's it is: where it listens, how it is asked, which processes it has."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.load import NUMBER, Ask

#: The vendor's models: what most is measured with, and one whose first token can be told from its last.
MODEL, PACED = "mock-66", "mock-8?delay=0.005"
WORDS = {MODEL: 66, PACED: 8}


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
