"""Questions that may hang."""

from __future__ import annotations

import asyncio
import threading

import pytest

from llmchat.lib.probes import Probe


class Question:
    """Counts how often it was asked; waits until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = threading.Event()

    def __call__(self) -> int:
        self.asked += 1
        self.let_go.wait()
        return self.asked


async def test_many_who_ask_at_once_share_one_question() -> None:
    question = Question()
    probe = Probe(question, kept=0.0, patience=30.0)
    asking = [asyncio.create_task(probe.ask()) for _ in range(5)]
    await asyncio.sleep(0)
    question.let_go.set()
    assert await asyncio.gather(*asking) == [1] * 5


async def test_answer_is_kept_for_its_time() -> None:
    question = Question()
    question.let_go.set()
    kept, forgotten = Probe(question, kept=60.0, patience=30.0), Probe(question, kept=0.0, patience=30.0)
    assert [await kept.ask(), await kept.ask(), await forgotten.ask(), await forgotten.ask()] == [1, 1, 2, 3]


async def test_impatient_do_not_ask_again_while_the_question_hangs() -> None:
    question = Question()
    probe = Probe(question, kept=60.0, patience=0.01)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await probe.ask()
    assert question.asked == 1
    question.let_go.set()
    patient = Probe(question, kept=60.0, patience=30.0)
    patient._answer = probe._answer
    assert await patient.ask() == 1


async def test_error_is_told_and_the_question_asked_again() -> None:
    def fail() -> int:
        raise ValueError("no")

    probe = Probe(fail, kept=0.0, patience=30.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await probe.ask()
