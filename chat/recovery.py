"""Brings the journals of dead processes into the database: whoever finds one claims it, and nobody replays it twice.

What has an end is stored as it ended; what has only a beginning becomes an `interrupted` interaction with what is
known. Rows that are stored already stay as they are, so that a replay may itself be interrupted at any point.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import connections

from chat import journal, rows
from chat.journal import Place, Record
from chat.models import Interaction
from chat.rows import ExchangeRows
from chat.storing import BATCH, BATCH_BYTES, UNUSABLE, store_or_quarantine

logger = logging.getLogger(__name__)

#: Seconds until a database that cannot be reached is tried again.
PAUSE = 2.0
#: How the name of a segment ends that could not be read whole.
DAMAGED = ".damaged"


@dataclass(slots=True)
class Report:
    """What a replay did: exchanges by how they were left, and complaints about what could not be read."""

    journals: int = 0
    ended: int = 0
    interrupted: int = 0
    complaints: list[str] = field(default_factory=list)


def replay(directory: Path) -> Report:
    """Claims and replays the journals below `directory` whose processes are dead.

    Raises one of `UNUSABLE` when the database cannot be used: what is not replayed stays.
    """
    report = Report()
    journal.remove_stillborn(directory)
    for path in _journals(directory, report):
        try:
            owner = journal.lock(path)
        except FileNotFoundError:
            # Replayed and removed by another process since we looked.
            continue
        except OSError as error:
            report.complaints.append(f"{path} cannot be locked: {error.strerror}")
            continue
        if owner is None:
            continue
        try:
            _replay_one(path, report)
        finally:
            os.close(owner)
    return report


def bring_in(directory: Path, process: UUID) -> bool:
    """Whether all that the journal of that process had to tell is in the database: replays it if the process is dead.

    False while the process lives, or another one replays it. Raises as `replay` does.
    """
    path = directory / str(process)
    try:
        owner = journal.lock(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        logger.error("%s cannot be locked: %s", path, error.strerror)  # noqa: TRY400
        return False
    if owner is None:
        return False
    report = Report()
    try:
        _replay_one(path, report)
    finally:
        os.close(owner)
    _tell(report)
    return True


def _tell(report: Report) -> None:
    for complaint in report.complaints:
        logger.error("Journal: %s", complaint)
    if report.journals:
        logger.warning(
            "%d journals of dead processes replayed: %d exchanges ended, %d interrupted.",
            report.journals,
            report.ended,
            report.interrupted,
        )


def replay_until_done(directory: Path, *, should_end: threading.Event) -> None:
    """`replay`, again and again while the database cannot be reached, once in any case: for a thread beside a server
    that starts or ends."""
    while True:
        try:
            report = replay(directory)
        except UNUSABLE as error:
            logger.warning("Journals wait for the database: %s", error)
            connections.close_all()
            if should_end.wait(PAUSE):
                return
            continue
        except Exception:
            logger.exception("Journals of dead processes are not replayed; manage.py replay_journal tries again.")
            return
        finally:
            connections.close_all()
        _tell(report)
        return


def _journals(directory: Path, report: Report) -> Iterator[Path]:
    try:
        entries = sorted(entry for entry in directory.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return
    for entry in entries:
        if is_journal(entry):
            yield entry
        elif entry.name.startswith(journal.UNBORN):
            continue
        else:
            report.complaints.append(f"{entry} is not a journal; it is left alone")


def _replay_one(path: Path, report: Report) -> None:
    segments = journal.segments(path)
    damaged: set[Path] = set()
    begun: dict[UUID, Place] = {}
    batch: list[ExchangeRows] = []
    size = 0
    for segment in segments:

        def complain(complaint: str, segment: Path = segment) -> None:
            damaged.add(segment)
            report.complaints.append(complaint)

        for record in journal.read(segment, on_damage=complain):
            if record.kind != "E":
                begun[record.exchange] = record.place
                continue
            begun.pop(record.exchange, None)
            batch += _understood(rows.from_facts, record, complain)
            size += record.place.length
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                report.ended += _store(batch)
                size = 0
    report.ended += _store(batch)
    size = 0
    for place in begun.values():
        batch += _understood(rows.interrupted, journal.fetch(place), report.complaints.append)
        size += place.length
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            report.interrupted += _store(batch)
            size = 0
    report.interrupted += _store(batch)
    report.journals += bool(segments)
    _clear(path, segments, damaged)


def _store(batch: list[ExchangeRows]) -> int:
    """Stores the batch and empties it; how many there were."""
    # What is stored already brings nothing new, and might bring back a conversation that was deleted since.
    stored = set(Interaction.objects.filter(id__in=[exchange.id for exchange in batch]).values_list("id", flat=True))
    store_or_quarantine([exchange for exchange in batch if exchange.id not in stored])
    count = len(batch)
    batch.clear()
    return count


def _understood(
    make: Callable[[Mapping[str, Any]], ExchangeRows], record: Record, complain: Callable[[str], None]
) -> list[ExchangeRows]:
    """The record's rows as a list of one; of none, with a complaint, when another version wrote it."""
    try:
        return [make(record.facts)]
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        complain(f"{record.place.path} at byte {record.place.offset}: these are no rows of this version ({error!r})")
        return []


def _clear(path: Path, segments: list[Path], damaged: set[Path]) -> None:
    """Removes what is in the database now; keeps damaged segments, renamed, for whoever wants to look at them."""
    for segment in segments:
        if segment in damaged:
            segment.rename(segment.with_suffix(DAMAGED))
        else:
            segment.unlink(missing_ok=True)
    if not damaged:
        journal.remove(path)


def is_journal(path: Path) -> bool:
    """Whether the directory has the name of a journal: its process's id."""
    try:
        UUID(path.name)
    except ValueError:
        return False
    return True
