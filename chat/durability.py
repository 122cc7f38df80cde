"""This process's journal and committer: made when the first exchange needs them, closed when the process ends."""

from __future__ import annotations

import logging
import os
import threading
from typing import Final

from asgiref.sync import sync_to_async
from django.conf import settings

from chat import recovery
from chat.committer import Committer
from chat.journal import Journal, JournalError

logger = logging.getLogger(__name__)

#: Seconds that an ending process spends on journals of dead ones.
_LAST_REPLAY: Final = 5.0

_lock = threading.Lock()
_committer: Committer | None = None
_should_end = threading.Event()


def committer() -> Committer:
    """The committer of this process. Raises JournalError when there can be no journal, or none any more."""
    global _committer  # noqa: PLW0603 - one per process
    if _committer is None:
        with _lock:
            if _should_end.is_set():
                # Made by a start that was overtaken by the end, it would be left behind.
                raise JournalError("The process is ending.")
            if _committer is None:
                journal = Journal(settings.JOURNAL_DIR, max_bytes=settings.JOURNAL_MAX_BYTES // settings.WEB_WORKERS)
                _committer = Committer(journal, patience=settings.COMMIT_PATIENCE_SECONDS)
    return _committer


def waiting() -> tuple[int, bool]:
    """Exchanges of this process that have ended and are not in the database, and whether they are too many for too
    long: the database is away or too slow, and answers go by the journal."""
    current = _committer
    return (current.backlog, current.is_behind) if current is not None else (0, False)


def has_room() -> bool:
    """Whether this process can put another exchange on record, if need be without the database."""
    current = _committer
    return current is None or current.journal.has_room


async def start() -> None:
    """Opens the journal, and replays those of dead processes on a thread of its own, for as long as that takes."""
    await sync_to_async(committer, thread_sensitive=False)()
    _replay()


async def stop() -> None:
    """Commits what is left; what the database does not take stays in the journal for the next process. So that an
    orderly end leaves nothing behind, journals of processes that died lately are looked for once more."""
    _should_end.set()
    await sync_to_async(_end, thread_sensitive=False)()


def _end() -> None:
    close()
    _replay().join(_LAST_REPLAY)


def _replay() -> threading.Thread:
    thread = threading.Thread(
        target=recovery.replay_until_done,
        args=(settings.JOURNAL_DIR,),
        kwargs={"should_end": _should_end},
        name="journal-replay",
        daemon=True,
    )
    thread.start()
    return thread


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
