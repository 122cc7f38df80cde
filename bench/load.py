"""Load that costs little: one thread, many connections, each asking again as soon as it has its answer.

It speaks HTTP/1.1 on bare sockets, so that one core carries it and the vendor beside the fastest gateway; asked
straight from the vendor, `make bench` says where its own ceiling is. Every answer is read to its end and checked. It
knows no gateway: path, headers and body come from whoever calls.

    python -m bench.load < task.json > tally.json
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

#: Stands in a body for the request's number, which makes each prompt one of its own.
NUMBER = "#" * 10
#: Of so many answers one is taken apart to the last event, whatever the quick look says.
TAKEN_APART_EVERY = 50
#: Answers of which fewer say little.
LEAST = 100
_LONGER = 5
_SAMPLES = 5
#: Bytes at the end of a stream in which its ending must stand: our own `done` repeats the whole answer.
_TAIL = 4096
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSING = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
#: Instead of the bytes that an answer has: its head is not there yet, and the two other ways to tell its end.
_UNKNOWN, _IN_CHUNKS, _UNTIL_CLOSED = -1, -2, -3
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_WORDS = re.compile(r"word(\d+) ")


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request. `body` holds `NUMBER`; `words` is how many of the vendor's words the answer must have (0: as
    many as there are, in their order), and `ending` what shows that a stream has come to its end."""

    path: str
    headers: dict[str, str]
    body: str
    words: int
    streamed: bool
    ending: str = "[DONE]"


@dataclass(frozen=True, slots=True)
class Task:
    """What to do: `asks` in turns, for `seconds` after `warm_up` seconds, or `count` requests, whatever they take.

    A slow gateway is given up to five times the `seconds`, until it has given `LEAST` answers.

    `cores` is where to run. `sources` are addresses to connect from, in turns; none leaves it to the system. `opening`
    connections at most wait for the first byte of their first answer; 0 opens all at once. `first` is the number of
    the first request. After `patience` seconds without its whole answer a request counts as failed. `rate`: requests a
    second at most, however many connections wait; 0 is as many as there are answers.
    """

    host: str
    port: int
    asks: list[Ask]
    connections: int
    seconds: float = 0.0
    warm_up: float = 0.0
    count: int | None = None
    first: int = 0
    opening: int = 0
    patience: float = 120.0
    rate: float = 0.0
    cores: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """What came of it. Times in seconds, `per_second` and the quantiles of the time after the warm-up only.

    `asked` counts all requests, `answered` those that were right; `samples` shows the first wrong ones.
    """

    asked: int = 0
    answered: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    seconds: float = 0.0
    per_second: float = 0.0
    p50: float | None = None
    p99: float | None = None
    first_p50: float | None = None
    first_p99: float | None = None
    cpu_seconds: float = 0.0


class _Connection:
    """A socket and the answer that is coming in on it."""

    __slots__ = (
        "ask",
        "began",
        "closing",
        "first",
        "is_heard",
        "left",
        "needed",
        "number",
        "parts",
        "size",
        "socket",
        "unsent",
    )

    def __init__(self, link: socket.socket) -> None:
        self.socket = link
        self.left = True
        self.is_heard = False
        self.unsent = b""

    def begin(self, ask: Ask, number: int) -> None:
        self.ask, self.number = ask, number
        self.parts: list[bytes] = []
        self.size = 0
        #: Bytes of the whole answer, or one of the three below.
        self.needed = _UNKNOWN
        self.closing = False
        self.first = 0.0
        self.left = False
        self.began = time.perf_counter()

    def take(self, data: bytes) -> bool:
        """Returns whether the answer is whole."""
        self.parts.append(data)
        self.size += len(data)
        if self.needed == _UNKNOWN and not self._read_head():
            return False
        if not self.first and b"word" in data:
            self.first = time.perf_counter()
        if self.needed == _IN_CHUNKS:
            if len(data) < len(_LAST_CHUNK):
                data = b"".join(self.parts[-len(_LAST_CHUNK) :])
            return data.endswith(_LAST_CHUNK)
        return self.size >= self.needed >= 0

    def _read_head(self) -> bool:
        raw = b"".join(self.parts)
        end = raw.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = raw[:end]
        self.closing = _CLOSING.search(head) is not None
        if found := _LENGTH.search(head):
            self.needed = end + 4 + int(found[1])
        else:
            self.needed = _IN_CHUNKS if _CHUNKED.search(head) else _UNTIL_CLOSED
        return True

    def fault(self) -> str | None:
        """What is wrong with the answer, in a word or two; None for a right one."""
        raw = b"".join(self.parts)
        head, _, body = raw.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            return f"status {head[9:12].decode(errors='replace')}"
        ask = self.ask
        is_ended = not ask.streamed or ask.ending.encode() in body[-_TAIL:]
        if is_ended and body.count(b"word") == ask.words and self.number % TAKEN_APART_EVERY:
            return None
        if not is_ended:
            return "a stream without its end"
        try:
            text = _text(_dechunked(body) if self.needed == _IN_CHUNKS else body, streamed=ask.streamed)
        except (ValueError, KeyError, IndexError, TypeError, orjson.JSONDecodeError) as problem:
            return f"not an answer ({type(problem).__name__}: {problem})"
        words = [int(number) for number in _WORDS.findall(text)]
        if words != list(range(ask.words or max(1, len(words)))):
            return f"not the vendor's {ask.words or ''} words"
        return None


