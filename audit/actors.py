"""Who acts at this moment: the person behind the request, a command, or a task. Knows no rows.

Whoever stands at an entrance says who comes in (`acting`, or the middleware); deeper down nobody has to hand it on.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from audit.models import ActorKind

#: Commands that stay and serve others: what is done within them is not the doing of who started them.
_SERVERS = frozenset({"serve", "runserver", "worker"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """`person_id`: of a person who has logged in. `address` and `request_id`: of the request, if there is one."""

    kind: ActorKind
    name: str
    person_id: Any = None
    address: str | None = None
    request_id: str = ""


#: Asked only when there is something to write: who a request's person is may take a query.
_current: ContextVar[Callable[[], Actor] | None] = ContextVar("audit_actor", default=None)


def current() -> Actor:
    """Who acts here and now."""
    tell = _current.get()
    return _of_the_process() if tell is None else tell()


def enter(tell: Callable[[], Actor]) -> Token[Callable[[], Actor] | None]:
    """From now on `tell` says who acts, until `leave` with what this returns."""
    return _current.set(tell)


def leave(token: Token[Callable[[], Actor] | None]) -> None:
    _current.reset(token)


@contextmanager
def acting(name: str, *, kind: ActorKind = ActorKind.SYSTEM) -> Iterator[None]:
    """What is done within is done by `name`."""
    actor = Actor(kind=kind, name=name)
    token = enter(lambda: actor)
    try:
        yield
    finally:
        leave(token)


def _of_the_process() -> Actor:
    """The command that was called, with the account that called it; for a server, the program itself."""
    program = PurePath(sys.argv[0] if sys.argv else "").name
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if program != "manage.py" or command in _SERVERS:
        return Actor(kind=ActorKind.SYSTEM, name="background work" if program != "manage.py" else command)
    return Actor(kind=ActorKind.COMMAND, name=f"manage.py {command}{_account()}"[:200])


def _account() -> str:
    try:
        return f" ({getpass.getuser()})"
    except (KeyError, OSError):
        return ""
