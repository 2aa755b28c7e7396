"""The engines that keep state: of each, a builder for every kind of state that it can keep.

A builder imports its module when it is called, so that the drivers of other engines need not be installed.
What an engine cannot keep is refused by `sluice check` (`sluice.storage.address` has the lists); a test holds
these builders to them.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from sluice.config.types import Config
from sluice.conversations import ConversationStore, Retention, SharedConversations
from sluice.kept import ResponseStore
from sluice.keystore import KeyStore
from sluice.limits import BucketStore
from sluice.resume import Journals
from sluice.storage import Reason
from sluice.storage.address import Kind, Local, store_of
from sluice.storage.sealing import Seals
from sluice.usage import UsageStore


class ConfiguredStore(msgspec.Struct, frozen=True):
    """The configured address of a store.

    `text` is the whole address, and may hold a password. `path`: the file, if it is one. `prefix`: the
    beginning of all keys, for a database that other programs use too.
    """

    text: str
    kind: Kind
    path: str
    prefix: str

    @property
    def shared(self) -> bool:
        """Whether gateways on several hosts may share it. Any call of such a store may wait, or fail."""
        return not isinstance(store_of(self.text), Local)

    @property
    def engine(self) -> "Engine":
        return ENGINES[self.kind]


def configured(text: str, config: Config) -> ConfiguredStore:
    """Parses the address of a store. Raises ValueError if it is wrong; `sluice check` reports why."""
    place = store_of(text)
    return ConfiguredStore(
        text, place.kind, place.path if isinstance(place, Local) else "", config.limits.prefix
    )


class Engine:
    """Builds the stores at an address. Each method raises ValueError for a kind of state that the engine
    cannot keep."""

    def buckets(self, at: ConfiguredStore, evicted: Callable[[], object]) -> tuple[BucketStore, float | None]:
        """Returns the store of limits, and the maximum seconds of one decision (None: the default). `evicted`
        is called for each bucket that is forgotten before it is full."""
        raise _cannot_keep(at, "limits")

    def journals(
        self, at: ConfiguredStore, failed: Callable[[Reason], object], succeeded: Callable[[], object]
    ) -> Journals:
        raise _cannot_keep(at, "resumable streams")

    def conversations(self, at: ConfiguredStore, kept: Retention, seals: Seals) -> ConversationStore:
        """Returns the store of conversations; a SharedConversations if several hosts share it."""
        raise _cannot_keep(at, "conversations")

    def responses(self, at: ConfiguredStore, keep: float) -> ResponseStore:
        """Returns the store of kept responses, which forgets them after `keep` seconds."""
        raise _cannot_keep(at, "responses")

    def usage(self, at: ConfiguredStore) -> UsageStore:
        raise _cannot_keep(at, "usage")

    def keys(self, at: ConfiguredStore) -> KeyStore:
        raise _cannot_keep(at, "keys")


class Memory(Engine):
    def buckets(self, at: ConfiguredStore, evicted: Callable[[], object]) -> tuple[BucketStore, float | None]:
        from sluice.limits.memory import MemoryStore

        return MemoryStore(), None

    def journals(
        self, at: ConfiguredStore, failed: Callable[[Reason], object], succeeded: Callable[[], object]
    ) -> Journals:
        from sluice.resume.memory import MemoryJournals

        return MemoryJournals()

    def conversations(self, at: ConfiguredStore, kept: Retention, seals: Seals) -> ConversationStore:
        from sluice.conversations.memory import MemoryConversations

        return MemoryConversations()

    def responses(self, at: ConfiguredStore, keep: float) -> ResponseStore:
        from sluice.kept.memory import MemoryResponses

        return MemoryResponses(keep, time.time)

    def usage(self, at: ConfiguredStore) -> UsageStore:
        from sluice.usage.memory import MemoryUsage

        return MemoryUsage()

    def keys(self, at: ConfiguredStore) -> KeyStore:
        from sluice.keystore.memory import MemoryKeys

        return MemoryKeys()


class SharedFile(Engine):
    """A file that the processes of one host map into memory."""

    def buckets(self, at: ConfiguredStore, evicted: Callable[[], object]) -> tuple[BucketStore, float | None]:
        from sluice.limits.shared import SharedStore

        return SharedStore(at.path, evicted=evicted), None


class Sqlite(Engine):
    def conversations(self, at: ConfiguredStore, kept: Retention, seals: Seals) -> ConversationStore:
        from sluice.conversations.sqlite import SqliteConversations

        return SqliteConversations(Path(at.path), seals)

    def responses(self, at: ConfiguredStore, keep: float) -> ResponseStore:
        from sluice.kept.sqlite import SqliteResponses

        return SqliteResponses(Path(at.path), keep, time.time)

    def usage(self, at: ConfiguredStore) -> UsageStore:
        from sluice.usage.sqlite import SqliteUsage

        return SqliteUsage(Path(at.path))

    def keys(self, at: ConfiguredStore) -> KeyStore:
        from sluice.keystore.sqlite import SqliteKeys

        return SqliteKeys(Path(at.path))


class Redis(Engine):
    def buckets(self, at: ConfiguredStore, evicted: Callable[[], object]) -> tuple[BucketStore, float | None]:
        from sluice.limits.redis import RedisStore

        store = RedisStore(at.text, prefix=at.prefix)
        return store, store.timeout

    def journals(
        self, at: ConfiguredStore, failed: Callable[[Reason], object], succeeded: Callable[[], object]
    ) -> Journals:
        from sluice.resume.redis import RedisJournals

        return RedisJournals(at.text, prefix=at.prefix, failed=failed, succeeded=succeeded)

    def conversations(self, at: ConfiguredStore, kept: Retention, seals: Seals) -> SharedConversations:
        from sluice.conversations.redis import KEEP, MAX_TURNS, RedisConversations

        return RedisConversations(
            at.text,
            prefix=at.prefix,
            keep=kept.age if kept.age is not None else KEEP,
            messages=min(MAX_TURNS, kept.messages or MAX_TURNS),
            by_tenant=kept.conversations is not None,
            seals=seals,
        )

    def responses(self, at: ConfiguredStore, keep: float) -> ResponseStore:
        from sluice.kept.redis import RedisResponses

        return RedisResponses(at.text, keep, time.time, prefix=at.prefix)

    def usage(self, at: ConfiguredStore) -> UsageStore:
        from sluice.usage.redis import RedisUsage

        return RedisUsage(at.text, prefix=at.prefix)

    def keys(self, at: ConfiguredStore) -> KeyStore:
        from sluice.keystore.redis import RedisKeys

        return RedisKeys(at.text, prefix=at.prefix)


class Postgres(Engine):
    def conversations(self, at: ConfiguredStore, kept: Retention, seals: Seals) -> SharedConversations:
        from sluice.conversations.postgres import PostgresConversations

        return PostgresConversations(at.text, seals=seals)

    def responses(self, at: ConfiguredStore, keep: float) -> ResponseStore:
        from sluice.kept.postgres import PostgresResponses

        return PostgresResponses(at.text, keep, time.time)

    def usage(self, at: ConfiguredStore) -> UsageStore:
        from sluice.usage.postgres import PostgresUsage

        return PostgresUsage(at.text)

    def keys(self, at: ConfiguredStore) -> KeyStore:
        from sluice.keystore.postgres import PostgresKeys

        return PostgresKeys(at.text)


ENGINES: Mapping[Kind, Engine] = {
    "memory": Memory(),
    "shared": SharedFile(),
    "sqlite": Sqlite(),
    "redis": Redis(),
    "postgres": Postgres(),
}


def _cannot_keep(at: ConfiguredStore, state: str) -> ValueError:
    return ValueError(f"a store of kind {at.kind} cannot keep {state}")
