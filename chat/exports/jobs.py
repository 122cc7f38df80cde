"""Exports that somebody asked for in the admin: made by background workers, kept for a while, then gone.

A worker claims an export with one guarded UPDATE, works on it for a short while, and puts it back for whoever is free:
so a large export keeps nobody waiting, and one whose worker died is gone on with from what is on the disk. The worker's
token must still be on the row at each beat; otherwise the export was cancelled, withdrawn or taken over, and it stops.
"""

from __future__ import annotations

import datetime as dt
import errno
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import Organization, User
from audit import entries
from audit.models import Action
from chat.exports import copying, files
from chat.exports.files import Busy, Checkpoint, Partial, Unusable
from chat.models import Export
from chat.selection import Selection
from chat.storing import UNUSABLE
from llmchat.lib.tables import Format
from llmchat.lib.uuid7 import uuid7
from llmchat.lib.wording import counted

logger = logging.getLogger(__name__)

#: Seconds after which a worker that has not said anything is taken for dead.
LEASE: Final = 120.0
#: Seconds between two words of a worker.
_BEAT: Final = 1.0
#: How long one turn takes: roll-ups and others want the worker, too.
TURN: Final = 15.0

_WITHDRAWN: Final = "{user} of {organization} was erased, and this file may hold their texts. Ask for a new one."

#: A process works on one export at a time: its other threads are for the other tasks.
_at_work = threading.Lock()


class Refused(Exception):
    """The export is not made. The message says why, and what helps."""


def ask_for(
    owner: User, selection: Selection, form: Format, *, redact: bool, organizations: Iterable[UUID] | None
) -> Export:
    """Queues an export of what `selection` means now, of `organizations` (None: all).

    Raises Refused when the person has enough of them, or SelectionError.
    """
    held = Export.objects.filter(owner=owner, state__in=Export.KEPT).count()
    if held >= settings.EXPORTS_PER_PERSON:
        raise Refused(f"You have {counted(held, 'export')} already. Remove one you do not need, then ask again.")
    checkpoint = copying.first_checkpoint(form, selection, redact=redact, organizations=organizations)
    with transaction.atomic():
        export = Export.objects.create(owner=owner, what=checkpoint.what, secret=checkpoint.secret)
        entries.about(export, Action.EXPORTED, **copying.summary(checkpoint))
    return export


def is_waiting() -> bool:
    return _claimable(timezone.now()).exists()


def work(*, seconds: float = TURN) -> bool:
    """Works on one export for about so long. Returns whether there was any to work on."""
    if not _at_work.acquire(blocking=False):
        return False
    try:
        export = _claim()
        if export is None:
            return False
        _work_on(export, until=time.monotonic() + seconds)
        return True
    finally:
        _at_work.release()


def cancel(export: Export) -> bool:
    """Ends an export that is not made yet; whether it was one."""
    gone = Export.objects.filter(pk=export.pk, state__in=Export.UNFINISHED)
    with transaction.atomic():
        done = gone.update(state=Export.State.CANCELLED, worker=None, finished_at=timezone.now(), secret="")
        if done:
            entries.about(export, Action.CANCELLED)
    if done:
        files.discard(path_of(export))
    return bool(done)


def remove(export: Export) -> None:
    """Removes an export and its file."""
    path = path_of(export)
    with transaction.atomic():
        entries.about(export, Action.DELETED)
        export.delete()
    path.unlink(missing_ok=True)
    files.discard(path)


def those_with(organization: Organization, user_id: str) -> list[Export]:
    """The exports that may hold texts of an organization's user."""
    return [
        export
        for export in Export.objects.filter(state__in=Export.KEPT).select_related("owner").order_by("id")
        if _may_hold(export.what, str(organization.pk), user_id)
    ]


def withdraw(organization: Organization, user_id: str) -> list[Export]:
    """Removes the files that may hold texts of a person who is erased, and tells their owners why."""
    found = those_with(organization, user_id)
    words = _WITHDRAWN.format(user=user_id, organization=organization)
    for export in found:
        Export.objects.filter(pk=export.pk).update(
            state=Export.State.FAILED, error=words, worker=None, finished_at=timezone.now(), secret=""
        )
        path = path_of(export)
        path.unlink(missing_ok=True)
        files.discard(path)
    return found


def downloaded(export: Export) -> IO[bytes] | None:
    """The file for whoever downloads it, while it may be had; that it was is entered."""
    file = opened(export)
    if file is None:
        return None
    try:
        with transaction.atomic():
            entries.about(export, Action.DOWNLOADED, rows=export.rows)
    except BaseException:
        file.close()
        raise
    return file


def opened(export: Export) -> IO[bytes] | None:
    """The file for reading, while it may be had."""
    if state_of(export) != Export.State.DONE:
        return None
    try:
        return path_of(export).open("rb")
    except FileNotFoundError:
        return None


def state_of(export: Export) -> str:
    """Its state at this moment: one whose time is over has expired, even if its file is not cleared away yet."""
    is_over = export.expires_at is not None and export.expires_at < timezone.now()
    return Export.State.EXPIRED if export.state == Export.State.DONE and is_over else export.state


def is_missing(export: Export) -> bool:
    """Whether it should have a file and this machine finds none."""
    return state_of(export) == Export.State.DONE and not path_of(export).exists()


