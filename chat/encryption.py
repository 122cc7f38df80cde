"""The settings' key ring at work: what goes onto a disk, sealed if there is a key, and what comes back, opened.

Values from before a key was set pass as they are, so that switching on needs no conversion.
"""

from __future__ import annotations

import functools
from typing import Final

from django.conf import settings

from llmchat.lib.encryption import MARK, KeyRing, Undecryptable

__all__ = ["Undecryptable", "is_on", "open_text", "ring", "seal", "seal_text", "unseal"]

#: Goes before a plain text that itself begins with a mark, so that it is not taken for an encrypted one.
_PLAIN: Final = "enc0:"


def ring() -> KeyRing:
    """The ring of `TEXT_ENCRYPTION_KEYS`."""
    return _ring(settings.TEXT_ENCRYPTION_KEYS)


def is_on() -> bool:
    """Whether what is stored from now on is encrypted."""
    return bool(ring())


@functools.lru_cache(maxsize=8)
def _ring(keys: tuple[bytes, ...]) -> KeyRing:
    return KeyRing(keys)


def seal_text(text: str, *, keys: KeyRing) -> str:
    """The text as a column holds it. Empty texts stay empty: that there is none is no secret."""
    if text and keys:
        # Encrypted, a lone surrogate, which JSON lets in, is as good as any other character.
        return keys.encrypt(text.encode("utf-8", "surrogatepass"))
    return _PLAIN + text if text.startswith((MARK, _PLAIN)) else text


def open_text(stored: str, *, keys: KeyRing) -> str:
    """The text of a column's value. Raises Undecryptable."""
    if stored.startswith(MARK):
        return keys.decrypt(stored).decode("utf-8", "surrogatepass")
    return stored.removeprefix(_PLAIN)


def seal(data: bytes) -> bytes:
    """Bytes as a file or a cache holds them: encrypted, without blanks and line breaks; as they are without a key.
    Plain data must not begin with the mark of encryption; JSON does not."""
    keys = ring()
    return keys.encrypt(data).encode("ascii") if keys else data


def unseal(data: bytes) -> bytes:
    """What was sealed; what never was, as it is. Raises Undecryptable."""
    return ring().decrypt(data.decode("latin-1")) if data.startswith(MARK.encode()) else data
