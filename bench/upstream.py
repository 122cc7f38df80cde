"""A vendor that costs nothing: answers OpenAI's chat completions, whole or streamed, and keeps a log of every call.

Fault tests compare its log with the record, benchmarks put it behind every gateway they measure. It knows nothing of
llmchat and plays no faults: those are in `providers/adapters/simulated` and `providers/tests/upstream.py`.

    python bench/upstream.py [--port N] [--log FILE]

The name of the model says how it answers, all parameters being optional:

    mock-66?first=0.1&delay=0.002&burst=4

66 chunks of one token; 0.1 s until the first; 0.002 s between two writes of 4 chunks each. A whole answer takes as
long. A stream of `mock-1000?delay=5&held=1` goes on until `POST /release`, and ends with its next write then.

The log has two lines of JSON for a call: `{"call", "at", "model", "prompt", "streamed"}` before anything is answered,
`{"call", "at", "ended", "chunks"}` once it has ended: `finished`, or `gone` when the client closed the connection
before that. `at` is the time since 1970 in seconds, `chunks` how many were sent. `GET /calls` tells how many calls
came and how many of them are open.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import httptools
import orjson
import uvloop

_CREATED = 1_700_000_000
_EVENT_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
#: Stands for the call's number in what is made once for all calls; control characters are in no JSON.
_NUMBER = b"\0" * 10
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found"}


class Refused(Exception):
    """The request is none that this vendor answers."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a model answers: tokens, seconds until the first, seconds between two writes, chunks a write, and whether
    it goes on until it is released."""

    chunks: int
    first: float = 0.0
    delay: float = 0.0
    burst: int = 1
    held: bool = False

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, model: str) -> Self:
        """Raises Refused for a name that does not say how."""
        name, _, query = model.partition("?")
        parameters = dict(parse_qsl(query))
        try:
            return cls(
                chunks=int(name.removeprefix("mock-")),
                first=float(parameters.pop("first", 0)),
                delay=float(parameters.pop("delay", 0)),
                burst=max(1, int(parameters.pop("burst", 1))),
                held=bool(int(parameters.pop("held", 0))),
                **parameters,
            )
        except (TypeError, ValueError):
            raise Refused(f"{model} is not like mock-66?first=0.1&delay=0.002&burst=4") from None


class Log:
    """The calls in the order in which they came. Without a path they are only counted."""

    def __init__(self, path: Path | None) -> None:
        self._calls = self._ended = 0
        #: Whether streams that are held may end.
        self.released = False
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600) if path else None

    @property
    def calls(self) -> int:
        """How many came so far."""
        return self._calls

    @property
    def open(self) -> int:
        """How many of them have not ended."""
        return self._calls - self._ended

    def received(self, *, model: str, prompt: str, streamed: bool) -> int:
        """Returns the call's number, from 1."""
        self._calls += 1
        self._write({"call": self._calls, "at": time.time(), "model": model, "prompt": prompt, "streamed": streamed})
        return self._calls

    def ended(self, call: int, how: Literal["finished", "gone"], *, chunks: int) -> None:
        self._ended += 1
        self._write({"call": call, "at": time.time(), "ended": how, "chunks": chunks})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            os.write(self._file, orjson.dumps(line) + b"\n")


