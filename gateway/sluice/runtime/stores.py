"""What a configuration says about stores, built. What is not used is not imported."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from sluice.config.types import Config
from sluice.conversations import ConversationStore
from sluice.conversations.memory import MemoryConversations
from sluice.keystore import KeyStore
from sluice.keystore.follower import Follower
from sluice.keystore.memory import MemoryKeys
from sluice.keystore.table import KeyTable
from sluice.limits import BucketStore
from sluice.limits.memory import MemoryStore
from sluice.resume import Journals
from sluice.resume.memory import MemoryJournals
from sluice.storage import Reason
from sluice.storage.watch import StoreWatch
from sluice.telemetry.metrics import Metrics
from sluice.usage import Row, UsageFailed, UsageStore
from sluice.usage.ledger import Ledger
from sluice.usage.memory import MemoryUsage


class StoreWatches(dict[str, StoreWatch]):
    """By the store's name: who is told what becomes of its calls."""

    def __init__(self, metrics: Metrics, log: Any, clock: Callable[[], float]) -> None:
        super().__init__()
        self._metrics = metrics
        self._log = log
        self._clock = clock

    def begin(self, name: str, kind: str) -> StoreWatch:
        """The watch of a store of this kind."""

        def count(reason: Reason) -> None:
            self._metrics.child("store_errors", reason, name).inc()

        watch = self[name] = StoreWatch(name, kind, count, self._log.warning, clock=self._clock)
        return watch


def kind_of(text: str) -> str:
    """What kind of store a configured text names: "memory", "shared", "sqlite" or "redis"."""
    kind = text.partition(":")[0]
    return kind if kind in ("memory", "shared", "sqlite") else "redis"


def bucket_store(config: Config, metrics: Metrics, log: Any, watches: StoreWatches) -> BucketStore:
    url = config.limits.store.reveal()
    kind, path = kind_of(url), url.partition(":")[2]
    watch = watches.begin("limits", kind)
    if url == "memory":
        return MemoryStore()
    from sluice.limits.guarded import TIMEOUT, Decider, Guarded

    errors = metrics.child("ratelimit_store_errors", kind)
    seconds = metrics.child("ratelimit_store_seconds", kind)
    store: BucketStore
    timeout = TIMEOUT
    if kind == "shared":
        from sluice.limits.shared import SharedStore

        store = SharedStore(path, evicted=metrics.child("ratelimit_forgotten", kind).inc)
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
    """`not_journaled` is told of each failure of the store."""
    url = config.resume.reveal()
    watch = watches.begin("resume", kind_of(url))
    if url == "memory":
        return MemoryJournals()
    from sluice.resume.redis import RedisJournals

    def failed(reason: Reason) -> None:
        not_journaled()
        watch.failed(reason)

    return RedisJournals(url, prefix=config.limits.prefix, failed=failed, succeeded=watch.succeeded)


def usage_ledger(config: Config, metrics: Metrics, log: Any, watches: StoreWatches) -> Ledger:
    """Counts what calls use, for the store of usage."""
    errors, aside = metrics.child("usage_store_errors"), metrics.child("usage_put_aside")
    watch = watches.begin("usage", kind_of(admin_store(config)))

    def failed(error: UsageFailed) -> None:
        errors.inc()
        watch.failed(error.reason)

    def put_aside(row: Row) -> None:
        aside.inc()
        subject, figures = row
        names = {name: value.encode("utf-8", "replace").decode() for name, value in subject._asdict().items()}
        values = {name: str(value) for name, value in msgspec.structs.asdict(figures).items() if value}
        log.error("usage_put_aside", **names, figures=values)

    folded = metrics.child("usage_folded").inc
    store = usage_store(config)
    return Ledger(store, wall=time.time, failed=failed, succeeded=watch.succeeded, folded=folded, put_aside=put_aside)


def usage_store(config: Config) -> UsageStore:
    text = admin_store(config)
    kind, _, path = text.partition(":")
    if kind == "memory":
        return MemoryUsage()
    if kind == "sqlite":
        from sluice.usage.sqlite import SqliteUsage

        return SqliteUsage(Path(path))
    from sluice.usage.redis import RedisUsage

    return RedisUsage(text, prefix=config.limits.prefix)


def conversation_store(config: Config) -> ConversationStore:
    kind, _, path = config.state.partition(":")
    if kind == "memory":
        return MemoryConversations()
    from sluice.conversations.sqlite import SqliteConversations

    return SqliteConversations(Path(path))


def admin_store(config: Config) -> str:
    """Where dynamic keys and usage are kept: "memory", "sqlite:PATH" or a URL of Redis. It may hold a password."""
    return config.admin.store.reveal() if config.admin.store is not None else config.state


def key_follower(config: Config, metrics: Metrics, watches: StoreWatches) -> Follower:
    """Keeps the table of dynamic keys what the store of keys is."""
    pepper = config.admin.pepper.reveal().encode() if config.admin.pepper is not None else b""
    table = KeyTable(pepper=pepper, configured=frozenset(key.id for key in config.keys), clock=time.time)
    errors = metrics.child("key_store_errors")
    watch = watches.begin("keys", kind_of(admin_store(config)))

    def failed(reason: Reason) -> None:
        errors.inc()
        watch.failed(reason)

    return Follower(key_store(config), table, failed=failed, succeeded=watch.succeeded)


def key_store(config: Config) -> KeyStore:
    kept = admin_store(config)
    kind, _, path = kept.partition(":")
    if kind == "memory":
        return MemoryKeys()
    if kind == "sqlite":
        from sluice.keystore.sqlite import SqliteKeys

        return SqliteKeys(Path(path))
    from sluice.keystore.redis import RedisKeys

    return RedisKeys(kept, prefix=config.limits.prefix)
