"""What a configuration says about transports and stores, built. What is not used is not imported."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sluice.backends.protocol import Backend
from sluice.backends.transport import Headers
from sluice.config.types import Config, Upstream
from sluice.conversations import ConversationStore
from sluice.conversations.memory import MemoryConversations
from sluice.keystore import KeyStore
from sluice.keystore.memory import MemoryKeys
from sluice.limits import BucketStore
from sluice.limits.memory import MemoryStore
from sluice.resume import Journals
from sluice.resume.memory import MemoryJournals
from sluice.storage import Reason
from sluice.storage.watch import StoreWatch
from sluice.telemetry.metrics import Metrics
from sluice.upstream import HttpTransport, IdleConnections
from sluice.usage import UsageStore
from sluice.usage.memory import MemoryUsage


def http_transport(
    upstream: Upstream, backend: Backend, idle: IdleConnections, credentials: Headers, signed: Iterable[str] = ()
) -> HttpTransport:
    """Connections to an upstream. `idle` bounds those that are idle, with those of other upstreams. `credentials` and `signed`
    as HttpTransport has them."""
    return HttpTransport(
        getattr(backend, "base_url", ""),
        credentials=credentials,
        signed=signed,
        max_connections=upstream.max_connections,
        proxy=upstream.proxy.reveal() if upstream.proxy is not None else None,
        idle=idle,
    )


def kind_of(text: str) -> str:
    """What kind of store a configured text names: "memory", "shared", "sqlite" or "redis"."""
    kind = text.partition(":")[0]
    return kind if kind in ("memory", "shared", "sqlite") else "redis"


def bucket_store(config: Config, metrics: Metrics, log: Any, watch: StoreWatch) -> BucketStore:
    """`watch` is told what becomes of the store's calls."""
    url = config.limits.store.reveal()
    if url == "memory":
        return MemoryStore()
    from sluice.limits.guarded import TIMEOUT, Decider, Guarded

    kind, path = kind_of(url), url.partition(":")[2]
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


def journals(config: Config, failed: Callable[[Reason], object], succeeded: Callable[[], object]) -> Journals:
    """`failed` and `succeeded` as RedisJournals has them."""
    url = config.resume.reveal()
    if url == "memory":
        return MemoryJournals()
    from sluice.resume.redis import RedisJournals

    return RedisJournals(url, prefix=config.limits.prefix, failed=failed, succeeded=succeeded)


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
