"""All dynamic keys in memory. Looking up a key takes one hash and one look into a dict, however many keys
there are."""

import hashlib
import heapq
import hmac
import time
from collections import Counter
from collections.abc import Callable, Collection

from sluice.config.types import KeyLimits
from sluice.identity.keys import Keyring
from sluice.keystore import KeyEntry, StoredKey

UNPEPPERED, PEPPERED = "sha256:", "hmac-sha256:"


class KeyTable:
    """The dynamic keys.

    `keyring` is used for authentication; `origins`: the origins of pages that any of the keys may be used
    from. `pepper`: digests are HMAC-SHA-256 with it; keys with other digests (or with another pepper) are not
    accepted. Ids of `configured` keys take precedence: a dynamic key with the same id is not accepted.
    `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        *,
        pepper: bytes = b"",
        configured: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pepper = pepper
        self._scheme = PEPPERED if pepper else UNPEPPERED
        self._configured = configured
        self._entries: dict[str, KeyEntry] = {}
        self.clock = clock
        self.keyring = Keyring((), lambda: self.clock(), self._hash)
        self.origins: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> list[KeyEntry]:
        return list(self._entries.values())

    @property
    def budgets(self) -> dict[str, KeyLimits]:
        """Returns the limits of the keys that have a budget, by id."""
        return self.budgets_beside(self._configured)

    def budgets_beside(self, configured: Collection[str]) -> dict[str, KeyLimits]:
        """Returns the result that `budgets` would have if these were the ids of the configured keys."""
        keys = (entry.key for entry in self._entries.values() if entry.id not in configured)
        return {key.id: key.limits for key in keys if key is not None and _has_budget(key.limits)}

    def configure(self, configured: frozenset[str]) -> None:
        """Sets the ids of the configured keys."""
        changed = [
            entry for id in self._configured ^ configured if (entry := self._entries.get(id)) is not None
        ]
        for entry in changed:
            self.drop(entry.id)
        self._configured = configured
        for entry in changed:
            self.put(entry)

    def get(self, id: str) -> KeyEntry | None:
        return self._entries.get(id)

    def ids_after(self, id: str, count: int) -> list[str]:
        """Returns the first `count` ids that follow this one in alphabetical order."""
        return heapq.nsmallest(count, (known for known in self._entries if known > id))

    def digest(self, secret: str) -> str:
        """Returns what is stored of a key: its digest."""
        return self._scheme + self._hash(secret.encode()).hex()

    def put(self, entry: KeyEntry) -> None:
        self.drop(entry.id)
        key = entry.key
        if key is not None and entry.id not in self._configured:
            try:
                self.keyring.put(key, self._digests(key))
            except ValueError:  # not what we wrote
                entry = KeyEntry(entry.id, entry.revision, None)
            else:
                self.origins.update(key.origins)
        self._entries[entry.id] = entry

    def drop(self, id: str) -> None:
        entry = self._entries.pop(id, None)
        self.keyring.drop(id)
        if entry is not None and entry.key is not None and id not in self._configured:
            self.origins -= Counter(entry.key.origins)

    def _digests(self, key: StoredKey) -> dict[bytes, float]:
        """Returns the digests, each with the time at which it ends."""
        found = [(key.digest, float("inf"))] + (
            [(key.old.digest, key.old.until)] if key.old is not None else []
        )
        return {
            bytes.fromhex(digest.removeprefix(self._scheme)): until
            for digest, until in found
            if digest.startswith(self._scheme)
        }

    def _hash(self, secret: bytes) -> bytes:
        return (
            hmac.digest(self._pepper, secret, "sha256") if self._pepper else hashlib.sha256(secret).digest()
        )


def _has_budget(limits: KeyLimits) -> bool:
    return any(one.budget is not None for one in (limits, *limits.aliases.values()))
