"""Settings: every one is explained, and a wrong one ends any program with one line."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from llmchat.checks import FOREIGN_NAMES
from llmchat.tests.environment import documented_settings
from llmchat.tests.servers import PROJECT

REMEDY = "Set it to a directory that may be written to."
EXAMPLE = (PROJECT / ".env.example").read_text(encoding="utf-8")


def test_example_explains_exactly_the_settings_that_are_read() -> None:
    assert documented_settings() - FOREIGN_NAMES == settings.SETTING_NAMES


def test_example_has_every_setting_once_commented_out_after_its_explanation() -> None:
    vendor = re.compile(r"#[A-Z]+_(BASE_URL|ADAPTER)=")
    lines = EXAMPLE.splitlines()
    names = [line.partition("=")[0] for line in lines if re.match(r"#?[A-Z_]+=", line)]
    assert sorted(names) == sorted({f"#{name}" for name in documented_settings()})
    explained = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r"#[A-Z_]+=", line) and (vendor.match(line) or before.startswith("# "))
    ]
    assert len(explained) == len(names)


def test_values_of_the_example_are_the_defaults(tmp_path: Path) -> None:
    everything = tmp_path / "env"
    everything.write_text(re.sub(r"^#([A-Z_]+=.)", r"\1", EXAMPLE, flags=re.MULTILINE), encoding="utf-8")
    show = (
        "from llmchat import settings; print({name: getattr(settings, name) for name in sorted(vars(settings)) "
        "if name.isupper() and name not in {'ENV_FILE', 'SETTING_NAMES', 'LOGGING', 'SECRET_KEY', 'SECRETS'}})"
    )
    shown = [
        re.sub(
            r"test-\d+\.sqlite3",
            "test database",
            subprocess.run(
                [sys.executable, "-c", show],
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "ENV_FILE": str(file), "DATA_DIR": "var"},
                capture_output=True,
                text=True,
                check=True,
            ).stdout,
        )
        for file in (everything, tmp_path / "none")
    ]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    "command",
    [["manage.py", "serve"], ["-m", "celery", "--app", "llmchat.celery", "worker"]],
    ids=["manage.py", "celery"],
)
@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (("PORT", "many"), "llmchat: PORT='many' is not a whole number. Set it to one, such as 8000."),
        (
            ("DATA_DIR", "/dev/null/x"),
            f"llmchat: DATA_DIR=/dev/null/x cannot be used (Not a directory). {REMEDY}",
        ),
    ],
    ids=["PORT", "DATA_DIR"],
)
def test_wrong_setting_ends_the_program_with_one_line(
    command: list[str], setting: tuple[str, str], line: str, tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": os.devnull, "DATA_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env={**environment, setting[0]: setting[1]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"{line}\n")


def test_a_database_that_is_back_is_found_no_later_than_one_connection_takes(tmp_path: Path) -> None:
    show = "from llmchat import settings; print(settings.DATABASES['default']['OPTIONS']['pool']['reconnect_timeout'])"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT), "ENV_FILE": os.devnull, "DATA_DIR": "var"}
    environment |= {"DATABASE_URL": "postgresql://127.0.0.1/llmchat", "DATABASE_CONNECT_SECONDS": "7"}
    command = [sys.executable, "-c", show]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "7"
