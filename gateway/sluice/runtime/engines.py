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
    """The address of a store: the whole address `text`, which may hold a password, its kind, and the file's
    path, if any.

    `prefix`: what keys begin with in a database that others use, too.
    """

    text: str
    kind: Kind
    path: str
    prefix: str

    @property
    def shared(self) -> bool:
        """Whether the gateways of several hosts may use it at once: any call may wait, or fail."""
        return not isinstance(store_of(self.text), Local)

    @property
    def engine(self) -> "Engine":
        return ENGINES[self.kind]


def configured(text: str, config: Config) -> ConfiguredStore:
    """Raises ValueError where the address is wrong; `sluice check` says why."""
    place = store_of(text)
    return ConfiguredStore(
        text, place.kind, place.path if isinstance(place, Local) else "", config.limits.prefix
    )


class Engine:
    """Builds the stores at an address. What it cannot keep raises ValueError."""

    def buckets(self, at: ConfiguredStore, evicted: Callable[[], object]) -> tuple[BucketStore, float | None]:
        """The store of limits, and the seconds that a decision may take (None: the usual).

        `evicted` counts forgotten buckets.
        """
        raise _cannot_keep(at, "limits")

    def journals(
        self, at: ConfiguredStore, failed: Callable[[Reason], object], succeeded: Callable[[], object]
    ) -> Journals:
        raise _cannot_keep(at, "resumable streams")

    def conversations(self, at: ConfiguredStore, kept: Retention, seals: Seals) -> ConversationStore:
        """A SharedConversations, if hosts share it."""
        raise _cannot_keep(at, "conversations")

    def responses(self, at: ConfiguredStore, keep: float) -> ResponseStore:
        """`keep` in seconds."""
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
    """A file that the processes of one host map."""

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
