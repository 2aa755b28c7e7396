"""Builds the stores of a configuration, with what watches over them (`sluice.runtime.engines` has a builder
for each)."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sluice.config.types import Config
from sluice.conversations import Retention, SharedConversations
from sluice.conversations.measured import Measured, MeasuredFile, MeasuredShared
from sluice.kept import ResponseStore
from sluice.keystore import KeyStore
from sluice.keystore.follower import Follower
from sluice.keystore.table import KeyTable
from sluice.limits import BucketStore
from sluice.limits.memory import MemoryStore
from sluice.resume import Journals
from sluice.runtime.engines import configured
from sluice.storage import REASONS, Reason, reason_of_file
from sluice.storage.address import store_of
from sluice.storage.again import STORE_SECONDS
from sluice.storage.sealing import Seals
from sluice.storage.watch import StoreWatch
from sluice.telemetry.metrics import Metrics
from sluice.usage import SUBJECT, Row, UsageFailed, UsageStore
from sluice.usage.ledger import UsageLedger

if TYPE_CHECKING:
    from sluice.conversations.turn_locks import TurnLocks


class StoreWatches(dict[str, StoreWatch]):
    """Makes the watches of stores. It is a mapping from the store's name to the function that gets the
    results of its calls."""

    def __init__(self, metrics: Metrics, log: Any, clock: Callable[[], float]) -> None:
        super().__init__()
        self._metrics = metrics
        self._log = log
        self._clock = clock

    def begin(self, name: str, kind: str) -> StoreWatch:
        """Starts the watch of a store of this kind."""

        def count(reason: Reason) -> None:
            self._metrics.child("store_errors", reason, name).inc()

        if kind != "memory":
            for reason in REASONS:
                self._metrics.zero("store_errors", reason, name)
        watch = self[name] = StoreWatch(name, kind, count, self._log.warning, clock=self._clock)
        return watch


def bucket_store(config: Config, metrics: Metrics, log: Any, watches: StoreWatches) -> BucketStore:
    at = configured(config.limits.store.reveal(), config)
    kind = at.kind
    watch = watches.begin("limits", kind)
    if kind == "memory":
        return MemoryStore()
    from sluice.limits.guarded import TIMEOUT, Decider, Guarded

    errors = metrics.zero("ratelimit_store_errors", kind)
    seconds = metrics.child("ratelimit_store_seconds", kind)
    store, timeout = at.engine.buckets(at, metrics.zero("ratelimit_forgotten", kind).inc)

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
        timeout=timeout if timeout is not None else TIMEOUT,
        failed=failed,
        decided=decided,
        switched=lambda down: log.warning("limits_store", down=down, mode=config.limits.when_down),
    )


def journals(config: Config, not_journaled: Callable[[], object], watches: StoreWatches) -> Journals:
    """Opens the journals; `not_journaled` is called for each failure of the store."""
    at = configured(config.resume.reveal(), config)
    watch = watches.begin("resume", at.kind)

    def failed(reason: Reason) -> None:
        not_journaled()
        watch.failed(reason)

    return at.engine.journals(at, failed, watch.succeeded)


def usage_ledger(
    config: Config, metrics: Metrics, log: Any, watches: StoreWatches, steady: Callable[[], float]
) -> UsageLedger:
    """Returns the ledger that counts what calls use, for the store of usage. `steady`: see `UsageLedger`."""
    errors, aside = metrics.child("usage_store_errors"), metrics.child("usage_put_aside")
    watch = watches.begin("usage", configured(admin_store(config), config).kind)

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
        steady=steady,
        failed=failed,
        succeeded=watch.succeeded,
        folded=folded,
        put_aside=put_aside,
        hourly_days=config.usage.hourly_days,
    )


def usage_store(config: Config) -> UsageStore:
    at = configured(admin_store(config), config)
    return at.engine.usage(at)


def conversation_store(config: Config, metrics: Metrics, watches: StoreWatches, seals: Seals) -> Measured:
    at = configured(config.state.reveal(), config)
    store = at.engine.conversations(at, retention(config), seals)
    watch = watches.begin("conversations", at.kind)
    if at.kind == "memory":
        return Measured(store, metrics, at.kind, time.monotonic)
    if not at.shared:
        return MeasuredFile(store, metrics, at.kind, time.monotonic, watch=watch, reason_of=reason_of_file)
    return MeasuredShared(cast(SharedConversations, store), metrics, at.kind, time.monotonic, watch=watch)


def patience(text: str) -> float:
    """Returns the seconds for which the end of an answer waits until it is kept in the store at this address: as long
    as one call of the store may take, which whoever has set a `timeout` there has decided."""
    return max(STORE_SECONDS, getattr(store_of(text), "timeout", None) or 0.0)


def turn_locks(config: Config) -> "TurnLocks | None":
    """Returns what keeps a session's turns apart over the processes that share a file of conversations, beside that
    file. Raises OSError."""
    at = configured(config.state.reveal(), config)
    if at.kind != "sqlite":
        return None
    from sluice.conversations.turn_locks import SUPPORTED, TurnLocks

    return TurnLocks(Path(f"{at.path}-turns")) if SUPPORTED else None


def use_keys(seals: Seals, config: Config) -> None:
    """Encrypts new entries, and decrypts old ones, as configured from now on."""
    keys = config.encryption.keys
    seals.use(keys.keys() if keys is not None else (), unsealed=config.encryption.plaintext == "read")


def retention(config: Config) -> Retention:
    """Returns the configured `retention` in the form that stores take."""
    kept = config.retention
    return Retention(float(kept.age) if kept.age is not None else None, kept.messages, kept.conversations)


def response_store(config: Config, watches: StoreWatches, seals: Seals) -> ResponseStore | None:
    """Returns the store of kept responses; None if nothing is kept."""
    if config.responses.store is None:
        return None
    at, keep = configured(config.responses.store.reveal(), config), float(config.responses.keep)
    store = at.engine.responses(at, keep)
    watch = watches.begin("responses", at.kind)
    if at.kind == "memory":
        return store
    from sluice.kept.sealed import SealedResponses, WatchedResponses

    return WatchedResponses(SealedResponses(store, seals), watch)


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
    watch = watches.begin("keys", configured(admin_store(config), config).kind)

    def failed(reason: Reason) -> None:
        errors.inc()
        watch.failed(reason)

    return Follower(key_store(config), table, failed=failed, succeeded=watch.succeeded)


def key_store(config: Config) -> KeyStore:
    at = configured(admin_store(config), config)
    return at.engine.keys(at)
