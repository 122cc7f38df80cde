"""A run that hangs ends by itself, and says where it hung."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmchat.tests.servers import PROJECT
from llmchat.tests.watchdog import EXIT_CODE

pytestmark = pytest.mark.once

BEGIN = """
import threading, time
import pytest

@pytest.fixture
def what_never_ends():
    yield
    threading.Event().wait()
"""

HANGING = {
    "a teardown after a failure": ("def test_it(what_never_ends): assert False", "in what_never_ends"),
    "a test that outlives its time limit": (
        "def test_it():\n    while True:\n        try: time.sleep(30)\n        except BaseException: pass",
        "in test_it",
    ),
    "a thread after the last test": (
        "def in_the_way(): threading.Event().wait()\ndef test_it(): threading.Thread(target=in_the_way).start()",
        "in in_the_way",
    ),
}


def run(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = directory / "test_it.py"
    path.write_text(BEGIN + text)
    settings = ["addopts=-p llmchat.tests.watchdog -p no:cacheprovider", "timeout=1", "grace=2"]
    options = [f"--override-ini={setting}" for setting in settings]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--noconftest", "-c", str(PROJECT / "pytest.ini"), str(path), *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("what", HANGING)
def test_a_run_that_hangs_ends_and_says_where(tmp_path: Path, what: str) -> None:
    text, place = HANGING[what]
    done = run(tmp_path, text)
    assert done.returncode == EXIT_CODE, done.stdout + done.stderr
    assert "the run is ended here" in done.stderr
    assert place in done.stderr


def test_a_run_that_ends_by_itself_is_left_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_it(): pass")
    assert (done.returncode, done.stderr) == (0, "")
