"""Which ASGI server: what a request costs in each, and which of the guards that we need it has.

    .venv/bin/python -m bench.asgi_servers

The same two applications, a short answer of JSON and a stream of 66 events, in one process of each server on one core,
asked by wrk on another one, in turns. Needs wrk, and `pip install granian`, which nothing else here uses. A table on
the terminal, and bench/results/asgi_servers.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from llmchat.tests.servers import PROJECT, free_port

ROUNDS = 3
SECONDS = 3
CONNECTIONS = 64
RESULTS = PROJECT / "bench" / "results" / "asgi_servers.json"
PACKAGES = ("uvicorn", "httptools", "uvloop", "granian")
SERVERS = ("ours", "uvicorn", "granian")
BODY = json.dumps({"userId": "12345", "prompt": "What is the capital of France? " * 8}).encode()
ANSWER = json.dumps({"id": "0192", "response": "The capital of France is Paris. " * 10}).encode()
EVENT = b'event: delta\ndata: {"text": "The capital of France"}\n\n'
EVENTS = 66
#: Seconds within which a guard must have shown itself; the servers are set to less where they can be set.
GUARD = 6.0

#: What the application saw, for the checks of guards: `gone` once a client has left.
_seen: set[str] = set()


# --- What is served -------------------------------------------------------------------------------------------------


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    match scope["path"]:
        case "/stream":
            await _stream(send, events=EVENTS, pause=0.0)
        case "/slow":
            await _stream(send, events=30, pause=0.1)
        case "/wait":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GUARD):
                    if (await receive())["type"] == "http.disconnect":
                        _seen.add("gone")
        case "/seen":
            await _answer(send, json.dumps(sorted(_seen)).encode())
        case _:
            await _answer(send, ANSWER)


async def _answer(send: Any, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _stream(send: Any, *, events: int, pause: float) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(events):
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        if pause:
            await asyncio.sleep(pause)
    await send({"type": "http.response.body", "body": b"event: done\n\n"})


def serve(name: str, port: int) -> None:
    """One process of the server, until SIGTERM."""
    if name == "granian":
        from granian import Granian
        from granian.constants import HTTPModes, Interfaces, Loops
        from granian.http import HTTP1Settings

        Granian(
            "bench.asgi_servers:application",
            port=port,
            interface=Interfaces.ASGINL,
            workers=1,
            loop=Loops.uvloop,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            http1_settings=HTTP1Settings(header_read_timeout=2000),
        ).serve()
        return
    import uvicorn

    from llmchat.serve.protocol import BoundedHeads

    config = uvicorn.Config(
        application,
        port=port,
        loop="uvloop",
        http=BoundedHeads if name == "ours" else "httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=30,
    )
    uvicorn.Server(config).run()


@contextmanager
def running(name: str) -> Iterator[tuple[int, int]]:
    """Process id and port."""
    port = free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "llmchat.settings",
        "ENV_FILE": os.devnull,
        "DATA_DIR": tempfile.mkdtemp(prefix="llmchat-bench-"),
        "HEADER_READ_SECONDS": "2",
    }
    command = [sys.executable, "-m", "bench.asgi_servers", "--serve", name, "--port", str(port)]
    process = subprocess.Popen([*_pinned(0), *command], cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                ask(port, "/")
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit(f"{name} does not start") from None
                time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(environment["DATA_DIR"], ignore_errors=True)


def _pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core % (os.cpu_count() or 1))]


# --- What it costs --------------------------------------------------------------------------------------------------


def measure(name: str, path: str) -> dict[str, float]:
    """Requests a second, and microseconds of CPU for each, in one turn."""
    with running(name) as (pid, port), tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f"wrk.method='POST'\nwrk.body=[[{BODY.decode()}]]\nwrk.headers['Content-Type']='application/json'\n"
        )
        script.flush()
        load(port, path, script.name, seconds=1)
        before = cpu_seconds(pid)
        told = load(port, path, script.name, seconds=SECONDS)
        spent = cpu_seconds(pid) - before
    count = int(re.search(r"(\d+) requests in", told)[1])  # type: ignore[index]
    failed = re.findall(r"Socket errors: (.*)|Non-2xx or 3xx responses: (\d+)", told)
    if failed:
        raise SystemExit(f"{name} fails requests: {failed}")
    return {"requests_per_second": count / SECONDS, "cpu_microseconds": spent / count * 1e6}


def load(port: int, path: str, script: str, *, seconds: int) -> str:
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--timeout=30s",
        "-s",
        script,
        f"http://127.0.0.1:{port}{path}",
    ]
    return subprocess.run([*_pinned(1), *command], capture_output=True, text=True, check=True).stdout


def cpu_seconds(pid: int) -> float:
    """Of a process and all that it has started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


