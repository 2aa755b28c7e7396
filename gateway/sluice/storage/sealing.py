"""Encrypts entries of stores: AES-256-GCM (NIST SP 800-38D), with keys of the configuration.

    0xC1
 version, 1
 the key's name, 8 bytes
 nonce, 12 bytes
 ciphertext
 tag, 16 bytes

No MessagePack, JSON or UTF-8 text begins with 0xC1, so encrypted entries can be distinguished from earlier
ones. Each owner (a conversation, a response) has a key of its own, derived from the configured one by
HMAC-SHA-256 of the owner's name (SP 800-108): nonces are random, so one key for all owners would only be safe
for 2**32 texts. The kind of the entry is in the associated data, so an entry can neither be moved to another
conversation nor be passed off as another kind. Missing or reordered entries of a conversation are not
detected. A key's name is the beginning of its SHA-256, so nobody has to name keys.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Any

MARK = 0xC1
_HEAD = bytes((MARK, 1))
_NAME, _NONCE = 8, 12
_START = len(_HEAD) + _NAME + _NONCE


class Unreadable(Exception):
    """The stored entry was sealed with an unknown key, or was changed; or it is not sealed but should be."""


class Seals:
    """Encrypts and decrypts entries of stores. Without keys nothing is encrypted, and encrypted entries
    cannot be read."""

    def __init__(self) -> None:
        self._keys: dict[bytes, bytes] = {}
        self._first: bytes = b""
        self._cipher: Any = None
        self._unsealed = True

    @property
    def on(self) -> bool:
        return bool(self._first)

    def use(self, keys: Sequence[bytes], *, unsealed: bool = True) -> None:
        """Encrypts with the first of these keys (32 bytes each) from now on, and decrypts with any of them.
        `unsealed`: entries that are not encrypted are also accepted."""
        if keys:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._cipher = AESGCM
        names = [hashlib.sha256(key).digest()[:_NAME] for key in keys]
        self._keys = dict(zip(names, keys, strict=True))
        self._first = names[0] if names else b""
        self._unsealed = unsealed or not keys

    def seal(self, data: bytes, owner: bytes, kind: bytes) -> bytes:
        """Returns the data as it is to be stored."""
        if not self._first:
            return data
        head, nonce = _HEAD + self._first, os.urandom(_NONCE)
        sealed: bytes = self._of(self._first, owner).encrypt(nonce, data, head + kind)
        return head + nonce + sealed

    def open(self, stored: bytes, owner: bytes, kind: bytes) -> bytes:
        """Returns the unsealed data; stored data that is not sealed is returned unchanged. Raises
        Unreadable."""
        if not is_sealed(stored):
            self.check_unsealed_allowed()
            return stored
        name = stored[len(_HEAD) : len(_HEAD) + _NAME]
        if name not in self._keys or not stored.startswith(_HEAD):
            raise Unreadable
        from cryptography.exceptions import InvalidTag

        try:
            found: bytes = self._of(name, owner).decrypt(
                stored[_START - _NONCE : _START], stored[_START:], stored[: _START - _NONCE] + kind
            )
        except (InvalidTag, ValueError):
            raise Unreadable from None
        return found

    def check_unsealed_allowed(self) -> None:
        """Raises Unreadable if entries that are not encrypted must not be read."""
        if not self._unsealed:
            raise Unreadable

    def is_current(self, stored: bytes) -> bool:
        """Returns whether it is stored as it would be now."""
        head = _HEAD + self._first
        return stored[: len(head)] == head if self._first else not is_sealed(stored)

    def _of(self, name: bytes, owner: bytes) -> Any:
        return self._cipher(hmac.digest(self._keys[name], b"sluice sealing 1" + owner, "sha256"))


def is_sealed(stored: bytes) -> bool:
    return stored[:1] == _HEAD[:1]


NOTHING = Seals()
"""Encrypts nothing. It must not be given keys."""