class Load:
    """Carries out one task."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._poll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._requests = [_split(ask, task.host, task.port) for ask in task.asks]
        self._opened = self._heard = self._busy = 0
        self._tally = Tally()
        self._errors: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._counted = 0
        #: Connections that wait for their turn, where there is a rate.
        self._idle: deque[_Connection] = deque()
        #: When the last request was begun and the measuring ended; what comes in afterwards is checked, not timed.
        self._over: float | None = None

    def run(self) -> Tally:
        task, tally = self._task, self._tally
        began = time.perf_counter()
        self._from, self._until = began + task.warm_up, began + task.warm_up + task.seconds
        self._latest = self._from + _LONGER * task.seconds
        wanted = min(task.connections, task.count or task.connections)
        looked = began
        while self._opened < wanted or self._busy or self._idle:
            while self._opened < wanted and (not task.opening or self._opened - self._heard < task.opening):
                self._open()
            for fd, event in self._poll.poll(self._ask_due()):
                # One that was closed in this very turn is of no interest any more.
                if (connection := self._connections.get(fd)) is not None:
                    self._handle(connection, event)
            if (now := time.perf_counter()) > looked + 1.0:
                looked = now
                self._give_up(now)
        ended = time.perf_counter()
        for each in self._connections.values():
            each.socket.close()
        tally.seconds = ended - began
        tally.per_second = self._counted / ((self._over or ended) - self._from)
        tally.p50, tally.p99 = quantile(self._latencies, 0.5), quantile(self._latencies, 0.99)
        tally.first_p50, tally.first_p99 = quantile(self._firsts, 0.5), quantile(self._firsts, 0.99)
        tally.errors = dict(self._errors)
        used = resource.getrusage(resource.RUSAGE_SELF)
        tally.cpu_seconds = used.ru_utime + used.ru_stime
        return tally

    def _open(self) -> None:
        link = socket.socket()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._task.sources:
            link.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            link.bind((self._task.sources[self._opened % len(self._task.sources)], 0))
        self._opened += 1
        try:
            link.connect((self._task.host, self._task.port))
        except OSError as problem:
            # Nothing follows on it: a gateway that is gone is not asked for ever.
            link.close()
            self._heard += 1
            self._tally.asked += 1
            self._errors[f"not connected ({errno.errorcode.get(problem.errno or 0)})"] += 1
            return
        link.setblocking(False)
        connection = _Connection(link)
        self._connections[link.fileno()] = connection
        self._poll.register(link, select.EPOLLIN)
        self._ask(connection)

    def _ask(self, connection: _Connection) -> None:
        task, tally = self._task, self._tally
        if self._is_enough(now := time.perf_counter()):
            return
        if now < self._due():
            self._idle.append(connection)
            return
        number = task.first + tally.asked
        before, after = self._requests[tally.asked % len(self._requests)]
        connection.begin(task.asks[tally.asked % len(task.asks)], number)
        tally.asked += 1
        self._busy += 1
        connection.unsent = b"%b%010d%b" % (before, number, after)
        self._send(connection)

    def _due(self) -> float:
        """When the next request is to be made."""
        return self._from - self._task.warm_up + self._tally.asked / self._task.rate if self._task.rate else 0.0

    def _ask_due(self) -> float:
        """Asks on connections that wait, as far as it is time. Returns for how long nothing needs to be asked."""
        while self._idle and ((left := self._due() - time.perf_counter()) <= 0 or self._is_enough(time.perf_counter())):
            self._ask(self._idle.popleft())
        return min(1.0, max(0.0, left)) if self._idle else 1.0

    def _send(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError as problem:
            self._failed(connection, f"cut ({errno.errorcode.get(problem.errno or 0)})")
            return
        had_waited = len(connection.unsent) and sent < len(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        if had_waited:
            self._poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _handle(self, connection: _Connection, event: int) -> None:
        if event & select.EPOLLOUT and connection.unsent:
            self._send(connection)
            if not connection.unsent:
                self._poll.modify(connection.socket, select.EPOLLIN)
        if not event & ~select.EPOLLOUT:
            return
        try:
            data = connection.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as problem:
            self._failed(connection, f"cut ({errno.errorcode.get(problem.errno or 0)})")
            return
        if connection.left:
            # Nothing is under way on it: what comes is the other side's farewell.
            self._poll.unregister(connection.socket)
        elif not data:
            if connection.needed == _UNTIL_CLOSED:
                connection.closing = True
                self._whole(connection)
            else:
                self._failed(connection, "cut")
        else:
            if not connection.size:
                self._hear(connection)
            if connection.take(data):
                self._whole(connection)

    def _hear(self, connection: _Connection) -> None:
        """Another connection need not be waited for, be it that its answer begins or that it failed before."""
        if not connection.is_heard:
            connection.is_heard = True
            self._heard += 1

    def _whole(self, connection: _Connection) -> None:
        now = time.perf_counter()
        connection.left = True
        self._busy -= 1
        fault = connection.fault()
        if fault is not None:
            self._note(fault, connection)
        else:
            self._tally.answered += 1
            if self._from <= now and (self._over is None or self._task.count is not None):
                self._counted += 1
                self._latencies.append(now - connection.began)
                if connection.ask.streamed and connection.first:
                    self._firsts.append(connection.first - connection.began)
        if connection.closing:
            self._replace(connection)
        else:
            self._ask(connection)

    def _failed(self, connection: _Connection, fault: str) -> None:
        if not connection.left:
            self._busy -= 1
            self._note(fault, connection)
            self._hear(connection)
        self._replace(connection)

    def _replace(self, connection: _Connection) -> None:
        """A new connection in the place of one that is of no more use."""
        self._connections.pop(connection.socket.fileno(), None)
        connection.socket.close()
        if not self._is_enough(time.perf_counter()):
            self._open()

    def _is_enough(self, now: float) -> bool:
        """Whether no further request is to be made."""
        if self._task.count is not None:
            return self._tally.asked >= self._task.count
        if self._over is None and now >= self._until and (self._counted >= LEAST or now >= self._latest):
            self._over = now
        return self._over is not None

    def _note(self, fault: str, connection: _Connection) -> None:
        self._errors[fault] += 1
        if len(self._tally.samples) < _SAMPLES:
            seen = b"".join(connection.parts).decode(errors="replace")
            self._tally.samples.append(f"{fault}: {seen if len(seen) < 800 else f'{seen[:100]} ... {seen[-600:]}'}")

    def _give_up(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if not connection.left and now - connection.began > self._task.patience:
                self._failed(connection, "no answer in time")


def quantile(values: list[float], share: float) -> float | None:
    """The value below which `share` of them lie; None without any."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else None