class Connection(asyncio.Protocol):
    """One client's connection; its requests are answered one after the other."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._target = b""
        self._body = bytearray()
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    def on_message_begin(self) -> None:
        self._target = b""
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._answering is not None and not self._answering.done():
            # Nobody whom we serve asks again before he has his answer.
            self._close()
            return
        answer = self._answer(self._parser.get_method(), self._target.partition(b"?")[0], bytes(self._body))
        self._answering = asyncio.get_running_loop().create_task(answer)

    async def _answer(self, method: bytes, path: bytes, body: bytes) -> None:
        try:
            match method, path:
                case b"POST", b"/v1/chat/completions":
                    await self._complete(body)
                case b"GET", b"/v1/models":
                    self._send({"object": "list", "data": [{"id": "mock-1", "object": "model", "owned_by": "mock"}]})
                case b"GET", b"/calls":
                    self._send({"calls": self._log.calls, "open": self._log.open})
                case b"POST", b"/release":
                    self._log.released = True
                    self._send({"calls": self._log.calls, "open": self._log.open})
                case _:
                    self._send(_error("There is nothing here."), status=404)
        except Refused as refused:
            self._send(_error(str(refused)), status=400)
        if not self._parser.should_keep_alive():
            self._close()

    async def _complete(self, body: bytes) -> None:
        asked = _parsed(body)
        model, prompt, streamed = asked["model"], _last_text(asked["messages"]), bool(asked.get("stream"))
        behaviour = Behaviour.of(model)
        call = self._log.received(model=model, prompt=prompt, streamed=streamed)
        sent = 0
        try:
            if behaviour.first:
                await asyncio.sleep(behaviour.first)
            if streamed:
                self._write(_EVENT_STREAM)
                number = _number(call)
                for frame in _frames(model, behaviour.chunks, behaviour.burst):
                    if sent:
                        await asyncio.sleep(behaviour.delay)
                    if behaviour.held and self._log.released:
                        break
                    if not self._writable.is_set():
                        await self._writable.wait()
                    self._write(frame.replace(_NUMBER, number))
                    sent = min(sent + behaviour.burst, behaviour.chunks)
                with_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
                self._write(_ending(model, prompt, sent, with_usage=with_usage).replace(_NUMBER, number))
            else:
                await asyncio.sleep(behaviour.delay * (-(-behaviour.chunks // behaviour.burst) - 1))
                sent = behaviour.chunks
                self._send(_whole(call, model, prompt, sent))
        except asyncio.CancelledError:
            self._log.ended(call, "gone", chunks=sent)
            raise
        self._log.ended(call, "finished", chunks=sent)

    def _send(self, value: dict[str, Any], *, status: int = 200) -> None:
        body = orjson.dumps(value)
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._write(head.encode() + b"\r\n\r\n" + body)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            # The client has gone, and the loop has not yet come to cancel us.
            raise asyncio.CancelledError
        self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        asked = orjson.loads(body)
        if isinstance(asked["model"], str) and isinstance(asked["messages"], list):
            return dict(asked)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        pass
    raise Refused("model and messages are wanted")


def _last_text(messages: list[Any]) -> str:
    """The prompt: the text of the last message."""
    content = messages[-1].get("content") if messages else ""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


@lru_cache(maxsize=64)
def _frames(model: str, chunks: int, burst: int) -> list[bytes]:
    """The writes of a stream but for its end and the call's number, for which `_NUMBER` stands."""
    head = _head(model)
    lines = [
        b'%b,"choices":[{"index":0,"delta":{%b"content":"word%d "},"finish_reason":null}]}\n\n'
        % (head, b"" if number else b'"role":"assistant",', number)
        for number in range(chunks)
    ]
    return [_framed(b"".join(lines[at : at + burst])) for at in range(0, chunks, burst)]


def _ending(model: str, prompt: str, chunks: int, *, with_usage: bool) -> bytes:
    head = _head(model)
    lines = b'%b,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n' % head
    if with_usage:
        lines += b'%b,"choices":[],"usage":%b}\n\n' % (head, orjson.dumps(_usage(prompt, chunks)))
    return _framed(lines + b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _head(model: str) -> bytes:
    return b'data: {"id":"mock-%b","object":"chat.completion.chunk","created":%d,"model":%b' % (
        _NUMBER,
        _CREATED,
        orjson.dumps(model),
    )


def _number(call: int) -> bytes:
    """As long as what stands for it, so that the frames' sizes stay true."""
    return b"%0*d" % (len(_NUMBER), call)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(call: int, model: str, prompt: str, chunks: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(f"word{number} " for number in range(chunks))}
    return {
        "id": f"mock-{_number(call).decode()}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(prompt, chunks),
    }


def _usage(prompt: str, chunks: int) -> dict[str, int]:
    asked = len(prompt) // 4 + 1
    return {"prompt_tokens": asked, "completion_tokens": chunks, "total_tokens": asked + chunks}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


async def serve(port: int, log: Log) -> None:
    """Serves on loopback until SIGTERM or SIGINT; says on standard output where, once it does."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    server = await loop.create_server(lambda: Connection(log), "127.0.0.1", port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await over.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--log", type=Path, help="file to which the calls are appended")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(arguments.port, Log(arguments.log)))


if __name__ == "__main__":
    main()
