"""Garbage collection in a process that serves. In processes of their own: there is one collector for each."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from llmchat.tests.servers import PROJECT

pytestmark = pytest.mark.once

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


_REQUESTS = """
import asyncio, gc, json, os, sys, uuid
report, sys.stdout = sys.stdout, open(os.devnull, "w")
from bench import way_in

async def circles():
    key = await asyncio.to_thread(way_in.set_up)
    from django.conf import settings
    from llmchat import asgi
    from llmchat.lib import lifecycle
    messages = asyncio.Queue()
    lifespan = asyncio.create_task(lifecycle.lifespan({}, messages.get, asyncio.Queue().put))
    await messages.put({"type": "lifespan.startup"})
    connection = way_in.Connection(asgi.application)
    found = {}
    for name, raw in way_in.requests(key).items():
        statuses = {(await connection.ask(raw)).split(b" ")[1].decode() for _ in range(5)}
        await asyncio.sleep(0.5)
        gc.collect()
        gc.disable()
        for _ in range(50):
            statuses.add((await connection.ask(raw)).split(b" ")[1].decode())
        await asyncio.sleep(0.5)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        found[name] = [sorted(statuses), len(gc.garbage), sorted({type(thing).__qualname__ for thing in gc.garbage})]
        gc.garbage.clear()
        gc.enable()
    await messages.put({"type": "lifespan.shutdown"})
    while not lifecycle.is_stopping():
        await asyncio.sleep(0.01)
    return found

json.dump(asyncio.run(circles()), report)
"""


def test_requests_leave_no_circles() -> None:
    """Each kind of request, through the protocol, the handlers and the engine, fifty times: what the collector would
    find of them afterwards is less than one thing a request."""
    done = subprocess.run(
        [sys.executable, "-c", _REQUESTS], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: statuses for name, (statuses, _, _) in found.items()} == {
        "native": ["200"],
        "native, streamed": ["200"],
        "OpenAI's": ["200"],
        "OpenAI's, streamed": ["200"],
        "live": ["200"],
        "wrong body": ["400"],
    }
    # A refused body leaves those of its exception: they are few, and the collector's.
    del found["wrong body"]
    assert {name: kinds for name, (_, count, kinds) in found.items() if count >= 50} == {}
