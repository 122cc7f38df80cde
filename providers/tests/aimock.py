"""aimock as a real process: somebody else's idea of how the vendors' APIs behave, on a free port of this machine.

It is installed by `npm ci`. Without it its tests are skipped, or fail where `CI=true` promises that it is there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings

from llmchat.tests.needs import lacking
from llmchat.tests.processes import ended

#: How aimock answers, by a word in the last user message.
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "hello"},
        "response": {
            "content": "Hello! How can I help you today?",
            "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18, "cost": 0.0021},
        },
    },
    {
        "match": {"userMessage": "weather"},
        "response": {
            "toolCalls": [
                {"id": "call_1", "name": "get_weather", "arguments": {"city": "Köln"}},
                {"id": "call_2", "name": "get_weather", "arguments": {"city": "Bonn"}},
            ]
        },
    },
    {"match": {"userMessage": "long"}, "response": {"content": "Only the beginning", "finishReason": "length"}},
    {"match": {"userMessage": "unsafe"}, "response": {"content": "I", "finishReason": "content_filter"}},
    {
        "match": {"userMessage": "busy"},
        "response": {"error": {"message": "Slow down", "type": "rate_limit_error"}, "status": 429, "retryAfter": 3},
    },
    {
        "match": {"userMessage": "broken"},
        "response": {"error": {"message": "Oops", "type": "server_error"}, "status": 500},
    },
    {
        "match": {"userMessage": "cut"},
        "response": {"content": "This answer is long enough to be cut in its middle."},
        "truncateAfterChunks": 3,
        "latency": 20,  # aimock destroys the connection: without a pause, before anything has left it
    },
]


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """The base URL of an aimock with `FIXTURES`, ended afterwards. `directory` is for its files."""
    program = Path(settings.BASE_DIR) / "node_modules/@copilotkit/aimock/dist/cli.js"
    node = shutil.which("node")
    if node is None or not program.exists():
        lacking("aimock is not installed (remedy: npm ci)")
    fixtures = directory / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    command = [
        node,
        str(program),
        "--port",
        "0",
        "--host",
        "127.0.0.1",
        "--chunk-size",
        "5",
        "--fixtures",
        str(fixtures),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with ended(process):
        yield _address(process)


def _address(process: subprocess.Popen[str]) -> str:
    said: list[str] = []
    for line in process.stdout or ():
        said.append(line)
        if match := re.search(r"listening on (http://\S+)", line):
            return match[1]
    raise RuntimeError(f"aimock did not start: {''.join(said)}")
