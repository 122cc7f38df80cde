"""This process's journal and committer: made when the first exchange needs them, closed when the process ends."""

from __future__ import annotations

import logging
import os
import threading

from asgiref.sync import sync_to_async
from django.conf import settings

from chat import recovery
from chat.committer import Committer
from chat.journal import Journal

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_committer: Committer | None = None
_should_end = threading.Event()


def committer() -> Committer:
    """The committer of this process. Raises JournalError when there can be no journal."""
    global _committer  # noqa: PLW0603 - one per process
    if _committer is None:
        with _lock:
            if _committer is None:
                journal = Journal(settings.JOURNAL_DIR, max_bytes=settings.JOURNAL_MAX_BYTES // settings.WEB_WORKERS)
                _committer = Committer(journal, patience=settings.COMMIT_PATIENCE_SECONDS)
    return _committer


async def start() -> None:
    """Opens the journal, and replays those of dead processes on a thread of its own, for as long as that takes."""
    await sync_to_async(committer, thread_sensitive=False)()
    threading.Thread(
        target=recovery.replay_until_done,
        args=(settings.JOURNAL_DIR,),
        kwargs={"should_end": _should_end},
        name="journal-replay",
        daemon=True,
    ).start()


async def stop() -> None:
    """Commits what is left; what the database does not take stays in the journal for the next process."""
    _should_end.set()
    await sync_to_async(close, thread_sensitive=False)()


def close(*, timeout: float = 10.0) -> None:
    global _committer
    with _lock:
        closing, _committer = _committer, None
    if closing is not None:
        closing.close(timeout=timeout)


def _after_fork_in_child() -> None:
    """A fork copies the committer without its threads; the child makes its own, with a journal of its own."""
    global _committer, _lock
    _committer, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
