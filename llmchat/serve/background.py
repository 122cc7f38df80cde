"""The background process of the embedded default: one Celery worker, with the clock of periodic tasks in a thread.

With a broker of its own, worker and clock are services instead: `celery --app llmchat.celery worker` and `... beat`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from celery import bootsteps
from celery.beat import EmbeddedService
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.conf import settings
from kombu.transport.virtual import Transport

from llmchat.celery import app
from llmchat.lib.supervisor import Parent

logger = logging.getLogger(__name__)

#: Tasks at the same time. They wait for providers and the database far more than they compute.
THREADS = 2
_SWEEP_SECONDS = 3600.0


class Clock(bootsteps.StartStopStep):
    """Celery's beat within the worker: it starts and stops with it."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker: Any) -> Any:
        return EmbeddedService(
            worker.app, thread=True, schedule_filename=str(settings.DATA_DIR / "run" / "celerybeat-schedule")
        )


class Sweeper(bootsteps.StartStopStep):
    """Clears away messages that nobody wants any more, now and once an hour."""

    requires = ("celery.worker.components:Timer",)

    def start(self, worker: Any) -> None:
        sweep(settings.BROKER_DIR)
        worker.timer.call_repeatedly(_SWEEP_SECONDS, sweep, (settings.BROKER_DIR,))


def run(parent: Parent) -> None:
    """Works until SIGTERM, then finishes the tasks that it has begun."""
    (settings.DATA_DIR / "run").mkdir(parents=True, exist_ok=True, mode=0o700)
    app.steps["worker"].update({Clock, Sweeper})
    worker = app.WorkController(
        hostname="background@%h",
        pool="threads",
        concurrency=THREADS,
        ready_callback=_when_ready(parent),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    signal.signal(signal.SIGTERM, _stop)
    worker.start()
    raise SystemExit(worker.exitcode or 0)


def sweep(broker: Path) -> None:
    """Removes messages past their `expires` from the embedded broker's folders, so that a worker that was away does
    not meet thousands of them; and copies of delivered ones that are older than an hour."""
    now = dt.datetime.now(dt.UTC)
    removed = 0
    for file in (broker / "messages").glob("*.msg"):
        # Another process may have taken the message meanwhile, or be writing it.
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            expires = json.loads(file.read_bytes())["headers"]["expires"]
            if expires is not None and dt.datetime.fromisoformat(expires) < now:
                file.unlink()
                removed += 1
    for file in (broker / "processed").glob("*.msg"):
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < time.time() - _SWEEP_SECONDS:
                file.unlink()
    if removed:
        logger.info("%d expired messages are cleared away", removed)


def _when_ready(parent: Parent) -> Callable[[Any], None]:
    def start(_consumer: Any) -> None:
        # The clock waits a whole period before its first tick; what a newcomer sees should not.
        app.send_task("chat.tasks.refresh_health", expires=settings.HEALTH_REFRESH_SECONDS)
        app.send_task("chat.tasks.make_partitions", expires=settings.HEALTH_REFRESH_SECONDS)
        parent.ready()

    return start


def _stop(_number: int, frame: FrameType | None) -> None:
    state.should_stop = os.EX_OK  # type: ignore[assignment]
    # Between two looks at the folder nothing can be lost: leave at once. Anywhere else the loop sees the above, after
    # two more waits of two seconds.
    if frame is not None and frame.f_code is Transport.drain_events.__code__:
        raise WorkerShutdown(os.EX_OK)
