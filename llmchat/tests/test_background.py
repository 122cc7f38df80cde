"""The embedded broker's folders, and the schedule of periodic tasks."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path

from django.conf import settings

from llmchat.celery import app
from llmchat.serve.background import sweep


def message(broker: Path, name: str, expires: dt.datetime | None) -> None:
    (broker / "messages").mkdir(exist_ok=True)
    headers = {"expires": expires.isoformat() if expires else None}
    (broker / "messages" / f"{name}.celery.msg").write_text(json.dumps({"body": "", "headers": headers}))


def test_expired_messages_are_swept_and_others_stay(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    message(tmp_path, "expired", now - dt.timedelta(seconds=1))
    message(tmp_path, "in-time", now + dt.timedelta(hours=1))
    message(tmp_path, "for-ever", None)
    (tmp_path / "messages" / "half-written.celery.msg").write_text('{"body": ')
    sweep(tmp_path)
    assert sorted(file.name for file in (tmp_path / "messages").iterdir()) == [
        "for-ever.celery.msg",
        "half-written.celery.msg",
        "in-time.celery.msg",
    ]


def test_copies_of_delivered_messages_are_swept_after_an_hour(tmp_path: Path) -> None:
    (tmp_path / "processed").mkdir()
    for name, age in (("old", 3700), ("new", 3500)):
        file = tmp_path / "processed" / f"{name}.celery.msg"
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    sweep(tmp_path)
    assert [file.name for file in (tmp_path / "processed").iterdir()] == ["new.celery.msg"]


def test_message_of_a_periodic_task_has_the_end_that_the_sweep_looks_for(tmp_path: Path) -> None:
    folders = {"data_folder_in": str(tmp_path), "data_folder_out": str(tmp_path), "control_folder": str(tmp_path)}
    with app.connection_for_write("filesystem://localhost//", transport_options=folders) as connection:
        app.send_task("chat.tasks.refresh_health", expires=60, connection=connection)
    (file,) = tmp_path.glob("*.msg")
    expires = dt.datetime.fromisoformat(json.loads(file.read_bytes())["headers"]["expires"])
    assert expires > dt.datetime.now(dt.UTC)


def test_every_scheduled_task_exists_and_expires_when_the_next_is_due() -> None:
    app.loader.import_default_modules()
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in app.tasks
        assert entry["options"] == {"expires": entry["schedule"]}
    assert app.conf.beat_schedule["refresh-health"]["schedule"] == settings.HEALTH_REFRESH_SECONDS


def test_tasks_travel_as_json_and_are_done_again_when_their_worker_dies() -> None:
    conf = app.conf
    assert (conf.task_serializer, conf.accept_content, conf.task_acks_late) == ("json", ["json"], True)