# --- Which guards it has --------------------------------------------------------------------------------------------


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers]).encode()


def ask(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head(path, "Connection: close") + b"\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def is_closed_in_time(connection: socket.socket) -> bool:
    connection.settimeout(GUARD)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def closes_half_a_head(pid: int, port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head("/")[:-3])
        return is_closed_in_time(connection)


def closes_silence(pid: int, port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        return is_closed_in_time(connection)


def refuses_endless_heads(pid: int, port: int) -> bool:
    """Within the first megabyte."""
    with socket.create_connection(("127.0.0.1", port), timeout=GUARD) as connection:
        connection.sendall(head("/") + b"\r\n")
        try:
            for number in range(1000):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 1000))
                time.sleep(0.0005)
            connection.sendall(b"\r\n")
            return b" 200 " not in connection.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            return True


def tells_of_disconnects(pid: int, port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head("/wait") + b"\r\n\r\n")
        time.sleep(0.3)
    time.sleep(0.5)
    return b"gone" in ask(port, "/seen")


def sends_at_once(pid: int, port: int) -> bool:
    """TCP_NODELAY on what it accepts: without it a stream of small writes takes 40 ms more."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        ask(port, "/stream")
        took.append(time.monotonic() - began)
    return median(took) < 0.035


def ends_well(pid: int, port: int) -> bool:
    """A stream that is under way at SIGTERM comes to its end."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head("/slow") + b"\r\n\r\n")
        connection.recv(1)
        os.kill(pid, signal.SIGTERM)
        received = b""
        with contextlib.suppress(OSError):
            while (piece := connection.recv(65536)) and b"event: done" not in received + piece:
                received += piece
            received += piece
    return b"event: done" in received


def answers_on_kept_connections(pid: int, port: int) -> bool:
    """A request on a connection that was idle at SIGTERM, a moment later, is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        received = b""
        for number in range(2):
            try:
                connection.sendall(head("/") + b"\r\n\r\n")
                while received.count(ANSWER) <= number:
                    piece = connection.recv(65536)
                    if not piece:
                        return False
                    received += piece
            except OSError:
                return False
            if not number:
                os.kill(pid, signal.SIGTERM)
                time.sleep(0.4)
    return True


GUARDS: tuple[Callable[[int, int], bool], ...] = (
    closes_silence,
    closes_half_a_head,
    refuses_endless_heads,
    tells_of_disconnects,
    sends_at_once,
    ends_well,
    answers_on_kept_connections,
)


def guards(name: str) -> dict[str, bool]:
    found = {}
    for guard in GUARDS:
        with running(name) as (pid, port):
            found[guard.__name__] = guard(pid, port)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=SERVERS)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.port)
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk was not found (remedy: apt install wrk)")
    costs: dict[str, dict[str, Any]] = {name: {} for name in SERVERS}
    for path in ("/", "/stream"):
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in SERVERS}
        for _ in range(ROUNDS):
            for name in SERVERS:
                turns[name].append(measure(name, path))
        for name in SERVERS:
            costs[name][path] = {key: round(median(turn[key] for turn in turns[name]), 1) for key in turns[name][0]} | {
                "least_cpu_microseconds": round(min(turn["cpu_microseconds"] for turn in turns[name]), 1)
            }
    for name in SERVERS:
        costs[name]["guards"] = guards(name)
        print(name, json.dumps(costs[name]))
    RESULTS.write_text(
        json.dumps(
            {
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()},
                "versions": {package: version(package) for package in PACKAGES},
                "connections": CONNECTIONS,
                "seconds": SECONDS,
                "rounds": ROUNDS,
                "servers": costs,
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