def expire() -> int:
    """Removes the files whose time is over, and those that belong to no export. Returns how many exports expired."""
    expired = 0
    for export in Export.objects.filter(state=Export.State.DONE, expires_at__lt=timezone.now()):
        path_of(export).unlink(missing_ok=True)
        expired += Export.objects.filter(pk=export.pk).update(state=Export.State.EXPIRED, secret="")
    folder = _folder()
    kept = {path_of(export).name for export in Export.objects.filter(state__in=Export.KEPT)}
    for file in folder.iterdir():
        if file.name.split(".part")[0] not in kept and time.time() - file.stat().st_mtime > LEASE:
            file.unlink(missing_ok=True)
    Export.objects.exclude(state__in=Export.KEPT).filter(created_at__lt=timezone.now() - dt.timedelta(days=30)).delete()
    return expired


def path_of(export: Export) -> Path:
    return _folder() / f"{export.pk}.{export.what['format']}"


def _folder() -> Path:
    folder = Path(settings.EXPORTS_DIR)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _may_hold(what: dict[str, Any], organization: str, user_id: str) -> bool:
    selection = what["selection"]
    return (
        not what["redact"]
        and (what["organizations"] is None or organization in what["organizations"])
        and selection.get("organization", organization) == organization
        and selection.get("user", user_id) == user_id
    )


# --- A worker's turn --------------------------------------------------------------------------------------------------
def _claimable(now: dt.datetime) -> QuerySet[Export]:
    dead = Q(state=Export.State.RUNNING, beat_at__lt=now - dt.timedelta(seconds=LEASE))
    return Export.objects.filter(Q(state=Export.State.QUEUED) | dead)


def _claim() -> Export | None:
    now, token = timezone.now(), uuid7()
    # Whoever waits longest, so that a large one does not keep the small ones waiting.
    for pk in _claimable(now).order_by("beat_at", "id").values_list("pk", flat=True)[:10]:
        claimed = _claimable(now).filter(pk=pk)
        if claimed.update(state=Export.State.RUNNING, worker=token, beat_at=now):
            return Export.objects.get(pk=pk)
    return None


def _work_on(export: Export, *, until: float) -> None:
    mine = Export.objects.filter(pk=export.pk, worker=export.worker, state=Export.State.RUNNING)
    try:
        with _opened(export) as out:
            if _copy(export, out, mine, until=until):
                _end(export, mine, rows=out.checkpoint.rows, size=out.finish())
            else:
                # For the next turn, of whoever is free; unless it is not ours any more.
                mine.update(state=Export.State.QUEUED, worker=None, beat_at=timezone.now())
    except Busy:
        # A worker that was taken for dead and is not; it notices at its next beat. Nobody tries again within our lease.
        logger.warning("The export %s is still being written by another worker.", export.pk)
    except UNUSABLE:
        # The database is away: somebody goes on from what is on the disk once it is back.
        raise
    except Exception as error:
        # Tried again it would fail again, for ever.
        _fail(export, mine, error)


def _opened(export: Export) -> Partial:
    path = path_of(export)
    fresh = Checkpoint(what=export.what, secret=export.secret)
    form = copying.form_of(fresh)
    if not copying.is_of_this_version(fresh):
        raise Refused("The columns have changed with a new version meanwhile. Ask for a new one.")
    if files.checkpoint_path(path).exists():
        try:
            kept = files.read_checkpoint(path)
            return Partial.resume(path, form, copying.columns_of(kept), kept)
        except Busy:
            raise
        except Unusable as error:
            logger.warning("The export %s begins anew: %s", export.pk, error)
    return Partial.begin(path, form, copying.columns_of(fresh), fresh, force=True)


def _copy(export: Export, out: Partial, mine: QuerySet[Export], *, until: float) -> bool:
    extent = copying.extent_of(out.checkpoint)
    spoken = 0.0

    def go_on() -> bool:
        nonlocal spoken
        if out.checkpoint.bytes > settings.EXPORT_MAX_BYTES:
            raise Refused(
                f"It is larger than {settings.EXPORT_MAX_BYTES:,} bytes. Select less, or ask your operator for "
                "manage.py export_interactions."
            )
        now = time.monotonic()
        if now - spoken > _BEAT:
            spoken = now
            if not mine.update(
                rows=out.checkpoint.rows,
                bytes=out.checkpoint.bytes,
                progress=extent.done(copying.moment_of(out.checkpoint.last)),
                beat_at=timezone.now(),
            ):
                return False
        return now < until

    return copying.copy(out, copying.reader_of(out.checkpoint), go_on=go_on)


def _end(export: Export, mine: QuerySet[Export], *, rows: int, size: int) -> None:
    now = timezone.now()
    if not mine.update(
        state=Export.State.DONE,
        rows=rows,
        bytes=size,
        progress=1.0,
        worker=None,
        secret="",
        finished_at=now,
        expires_at=now + dt.timedelta(hours=settings.EXPORT_HOURS),
    ):
        # Cancelled or withdrawn while it was being finished.
        path_of(export).unlink(missing_ok=True)


def _fail(export: Export, mine: QuerySet[Export], error: Exception) -> None:
    words = str(error)
    if not isinstance(error, (Refused, OSError)):
        logger.error("The export %s cannot be made.", export.pk, exc_info=error)
        words = "It cannot be made, by a fault of ours; the server's log says which. Tell your operator."
    if isinstance(error, OSError):
        logger.error("The export %s cannot be written: %s", export.pk, error)
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        words = "The server's disk is full." if is_full else "The server cannot write the file; its log says why."
        words += " Tell your operator, then ask again."
    if mine.update(state=Export.State.FAILED, error=words, worker=None, secret="", finished_at=timezone.now()):
        files.discard(path_of(export))
