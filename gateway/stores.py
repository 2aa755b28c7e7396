"""What a configuration says about transports and stores, built. What is not used is not imported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.backends import Backend
from gateway.config import Config
from gateway.conversations import ConversationStore
from gateway.conversations.memory import MemoryConversations
from gateway.keystore import KeyStore
from gateway.keystore.memory import MemoryKeys
from gateway.limits import BucketStore
from gateway.limits.memory import MemoryStore
from gateway.metrics import Metrics
from gateway.resume import Journals
from gateway.resume.memory import MemoryJournals
from gateway.storage import Reason
from gateway.storage.watch import StoreWatch
from gateway.transport import Transport
from gateway.upstream import HttpTransport, IdleConnections
from gateway.usage import UsageStore
from gateway.usage.memory import MemoryUsage


def http_transport(config: Config, name: str, backend: Backend, idle: IdleConnections) -> Transport:
    """Connections to the upstream `name`. `idle` bounds those that are idle, with those of other upstreams."""
    upstream = config.upstreams[name]
    base_url: str = getattr(backend, "base_url", "")
    return HttpTransport(
        base_url,
        credentials=backend.credentials(),
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
    from gateway.limits.guarded import TIMEOUT, Decider, Guarded

    kind, path = kind_of(url), url.partition(":")[2]
    errors = metrics.child("ratelimit_store_errors", kind)
    seconds = metrics.child("ratelimit_store_seconds", kind)
    store: BucketStore
    timeout = TIMEOUT
    if kind == "shared":
        from gateway.limits.shared import SharedStore

        store = SharedStore(path, evicted=metrics.child("ratelimit_forgotten", kind).inc)
    else:
        from gateway.limits.redis import RedisStore

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
    from gateway.resume.redis import RedisJournals

    return RedisJournals(url, prefix=config.limits.prefix, failed=failed, succeeded=succeeded)


def usage_store(config: Config) -> UsageStore:
    text = admin_store(config)
    kind, _, path = text.partition(":")
    if kind == "memory":
        return MemoryUsage()
    if kind == "sqlite":
        from gateway.usage.sqlite import SqliteUsage

        return SqliteUsage(Path(path))
    from gateway.usage.redis import RedisUsage

    return RedisUsage(text, prefix=config.limits.prefix)


def conversation_store(config: Config) -> ConversationStore:
    kind, _, path = config.state.partition(":")
    if kind == "memory":
        return MemoryConversations()
    from gateway.conversations.sqlite import SqliteConversations

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
        from gateway.keystore.sqlite import SqliteKeys

        return SqliteKeys(Path(path))
    from gateway.keystore.redis import RedisKeys

    return RedisKeys(kept, prefix=config.limits.prefix)
