"""Garbage collection in a process that serves. In processes of their own: there is one collector for each."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc
from llmchat.lib import garbage

class Circle:
    alive = 0
    def __init__(self):
        self.me = self
        Circle.alive += 1
    def __del__(self):
        Circle.alive -= 1

before = [[] for _ in range(1_000)]
garbage.collect_seldom()
looks = sum(generation["collections"] for generation in gc.get_stats())
assert not any(value is before for value in gc.get_objects()), "what was there is looked at"
most = 0
{body}
print(sum(generation["collections"] for generation in gc.get_stats()) - looks, most)
"""


def looks_and_circles(body: str) -> tuple[int, int]:
    """How often the collector looked while `body` ran, and what it left in `most`."""
    program = _PROGRAM.replace("{body}", body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    looks, most = done.stdout.split()
    return int(looks), int(most)


def test_collector_does_not_look_while_sixty_requests_are_in_flight() -> None:
    in_flight = "held = [[[] for _ in range(300)] for _ in range(64)]"
    assert looks_and_circles(in_flight) == (0, 0)


def test_circles_are_let_go_of_all_the_same() -> None:
    looks, most = looks_and_circles("for _ in range(300_000):\n    Circle()\n    most = max(most, Circle.alive)")
    assert looks >= 5
    assert most <= 60_000
