"""A mail server and a web server on this machine that keep what they are sent."""

from __future__ import annotations

import email
import email.policy
import http.server
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any


@dataclass
class Mailbox:
    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    #: What the next recipients are answered, instead of being taken.
    refusals: list[str] = field(default_factory=list)


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """Speaks as much SMTP (RFC 5321) as a client without extensions needs."""
    box = Mailbox()

    class Conversation(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 ready")
            while line := self.rfile.readline().decode().strip():
                match line.split(" ")[0].upper():
                    case "DATA":
                        self._say("354 go on")
                        self._take()
                    case "RCPT" if box.refusals:
                        self._say(box.refusals.pop())
                    case "QUIT":
                        self._say("221 bye")
                        return
                    case verb:
                        if verb == "RCPT":
                            box.recipients.append(line.partition("<")[2].partition(">")[0])
                        self._say("250 fine")

        def _take(self) -> None:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b"."))
            message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            assert isinstance(message, EmailMessage)
            box.messages.append(message)
            self._say("250 taken")

        def _say(self, words: str) -> None:
            self.wfile.write(f"{words}\r\n".encode())

    with _running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Conversation)) as port:
        box.port = port
        yield box


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Inbox:
    url: str = ""
    messages: list[Received] = field(default_factory=list)
    #: What the next messages are answered; then 204.
    answers: list[int] = field(default_factory=list)
    location: str = ""


@contextmanager
def web_server() -> Iterator[Inbox]:
    box = Inbox()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            box.messages.append(Received(self.path, dict(self.headers), body))
            self.send_response(box.answers.pop(0) if box.answers else 204)
            if box.location:
                self.send_header("Location", box.location)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with _running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        box.url = f"http://127.0.0.1:{port}/hook?team=1"
        yield box


@contextmanager
def _running(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
