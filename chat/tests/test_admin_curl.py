"""The command line of an exchange's page, run by a shell with the real curl against a real server: it asks the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from chat.admin import exchange
from chat.models import Interaction
from conftest import Serve
from llmchat.lib.uuid7 import moment_of, uuid7
from llmchat.tests.needs import lacking

ODD = "It's \"odd\": $HOME `id` $(id) !! \\ \\n %s\n\tänd 漢字 😀 'twice' @file \u2028 end"
TOOLS = [{"type": "function", "function": {"name": "it's", "description": ODD, "parameters": {"type": "object"}}}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}

CALLS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": ODD, "system_prompt": ODD, "parameters": {"temperature": 0, "max_tokens": 50, "top_p": 0.5}},
    "streamed": {"prompt": ODD, "streamed": True, "parameters": {"stop": ["\n\n", "'"]}},
    "messages": {
        "messages": [
            {"role": "system", "content": ODD},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": ODD},
            {"role": "user", "content": ODD},
        ],
        "prompt": "",
    },
    "completion": {
        "endpoint": "completions",
        "prompt": ODD,
        "system_prompt": ODD,
        "parameters": {"tools": TOOLS, "tool_choice": "auto", "seed": 7, "extra": {"top_k": 3, "note": ODD}},
    },
    "streamed completion": {
        "endpoint": "completions",
        "streamed": True,
        "prompt": "",
        "messages": [{"role": "user", "content": [{"type": "text", "text": ODD}, PICTURE], "name": "ana"}],
        "parameters": {"max_tokens": 50, "response_format": {"type": "json_object"}},
    },
}
NAMES = (
    *("endpoint", "streamed", "user_id", "model_requested"),
    *("prompt", "system_prompt", "messages", "parameters"),
)


def test_copied_command_asks_the_same(serve: Serve, acme_key: str) -> None:
    if shutil.which("curl") is None:
        lacking("curl was not found (remedy: apt install curl)")
    server = serve("--no-background")
    for name, fields in CALLS.items():
        row = _row(**fields)
        command = exchange.curl(row, origin=server.base_url)
        assert command is not None
        ran = subprocess.run(
            ["/bin/sh", "-c", f"{command} --silent --show-error --fail"],
            capture_output=True,
            check=False,
            text=True,
            env={"LLMCHAT_API_KEY": acme_key, "HOME": "/nowhere"},
        )
        assert (ran.returncode, ran.stderr) == (0, ""), (name, ran.stdout)
        assert ("data: " in ran.stdout) is row.streamed, name
    stored = json.loads(
        server.manage(
            "shell",
            "--no-imports",
            "-c",
            f"""
import json
from chat.models import Interaction
print(json.dumps(list(Interaction.objects.order_by("id").values(*{NAMES}))))
""",
        )
    )
    assert [_asked(row) for row in stored] == [_asked(vars(_row(**fields))) for fields in CALLS.values()]


def _row(**fields: Any) -> Interaction:
    identifier = uuid7()
    common = {
        "id": identifier,
        "created_at": moment_of(identifier),
        "user_id": "o'ana 漢",
        "endpoint": "chat",
        "streamed": False,
        "model_requested": "simulated/echo",
        "parameters": {},
    }
    return Interaction(**{**common, **fields})


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """What counts as the same: plain messages and a prompt are two ways to say one thing."""
    plain = [{"role": role, "content": row[name]} for role, name in (("system", "system_prompt"), ("user", "prompt"))]
    return {
        "endpoint": row["endpoint"],
        "streamed": row["streamed"],
        "user_id": row["user_id"],
        "model": row["model_requested"],
        "messages": row["messages"] or [message for message in plain if message["content"]],
        "parameters": row["parameters"],
    }
