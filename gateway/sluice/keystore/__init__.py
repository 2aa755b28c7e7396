"""Dynamic keys: made through the admin API, kept in a store, known to every process.

table     all of them in memory, for authentication without waiting for a store
follower  keeps the table up to date with the store, and changes both
memory, sqlite, redis, postgres   the stores

A store numbers every change: its *generation*. A key's *revision* is the generation of its last change. A
change names the revision that it replaces, so of two concurrent changes one is refused.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from sluice.config.types import NamedGrant
from sluice.config.units import Rate
from sluice.storage import Reason

PAGE = 1000
"""Changes read at a time."""


class Superseded(msgspec.Struct, frozen=True):
    """The digest of a key that was replaced by a rotation; it works until `until` (seconds since the epoch)."""

    digest: str
    until: float


class StoredKey(NamedGrant, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A dynamic key as it is stored. Times are in seconds since the epoch. `last_four` characters of the key
    help people to recognize it."""

    digest: str
    last_four: str
    created: float
    rotated: float | None = None
    old: Superseded | None = None


class KeyEntry(msgspec.Struct, frozen=True):
    """A key and its revision. `key` None: it cannot be parsed (a newer version wrote it), so it must not be
    accepted."""

    id: str
    revision: int
    key: StoredKey | None


class Changes(msgspec.Struct, frozen=True):
    """Changes, oldest first, up to `generation`: at most PAGE entries; the next call returns the rest.
    `total`: the number of keys. `epoch` identifies the store's data: a store that has lost it begins
    another epoch."""

    epoch: str
    generation: int
    entries: Sequence[KeyEntry] = ()
    total: int = 0


class KeyStoreFailed(Exception):
    """The store did not answer, or answered with an error. `reason` is one of `sluice.storage.Reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class KeyStore(Protocol):
    """Stores dynamic keys. One test suite covers all implementations. Every call may raise KeyStoreFailed,
    and none waits long."""

    async def changes(self, since: int) -> Changes:
        """Returns the keys stored after generation `since`; deletions show only in `total`."""
        ...

    async def ids(self) -> set[str]: ...

    async def put(self, key: StoredKey, revision: int) -> int | None:
        """Stores `key` in place of `revision` (0: there must be none). Returns its new revision; None if
        there is another one."""
        ...

    async def delete(self, id: str, revision: int) -> bool:
        """Deletes the key. Returns False if it has another revision, or does not exist."""
        ...

    async def close(self) -> None: ...


def encode(key: StoredKey) -> bytes:
    """Returns the JSON that is stored, with rates as text."""
    return _encode(key)


def decode(id: str, revision: int, data: bytes) -> KeyEntry:
    """Parses a stored key. Never raises: data that cannot be parsed gives an entry without a key."""
    try:
        return KeyEntry(id, revision, _decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return KeyEntry(id, revision, None)


def json_unit(value: object) -> Any:
    """Returns a unit in its form in JSON."""
    return value.text if isinstance(value, Rate) else float(str(value))


def _unit(kind: type, value: object) -> Any:
    return kind.parse(value)  # type: ignore[attr-defined]  # every custom type of the configuration has it


_encode = msgspec.json.Encoder(enc_hook=json_unit).encode
_decode = msgspec.json.Decoder(StoredKey, dec_hook=_unit).decode
