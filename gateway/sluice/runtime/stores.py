"""Builds the stores of a configuration. Modules of other stores are not imported."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from sluice.config.types import Config
from sluice.conversations import ConversationStore, Retention, SharedConversations
from sluice.conversations.measured import Measured, MeasuredShared
from sluice.conversations.memory import MemoryConversations
from sluice.kept import ResponseStore
from sluice.keystore import KeyStore
from sluice.keystore.follower import Follower
from sluice.keystore.memory import MemoryKeys
from sluice.keystore.table import KeyTable
from sluice.limits import BucketStore
from sluice.limits.memory import MemoryStore
from sluice.resume import Journals
from sluice.resume.memory import MemoryJournals
from sluice.storage import Reason
from sluice.storage.address import CONVERSATIONS, Local, store_of
from sluice.storage.sealing import Seals
from sluice.storage.watch import StoreWatch
from sluice.telemetry.metrics import Metrics
from sluice.usage import SUBJECT, Row, UsageFailed, UsageStore
from sluice.usage.ledger import UsageLedger
from sluice.usage.memory import MemoryUsage


class StoreWatches(dict[str, StoreWatch]):
    """Makes the watches of stores. By the store's name: the function that gets the results of its calls."""

    def __init__(self, metrics: Metrics, log: Any, clock: Callable[[], float]) -> None:
        super().__init__()
        self._metrics = metrics
        self._log = log
        self._clock = clock

    def begin(self, name: str, kind: str) -> StoreWatch:
        """Starts the watch of a store of this kind."""

        def count(reason: Reason) -> None:
            self._metrics.child("store_errors", reason, name).inc()

        watch = self[name] = StoreWatch(name, kind, count, self._log.warning, clock=self._clock)
        return watch


def bucket_store(config: Config, metrics: Metrics, log: Any, watches: StoreWatches) -> BucketStore:
    url = config.limits.store.reveal()
    place = store_of(url)
    kind = place.kind
    watch = watches.begin("limits", kind)
    if kind == "memory":
        return MemoryStore()
    from sluice.limits.guarded import TIMEOUT, Decider, Guarded

    errors = metrics.child("ratelimit_store_errors", kind)
    seconds = metrics.child("ratelimit_store_seconds", kind)
    store: BucketStore
    timeout = TIMEOUT
    if isinstance(place, Local):
        from sluice.limits.shared import SharedStore

        store = SharedStore(place.path, evicted=metrics.child("ratelimit_forgotten", kind).inc)
    else:
        from sluice.limits.redis import RedisStore

        store = in_redis = RedisStore(url, prefix=config.limits.prefix)
        timeout = in_redis.timeout

    def failed(reason: Reason) -> None:
        errors.inc()
        watch.failed(reason)

    def decided(decider: Decider, took: float) -> None:
        seconds.observe(took)
        if watch.failing is not None and decider == "store":
            watch.succeeded()

    return Guarded(
        store,
        MemoryStore(),
        config.limits.when_down,
        replicas=config.limits.replicas * config.server.workers,
        timeout=timeout,
        failed=failed,
        decided=decided,
        switched=lambda down: log.warning("limits_store", down=down, mode=config.limits.when_down),
    )


def journals(config: Config, not_journaled: Callable[[], object], watches: StoreWatches) -> Journals:
    """Opens the journals; `not_journaled` is called for each failure of the store."""
    url = config.resume.reveal()
    kind = store_of(url).kind
    watch = watches.begin("resume", kind)
    if kind == "memory":
        return MemoryJournals()
    from sluice.resume.redis import RedisJournals

    def failed(reason: Reason) -> None:
        not_journaled()
        watch.failed(reason)

    return RedisJournals(url, prefix=config.limits.prefix, failed=failed, succeeded=watch.succeeded)


def usage_ledger(config: Config, metrics: Metrics, log: Any, watches: StoreWatches) -> UsageLedger:
    """Returns the ledger that counts what calls use, for the store of usage."""
    errors, aside = metrics.child("usage_store_errors"), metrics.child("usage_put_aside")
    watch = watches.begin("usage", store_of(admin_store(config)).kind)

    def failed(error: UsageFailed) -> None:
        errors.inc()
        watch.failed(error.reason)

    def put_aside(row: Row) -> None:
        aside.inc()
        subject, figures = row
        named = ((name, getattr(subject, name)) for name in SUBJECT)
        names = {name: value.encode("utf-8", "replace").decode() for name, value in named}
        values = {name: str(value) for name, value in msgspec.structs.asdict(figures).items() if value}
        log.error("usage_put_aside", **names, figures=values)

    folded = metrics.child("usage_folded").inc
    store = usage_store(config)
    return UsageLedger(
        store,
        wall=time.time,
        failed=failed,
        succeeded=watch.succeeded,
        folded=folded,
        put_aside=put_aside,
        hourly_days=config.usage.hourly_days,
    )


