"""The README's own commands, as they stand there, on a real `make run` with the local model.

Only the address and the data directory are replaced, so that nothing of the machine is touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.core.management import get_commands
from django.test import Client

from llmchat.tests.needs import lacking
from llmchat.tests.processes import ended
from llmchat.tests.servers import PROJECT, free_port

README = (PROJECT / "README.md").read_text(encoding="utf-8")
_ADDRESS = "http://127.0.0.1:8000"
_KEY_FILE = "var/demo.key"
_PATIENCE = 90.0


def block(language: str, beginning: str) -> str:
    """The README's code block of `language` that begins so."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith(beginning))


class Run:
    """`make run` as a newcomer starts it, in a terminal of its own."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.address = f"http://127.0.0.1:{free_port()}"
        self.environment = {
            **{
                name: os.environ[name]
                for name in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
                if name in os.environ
            },
            "DATA_DIR": str(self.data),
            "PORT": self.address.rpartition(":")[2],
            "ENV_FILE": os.devnull,
            "PYTHONUNBUFFERED": "1",
        }
        self._log = directory / "log"

    def start(self) -> None:
        assert block("sh", "git clone").splitlines()[-1] == "make run"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["make", "run"],
                env=self.environment,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE
        while "llmchat is ready on" not in self.output():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Ctrl-C, which a terminal sends to every process of it. Returns the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(_PATIENCE)

    def is_gone(self) -> bool:
        """Whether no process is left of it."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def here(self, command: str) -> str:
        """The README's words for this server."""
        assert _ADDRESS in command
        assert _KEY_FILE in command
        return command.replace(_ADDRESS, self.address).replace(_KEY_FILE, str(self.data / "demo.key"))

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    missing = [program for program in ("make", "curl") if shutil.which(program) is None]
    if missing:
        lacking(f"{' and '.join(missing)} not found (remedy: apt install {' '.join(missing)})")
    run = Run(tmp_path_factory.mktemp("readme"))
    run.start()
    yield run
    run.kill()


@pytest.mark.once
def test_the_first_question_is_answered_and_stands_in_the_admin(run: Run) -> None:
    command = run.here(block("sh", "curl http"))
    done = subprocess.run(
        ["sh", "-c", command], env=run.environment, capture_output=True, text=True, timeout=_PATIENCE, check=True
    )
    answer = json.loads(done.stdout)
    assert (answer["userId"], answer["prompt"]) == ("12345", "What is the capital of France?")
    assert (answer["provider"], answer["model"]) == ("local", "local/smollm2-135m")
    assert answer["response"].strip()
    assert answer["usage"]["completionTokens"] > 0
    assert answer["performance"]["latencyMs"] > 0

    found = re.search(r"user (\S+)\s+password (\S+)", run.output())
    assert found is not None, "make run printed no log-in"
    page = as_administrator(run, found[1], found[2], path="/admin/chat/interaction/")
    assert "What is the capital of France?" in page
    assert answer["id"] in page


def as_administrator(run: Run, name: str, password: str, *, path: str) -> str:
    """The page at `path`, after logging in as a browser does."""
    jar = CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
    with browser.open(f"{run.address}/admin/login/", timeout=_PATIENCE):
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
    form = {"username": name, "password": password, "csrfmiddlewaretoken": token, "next": path}
    with browser.open(f"{run.address}/admin/login/", urlencode(form).encode(), timeout=_PATIENCE) as response:
        assert response.url == run.address + path
        page: str = response.read().decode()
    return page


@pytest.mark.once
def test_a_stream_comes_piece_by_piece(run: Run) -> None:
    command = run.here(block("sh", "curl -N"))
    with ended(subprocess.Popen(["sh", "-c", f"exec {command}"], env=run.environment, stdout=subprocess.PIPE)) as curl:
        assert curl.stdout is not None
        reads = []
        while piece := os.read(curl.stdout.fileno(), 65536):
            reads.append(piece)
        assert curl.wait(_PATIENCE) == 0
    assert sum(b"event: delta" in piece for piece in reads) > 3

    events = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in frames(b"".join(reads))]
    *deltas, last = [(event["event"], json.loads(event["data"])) for event in events]
    assert {name for name, _ in deltas} == {"delta"}
    assert last[0] == "done"
    assert "".join(data["text"] for _, data in deltas) == last[1]["response"]


def frames(raw: bytes) -> list[str]:
    return [frame for frame in raw.decode().split("\n\n") if frame and not frame.startswith(":")]


@pytest.mark.once
def test_the_python_snippet_prints_an_answer(run: Run) -> None:
    done = subprocess.run(
        [sys.executable, "-c", run.here(block("python", "from openai import"))],
        env=run.environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.once
def test_ctrl_c_ends_it_and_it_starts_again_with_the_same_key(run: Run) -> None:
    key = (run.data / "demo.key").read_text()
    end_by_ctrl_c(run)
    run.start()
    assert "exist already" in run.output()
    assert (run.data / "demo.key").read_text() == key
    end_by_ctrl_c(run)


def end_by_ctrl_c(run: Run) -> None:
    # make ends by the interrupt that it got as well, and not before the server has ended.
    assert run.interrupt() == -signal.SIGINT
    assert run.is_gone()
    assert "Traceback" not in run.output()


# --- What else it says ------------------------------------------------------------------------------------------------


def test_every_command_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= targets
    assert set(re.findall(r"manage\.py ([a-z_]+)", README)) <= set(get_commands())


def test_every_file_that_it_names_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


@pytest.mark.django_db
def test_every_path_that_it_names_exists(client: Client) -> None:
    paths = set(re.findall(r"`(?:[A-Z]+ )?(/[^`\s]+)`", README))
    assert {"/v1/chat", "/metrics", "/docs"} <= paths
    for path in paths:
        response = client.get(path.replace("{model}", "simulated/ok"))
        assert response.status_code != 404 or response.json()["error"]["code"] != "not_found", path
