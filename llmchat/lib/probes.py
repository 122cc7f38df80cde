"""Asking something that may hang, without hanging: one question at a time, in a thread of its own, and its answer kept
for a moment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Probe(Generic[T]):
    """`question`: blocking. `kept`: seconds for which its answer, or its error, stands. `patience`: seconds that one
    who asks waits at most; the question goes on meanwhile, and nobody asks it a second time."""

    def __init__(self, question: Callable[[], T], *, kept: float, patience: float) -> None:
        self._question = question
        self._kept = kept
        self._patience = patience
        self._answer: Future[T] | None = None
        self._answered_at = 0.0

    async def ask(self) -> T:
        """Raises TimeoutError when patience is at its end, or whatever the question raises."""
        answer = self._answer
        if answer is None or (answer.done() and time.monotonic() - self._answered_at >= self._kept):
            answer = self._answer = Future()
            # A daemon, since a process must not wait for a question that hangs before it ends.
            threading.Thread(target=self._find, args=(answer,), name="probe", daemon=True).start()
        # Shielded: those who give up must not take the answer from the others.
        async with asyncio.timeout(self._patience):
            return await asyncio.shield(asyncio.wrap_future(answer))

    def _find(self, answer: Future[T]) -> None:
        try:
            found = self._question()
        except BaseException as error:
            self._answered_at = time.monotonic()
            answer.set_exception(error)
        else:
            self._answered_at = time.monotonic()
            answer.set_result(found)
