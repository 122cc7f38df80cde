"""Ids: ordered, unique, and telling their time."""

import datetime as dt
import os
import threading
import time
from uuid import UUID

import pytest

from llmchat.lib import uuid7 as module
from llmchat.lib.uuid7 import floor_at, moment_of, uuid7


def test_ids_are_version_7_and_rise():
    made = [uuid7() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {(identifier.version, identifier.variant) for identifier in made} == {(7, made[0].variant)}


def test_ids_rise_when_the_clock_steps_back_an_hour(monkeypatch):
    before = uuid7()
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    after = [uuid7() for _ in range(1000)]
    assert sorted([before, *after]) == [before, *after]
    assert len({before, *after}) == 1001


def test_ids_rise_when_the_counter_runs_over(monkeypatch):
    uuid7()
    monkeypatch.setattr(module, "_counter", module._COUNTER_MASK - 1)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    made = [uuid7() for _ in range(4)]
    assert made == sorted(made)
    assert len(set(made)) == 4


def test_ids_of_threads_never_meet():
    made: list[object] = []

    def make() -> None:
        made.extend([uuid7() for _ in range(2000)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16_000


def test_ids_of_forks_never_meet():
    uuid7()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"".join(uuid7().bytes for _ in range(500)))
        os._exit(0)
    mine = {uuid7().bytes for _ in range(500)}
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        raw = pipe.read()
    theirs = {raw[start : start + 16] for start in range(0, len(raw), 16)}
    assert len(mine | theirs) == 1000


def test_the_floor_of_a_moment_is_below_every_id_from_then_on():
    moment = dt.datetime.now(dt.UTC)
    identifier = uuid7()
    assert floor_at(moment) <= identifier
    assert floor_at(moment + dt.timedelta(hours=1)) > identifier
    assert abs(moment_of(identifier) - moment) < dt.timedelta(hours=2)


def test_another_kind_of_uuid_has_no_moment():
    with pytest.raises(ValueError, match="not a UUIDv7"):
        moment_of(UUID(int=0))


def test_what_is_before_1970_is_before_every_id():
    assert (
        floor_at(dt.datetime(1900, 1, 1, tzinfo=dt.UTC)) == floor_at(dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) < uuid7()
    )
