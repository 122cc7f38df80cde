"""`manage.py serve`: web workers and, in the embedded default, background work, in the foreground."""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from llmchat.lib import logs, metrics
from llmchat.lib.supervisor import Parent, Supervisor
from llmchat.serve.listener import CannotListen, address_of, listen

logger = logging.getLogger("llmchat.serve")


class Command(BaseCommand):
    help = (
        "Serves HTTP with WORKERS processes that are replaced when they die. Without a broker (CELERY_BROKER_URL, "
        "REDIS_URL) it also does the background work; with one, `celery --app llmchat.celery worker` and "
        "`celery --app llmchat.celery beat` are expected to run elsewhere. SIGTERM or Ctrl-C end it, and running "
        "requests are finished first."
    )
    # Run by `handle`, once it is settled where metrics are counted.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="Address to listen on (HOST: %(default)s).")
        parser.add_argument("--port", type=int, default=settings.PORT, help="0 takes a free one (PORT: %(default)s).")
        parser.add_argument(
            "--workers", type=int, default=settings.WEB_WORKERS, help="Web processes (WEB_WORKERS: %(default)s)."
        )
        parser.add_argument(
            "--no-background", action="store_false", dest="background", help="Leave background work to others."
        )

    def handle(self, *args: Any, host: str, port: int, workers: int, background: bool, **options: Any) -> None:
        if workers < 1:
            raise CommandError("--workers must be 1 or more.")
        settings.WEB_WORKERS = workers
        counted_in = metrics.begin(metrics.place(settings.METRICS_DIR))
        try:
            try:
                self._require_migrations()
                self._require_sound_settings()
            finally:
                _close_connections()
            code = self._serve(host, port, workers=workers, background=background and settings.EMBEDDED_BROKER)
        finally:
            metrics.end(counted_in)
        raise SystemExit(code)

    def _serve(self, host: str, port: int, *, workers: int, background: bool) -> int:
        try:
            listener = listen(host, port)
        except CannotListen as problem:
            raise CommandError(str(problem)) from None
        if not settings.EMBEDDED_BROKER:
            logger.info("Background work is left to `celery --app llmchat.celery worker` and `... beat`")
        from llmchat.serve import web

        web.preload()
        logs.route_warnings()
        supervisor = Supervisor(
            grace=settings.SHUTDOWN_GRACE_SECONDS,
            on_ready=partial(self._announce, listener),
            # From here on new connections are refused rather than left to wait.
            on_stop=listener.close,
            on_end=metrics.forget,
        )
        for number in range(1, workers + 1):
            supervisor.add(f"web worker {number}", partial(web.run, listener))
        if background:
            supervisor.add("background worker", _work_in_background)
        return supervisor.run()

    def _announce(self, listener: socket.socket) -> None:
        line = f"llmchat is ready on http://{address_of(listener)}"
        if settings.LOG_AS_JSON:
            logger.info(line)
        else:
            self.stdout.write(self.style.SUCCESS(line))
            self.stdout.flush()

    def _require_sound_settings(self) -> None:
        """Stops on errors of the system checks, one line each; says the warnings."""
        found = [message for message in run_checks(databases=["default"]) if not message.is_silenced()]
        errors = [_as_line(message) for message in found if message.is_serious()]
        if errors:
            raise CommandError("\n".join(errors))
        for message in found:
            logger.warning(_as_line(message))

    def _require_migrations(self) -> None:
        try:
            executor = MigrationExecutor(connections["default"])
            missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except DatabaseError as error:
            reason = str(error).strip().partition("\n")[0]
            raise CommandError(f"The database of DATABASE_URL cannot be used: {reason}") from None
        if missing:
            raise CommandError(
                f"{len(missing)} migrations are not applied to the database. Run `python manage.py migrate` first."
            )


def _close_connections() -> None:
    """Nothing that is open now may be shared with children."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        if hasattr(connection, "close_pool"):
            connection.close_pool()


def _work_in_background(parent: Parent) -> None:
    # Celery's worker is of no use to web workers, which would carry its memory.
    from llmchat.serve import background

    background.run(parent)


def _as_line(message: CheckMessage) -> str:
    return " ".join(f"{message.id}: {message.msg} {message.hint or ''}".split())