def _split(ask: Ask, host: str, port: int) -> tuple[bytes, bytes]:
    """The request before and after its number."""
    body = ask.body.encode()
    headers = {
        "Host": f"{host}:{port}",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **ask.headers,
    }
    head = f"POST {ask.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    before, found, after = (head.encode() + b"\r\n" + body).partition(NUMBER.encode())
    if not found:
        raise ValueError("the body has no place for the request's number")
    return before, after


def _dechunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def _text(body: bytes, *, streamed: bool) -> str:
    """The answer's text. Raises what reading raises when the body is not what it should be."""
    if not streamed:
        return _whole_text(orjson.loads(body))
    pieces: list[str] = []
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if line and not line.startswith(b":"))
        data = fields.get(b"data")
        if data is None:
            continue
        if fields.get(b"event") == b"delta":
            pieces.append(orjson.loads(data)["text"])
        elif data != b"[DONE]" and fields.get(b"event") != b"done":
            value = orjson.loads(data)
            pieces += [choice["delta"].get("content") or "" for choice in value["choices"]]
    return "".join(pieces)


def _whole_text(value: dict[str, Any]) -> str:
    return str(value["response"] if "response" in value else value["choices"][0]["message"]["content"])


def main() -> None:
    given = json.load(sys.stdin)
    task = Task(**{**given, "asks": [Ask(**ask) for ask in given["asks"]]})
    if task.cores:
        os.sched_setaffinity(0, task.cores)
    json.dump(asdict(Load(task).run()), sys.stdout)


if __name__ == "__main__":
    main()
