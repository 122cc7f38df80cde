"""The Celery application: background work and the clock of periodic tasks.

    celery --app llmchat.celery worker
    celery --app llmchat.celery beat

with a broker (CELERY_BROKER_URL or REDIS_URL); without one, `manage.py serve` does both. Configured by the settings
that begin with CELERY_.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

from llmchat.lib import logs
from llmchat.lib.startup import settings_or_exit

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmchat.settings")
settings_or_exit()

app = Celery("llmchat")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.setup_logging.connect
def _keep_our_logging(**_: Any) -> None:
    """Celery sets up logging of its own unless somebody listens here; Django has set up ours."""


@signals.task_prerun.connect
def _begin_lines_of_task(task: Any = None, task_id: str = "", **_: Any) -> None:
    logs.begin()
    logs.bind(task=task.name, task_id=task_id)
