"""Encryption at rest: a ring of keys, of which the newest encrypts and each decrypts what it encrypted.

    enc1:<id of the key, 8 hex digits>:<base64 of nonce (12 bytes), ciphertext and tag (16 bytes)>

AES-256-GCM with random nonces (NIST SP 800-38D, which allows 2**32 of them a key). Knows neither settings nor rows.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: What every encrypted value begins with.
MARK: Final = "enc1:"
KEY_BYTES: Final = 32

_ID_DIGITS: Final = 8
_NONCE_BYTES: Final = 12
_HEAD: Final = len(MARK) + _ID_DIGITS + 1


class Undecryptable(ValueError):
    """No key of the ring opens the value: its key is not there any more, or the value was damaged."""

    def __init__(self) -> None:
        super().__init__("no key that is there opens it")


class KeyRing:
    """`keys`: of 32 bytes each, the newest first. A ring without keys is false; it encrypts and decrypts nothing."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_id_of(key): _cipher(key) for key in keys}
        self._newest = next(iter(self._ciphers), "")

    def __bool__(self) -> bool:
        return bool(self._ciphers)

    @property
    def newest_mark(self) -> str:
        """What a value encrypted with the newest key begins with; empty without keys."""
        return f"{MARK}{self._newest}:" if self._newest else ""

    def encrypt(self, data: bytes) -> str:
        """The data encrypted with the newest key, in ASCII without blanks. Raises KeyError without keys."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._ciphers[self._newest].encrypt(nonce, data, None)
        return self.newest_mark + base64.b64encode(sealed).decode("ascii")

    def decrypt(self, value: str) -> bytes:
        """What was encrypted. Raises Undecryptable."""
        cipher = self._ciphers.get(value[len(MARK) : _HEAD - 1])
        if cipher is None or not value.startswith(MARK):
            raise Undecryptable
        try:
            sealed = base64.b64decode(value[_HEAD:], validate=True)
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
        # InvalidTag has no common base with the others; whatever it is, the value cannot be had.
        except Exception as error:
            raise Undecryptable from error


def keys_from(text: str) -> tuple[bytes, ...]:
    """Keys in base64 of either alphabet, divided by commas or blanks. Raises ValueError, which does not repeat them."""
    keys: list[bytes] = []
    for number, word in enumerate(text.replace(",", " ").split(), start=1):
        try:
            key = base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"key number {number} is not 32 bytes in base64. Make one with: openssl rand -base64 32")
        if key in keys:
            raise ValueError(f"key number {number} is there twice. Remove one of the two.")
        keys.append(key)
    return tuple(keys)


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"id of a key: " + key).hexdigest()[:_ID_DIGITS]


def _cipher(key: bytes) -> AESGCM:
    # 7 MB and 40 ms that a process without encryption does not spend.
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)
