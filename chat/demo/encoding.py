"""Raw rows as PostgreSQL's binary COPY wants them. What echoes have in common with their original is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from django.db import models

from chat.demo import shapes
from chat.demo.columns import TABLES, column_of, in_copy_order, sealing
from chat.demo.echoes import Echo, Original
from chat.demo.shapes import Row, Told
from chat.encryption import ring
from chat.fields import EncryptedJSONField, EncryptedTextField
from chat.models import Attempt, Conversation, Interaction

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_POSTGRESQL_EPOCH_MS: Final = 946_684_800_000
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTH, _SHORT, _INT, _LONG, _DOUBLE, _NUMERIC = (
    Struct(layout) for layout in (">i", ">ih", ">ii", ">iq", ">id", ">ihhHhHHHH")
)
#: Columns of which hardly two rows have the same value.
_UNIQUE: Final = frozenset({"trace_id", "request_id", "upstream_request_id"})
#: An echo's interaction up to its trace; then come a conversation and an end, if any.
_BEGUN: Final = Struct(">hi16siqi36s")
_UUID: Final = b"\0\0\0\x10"
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table in the order of `keys`: their ids, or of attempts their interactions'."""

    keys: list[int]
    encoded: list[bytes]


class Encoder:
    """Keeps what it has encoded of originals for their echoes."""

    def __init__(self) -> None:
        self._encoders = {
            model: [(names.index(name), _encoder(model, name)) for name in in_copy_order(model)]
            for model, names in TABLES
        }
        self._tails: dict[int, tuple[list[bytes], list[bytes]]] = {}

    def encode(self, told: Told) -> list[Rows]:
        """The rows of conversations, interactions and attempts."""
        conversations = self._rows(Conversation, told.conversations)
        if isinstance(told, Echo):
            return [conversations, *self._echoed(told)]
        interactions = self._rows(Interaction, told.interactions)
        return [conversations, interactions, self._rows(Attempt, told.attempts, key=1)]

    def _rows(self, model: type[models.Model], rows: Sequence[Row], *, key: int = 0) -> Rows:
        encoders = self._encoders[model]
        count = len(encoders).to_bytes(2, "big")
        return Rows(
            [row[key] for row in rows],
            [count + b"".join([encode(row[place]) for place, encode in encoders]) for row in rows],
        )

    def _echoed(self, echo: Echo) -> tuple[Rows, Rows]:
        original = echo.original
        tails = self._tails.get(original.number)
        if tails is None:
            tails = self._tails[original.number] = self._tails_of(original)
        return self._interactions(echo, tails[0]), self._attempts(echo, tails[1])

    def _interactions(self, echo: Echo, tails: list[bytes]) -> Rows:
        renamed, has_file = echo.renamed, [] if ring() else echo.original.has_file
        conversation, created, finished = (
            shapes.INTERACTION.index(name) for name in ("conversation_id", "created_at", "finished_at")
        )
        count, begun, length, long = len(shapes.INTERACTION), _BEGUN.pack, _LENGTH.pack, _LONG.pack
        encoded = []
        for place, row in enumerate(echo.original.chunk.interactions):
            thread, ended, request = row[conversation], row[finished], echo.requests[place]
            moment = (echo.moments[place] - _POSTGRESQL_EPOCH_MS) * 1000
            said = [
                begun(count, 16, echo.ids[place].to_bytes(16, "big"), 8, moment, 36, echo.traces[place].encode()),
                _NULL if thread is None else _UUID + renamed[thread].to_bytes(16, "big"),
                _NULL if ended is None else long(8, moment + (ended - row[created]) * 1000),
                _NULL if request is None else length(len(request)) + request.encode(),
                tails[place],
            ]
            if has_file and has_file[place]:
                said[-1] = tails[place][: -_DIGITS - 1]
                said += [echo.files[place].encode(), b"."]
            encoded.append(b"".join(said))
        return Rows(echo.ids, encoded)

    def _attempts(self, echo: Echo, tails: list[bytes]) -> Rows:
        interactions, started_at = echo.original.chunk.interactions, shapes.ATTEMPT.index("started_at")
        created = shapes.INTERACTION.index("created_at")
        count = len(shapes.ATTEMPT).to_bytes(2, "big")
        keys, encoded = [], []
        for row, place, tail in zip(echo.original.chunk.attempts, echo.original.owners, tails, strict=True):
            started = row[started_at] - interactions[place][created] + echo.moments[place]
            identifier = echo.attempt_id(place, row[2], started).to_bytes(16, "big")
            owner = echo.ids[place]
            keys.append(owner)
            encoded.append(
                b"".join([count, _UUID, identifier, _UUID, owner.to_bytes(16, "big"), _moment(started), tail])
            )
        return Rows(keys, encoded)

    def _tails_of(self, original: Original) -> tuple[list[bytes], list[bytes]]:
        """What echoes have in common: of each interaction and attempt all columns but their own."""
        return (
            self._tails_from(Interaction, original.chunk.interactions, 6),
            self._tails_from(Attempt, original.chunk.attempts, 3),
        )

    def _tails_from(self, model: type[models.Model], rows: Sequence[Row], own: int) -> list[bytes]:
        encoders = self._encoders[model][own:]
        return [b"".join([encode(row[place]) for place, encode in encoders]) for row in rows]


class _Cached(dict[Any, bytes]):
    """Values that come again and again, encoded once."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, value: Any) -> bytes:
        encoded = self[value] = self._encode(value)
        return encoded


def _encoder(model: type[models.Model], name: str) -> Callable[[Any], bytes]:
    field = column_of(model, name)
    match field:
        case EncryptedJSONField():
            seal = sealing(field) or str
            # jsonb's version goes before the text.
            return _Cached(lambda value: _bytes(b"\x01" + seal(value).encode())).__getitem__
        case EncryptedTextField():
            seals = sealing(field)
            return _text if seals is None else lambda value: _text(seals(value))
        case models.UUIDField() | models.ForeignKey():
            return _uuid if name in {"id", "interaction_id", "conversation_id"} else _Cached(_uuid).__getitem__
        case models.CharField():
            return _text if name in _UNIQUE else _Cached(_text).__getitem__
        case models.DateTimeField():
            return _moment
        case models.DecimalField():
            return _cost
        case models.FloatField():
            return _float
        case models.BooleanField():
            return {True: b"\0\0\0\1\1", False: b"\0\0\0\1\0"}.__getitem__
        case models.PositiveSmallIntegerField():
            return _Cached(lambda value: _NULL if value is None else _SHORT.pack(2, value)).__getitem__
        case models.PositiveIntegerField():
            return _Cached(lambda value: _NULL if value is None else _INT.pack(4, value)).__getitem__
    raise TypeError(f"there is no way to copy a {type(field).__name__}")


def _bytes(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def _uuid(value: int | None) -> bytes:
    return _NULL if value is None else _UUID + value.to_bytes(16, "big")


def _moment(ms: int | None) -> bytes:
    return _NULL if ms is None else _LONG.pack(8, (ms - _POSTGRESQL_EPOCH_MS) * 1000)


def _float(value: float | None) -> bytes:
    return _NULL if value is None else _DOUBLE.pack(8, value)


def _cost(value: int | None) -> bytes:
    """A numeric with 12 decimal places: four digits to the base of 10,000, the first before the point."""
    if value is None:
        return _NULL
    value, last = divmod(value, 10_000)
    value, middle = divmod(value, 10_000)
    whole, first = divmod(value, 10_000)
    return _NUMERIC.pack(16, 4, 0, 0, 12, whole, first, middle, last)