def usage_store(config: Config) -> UsageStore:
    text = admin_store(config)
    place = store_of(text)
    if place.kind == "memory":
        return MemoryUsage()
    if isinstance(place, Local):
        from sluice.usage.sqlite import SqliteUsage

        return SqliteUsage(Path(place.path))
    if place.kind == "postgres":
        from sluice.usage.postgres import PostgresUsage

        return PostgresUsage(text)
    from sluice.usage.redis import RedisUsage

    return RedisUsage(text, prefix=config.limits.prefix)


def conversation_store(config: Config, metrics: Metrics, watches: StoreWatches, seals: Seals) -> Measured:
    place = store_of(config.state.reveal(), *CONVERSATIONS)
    if isinstance(place, Local):
        return Measured(_local_conversations(place, seals), metrics, place.kind, time.monotonic)
    watch = watches.begin("conversations", place.kind)
    shared = _shared_conversations(config, place.kind, seals)
    return MeasuredShared(shared, metrics, place.kind, time.monotonic, watch=watch)


def _shared_conversations(config: Config, kind: str, seals: Seals) -> SharedConversations:
    text = config.state.reveal()
    if kind == "postgres":
        from sluice.conversations.postgres import PostgresConversations

        return PostgresConversations(text, seals=seals)
    from sluice.conversations.redis import KEEP, MAX_TURNS, RedisConversations

    kept = retention(config)
    return RedisConversations(
        text,
        prefix=config.limits.prefix,
        keep=kept.age if kept.age is not None else KEEP,
        messages=min(MAX_TURNS, kept.messages or MAX_TURNS),
        by_tenant=kept.conversations is not None,
        seals=seals,
    )


def use_keys(seals: Seals, config: Config) -> None:
    """Encrypts new entries, and decrypts old ones, as configured from now on."""
    keys = config.encryption.keys
    seals.use(keys.keys() if keys is not None else (), unsealed=config.encryption.plaintext == "read")


def retention(config: Config) -> Retention:
    """Returns the configured `retention` in the form that stores take."""
    kept = config.retention
    return Retention(float(kept.age) if kept.age is not None else None, kept.messages, kept.conversations)


def _local_conversations(place: Local, seals: Seals) -> ConversationStore:
    if place.kind == "sqlite":
        from sluice.conversations.sqlite import SqliteConversations

        return SqliteConversations(Path(place.path), seals)
    return MemoryConversations()


def response_store(config: Config, watches: StoreWatches, seals: Seals) -> ResponseStore | None:
    """Returns the store of kept responses; None if nothing is kept."""
    if config.responses.store is None:
        return None
    address, keep = config.responses.store.reveal(), float(config.responses.keep)
    place = store_of(address, *CONVERSATIONS)
    if place.kind == "memory":
        from sluice.kept.memory import MemoryResponses

        return MemoryResponses(keep, time.time)
    from sluice.kept.sealed import SealedResponses, WatchedResponses

    store = SealedResponses(_stored_responses(config, address, keep), seals)
    return WatchedResponses(store, watches.begin("responses", place.kind))


def _stored_responses(config: Config, address: str, keep: float) -> ResponseStore:
    place = store_of(address, *CONVERSATIONS)
    if isinstance(place, Local):
        from sluice.kept.sqlite import SqliteResponses

        return SqliteResponses(Path(place.path), keep, time.time)
    if place.kind == "postgres":
        from sluice.kept.postgres import PostgresResponses

        return PostgresResponses(address, keep, time.time)
    from sluice.kept.redis import RedisResponses

    return RedisResponses(address, keep, time.time, prefix=config.limits.prefix)


def admin_store(config: Config) -> str:
    """Returns the address of the store of dynamic keys and usage: "memory", "sqlite:PATH" or a URL. It may
    hold a password.
    """
    return config.admin.store.reveal() if config.admin.store is not None else config.state.reveal()


def key_follower(config: Config, metrics: Metrics, watches: StoreWatches) -> Follower:
    """Returns the follower that keeps the table of dynamic keys equal to the store."""
    pepper = config.admin.pepper.reveal().encode() if config.admin.pepper is not None else b""
    table = KeyTable(pepper=pepper, configured=frozenset(key.id for key in config.keys), clock=time.time)
    errors = metrics.child("key_store_errors")
    watch = watches.begin("keys", store_of(admin_store(config)).kind)

    def failed(reason: Reason) -> None:
        errors.inc()
        watch.failed(reason)

    return Follower(key_store(config), table, failed=failed, succeeded=watch.succeeded)


def key_store(config: Config) -> KeyStore:
    kept = admin_store(config)
    place = store_of(kept)
    if place.kind == "memory":
        return MemoryKeys()
    if isinstance(place, Local):
        from sluice.keystore.sqlite import SqliteKeys

        return SqliteKeys(Path(place.path))
    if place.kind == "postgres":
        from sluice.keystore.postgres import PostgresKeys

        return PostgresKeys(kept)
    from sluice.keystore.redis import RedisKeys

    return RedisKeys(kept, prefix=config.limits.prefix)
