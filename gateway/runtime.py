"""Config -> Runtime: everything that calls need, built once. Owns all state; nothing is global."""

import asyncio
import hashlib
import hmac
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.addresses import client_addresses
from gateway.backends import Backend
from gateway.call import Call, Route, Target
from gateway.config import Alias, Config, Issuer, Key, Tier, targets_of
from gateway.config import Target as TargetConfig
from gateway.configfile import Loaded
from gateway.conversations import ConversationStore
from gateway.conversations.memory import MemoryConversations
from gateway.conversations.turnstile import Turnstile
from gateway.errors import GatewayError, Unauthorized, UpstreamError
from gateway.health import BreakerPolicy, Health, Load
from gateway.identity import Authenticator
from gateway.identity.principal import Principal
from gateway.limits import BucketStore
from gateway.limits.memory import MemoryStore
from gateway.logs import open_log, quiet_libraries
from gateway.metrics import AUTH_REASONS, CallSeries, Metrics, TargetSeries
from gateway.pipeline import Pipeline
from gateway.policies.requests import RequestLimits
from gateway.policies.turns import Turns
from gateway.probes import watch
from gateway.resume import Journals
from gateway.resume.memory import MemoryJournals
from gateway.routing import RetryPolicy
from gateway.strategies import Rank
from gateway.transport import Transport
from gateway.upstream import HttpTransport
from gateway.version import VERSION

FRONTENDS = ("widget", "openai")
OTHER = "other"
TICK = 0.05
"""Seconds between two looks at the deadlines of the calls in flight."""


class Runtime:
    """One configuration at work. Build it inside the event loop that will serve it."""

    def __init__(self, loaded: Loaded, log: Any = None) -> None:
        config = loaded.config
        self.config = config
        self.started = int(time.time())
        self.draining = False
        self._clock = time.monotonic
        self.metrics = Metrics(VERSION)
        self.log = log or open_log(config.log.level, dropped=self.metrics.child("log_errors").inc)
        quiet_libraries(self.log)
        self.auth_failures = self.metrics.children("auth_failures", (), AUTH_REASONS)
        self._backends = loaded.backends
        self._transports: dict[str, Transport] = {
            name: backend.transport() or _http(config, name, backend) for name, backend in loaded.backends.items()
        }
        self.routes = {name: self._route(name, alias, loaded.backends) for name, alias in config.aliases.items()}
        self.series = {
            (frontend, alias): CallSeries(self.metrics, frontend, alias)
            for frontend in FRONTENDS
            for alias in (*self.routes, OTHER)
        }
        self.authenticator = Authenticator(config, time.time)
        callers: tuple[Key | Issuer, ...] = (*config.keys, *config.jwt)
        self.origins = frozenset(origin for caller in callers for origin in caller.origins)
        self.addresses = client_addresses(config.server.trusted_proxies)
        self.store = _bucket_store(config, self.metrics, self.log)
        self.limits = RequestLimits(self.store, config.limits.address, self._decided)
        self.conversations = _conversation_store(config)
        self.journals = _journals(config, self._not_journaled)
        self.turnstile = Turnstile()
        turns = Turns(self.conversations, self.turnstile, time.time, self._not_kept)
        self.pipeline = Pipeline(
            [self.limits, turns],
            clock=self._clock,
            wall=time.time,
            metrics=self.metrics,
            write_idle=float(config.server.write_idle),
        )
        self._probing: list[asyncio.Task[None]] = []
        self._detached: set[asyncio.Task[None]] = set()
        self._admin_digest = config.admin.digest.partition(":")[2] if config.admin.digest else ""
        self._lag = self.metrics.child("event_loop_lag_seconds")
        self._oldest = self.metrics.child("oldest_stream_age_seconds")

    # --- building

    def _route(self, name: str, alias: Alias, backends: Mapping[str, Backend]) -> Route:
        ranks = []
        for tier in alias.tiers:
            targets = [self._target(target, backends[target.upstream]) for target in targets_of(tier)]
            ranks.append(Rank(targets, tier.strategy, tier.affinity) if isinstance(tier, Tier) else Rank(targets))
        shadow = None
        if alias.shadow is not None:
            spec = TargetConfig(upstream=alias.shadow.upstream, model=alias.shadow.model)
            shadow = self._target(spec, backends[spec.upstream])
        retry = RetryPolicy(
            same_target=alias.retry.same_target,
            backoff=float(alias.retry.backoff),
            retry_after_wait=float(alias.retry.retry_after_wait),
            after_content_policy=alias.fall_back_on_content_policy,
        )
        return Route(name, alias, ranks, retry, shadow, self.metrics.child("inter_token_seconds", name))

    def _target(self, spec: TargetConfig, backend: Backend) -> Target:
        upstream = self.config.upstreams[spec.upstream]
        series = TargetSeries(self.metrics, spec.upstream, spec.model)
        breaker = BreakerPolicy(
            failures=upstream.breaker.failures,
            error_rate=upstream.breaker.error_rate,
            open_for=float(upstream.breaker.open_for),
            open_max=float(upstream.breaker.open_max),
        )
        return Target(
            label=f"{spec.upstream}/{spec.model}",
            upstream=spec.upstream,
            model=spec.model,
            spec=spec,
            backend=backend,
            transport=self._transports[spec.upstream],
            timeouts=spec.timeouts or upstream.timeouts,
            health=Health(self._clock, breaker, changed=series.breaker.set),
            load=Load(),
            series=series,
        )

    # --- what happens

    def _decided(self, scope: str, resource: str, decision: str) -> None:
        self.metrics.child("ratelimit_decisions", scope, resource, decision).inc()

    def _not_kept(self, operation: str, error: Exception) -> None:
        self.metrics.child("conversation_store_errors", self.config.state.partition(":")[0], operation).inc()
        self.log.error("conversation_not_kept", operation=operation, error=type(error).__name__)

    def _not_journaled(self, error: Exception) -> None:
        self.metrics.child("conversation_store_errors", "redis", "journal").inc()
        self.log.error("streams_not_resumable", error=type(error).__name__)

    def broken(self, status: int) -> None:
        """A request that was not HTTP (400), or a fault of the server's (500)."""
        self.series["widget", OTHER].requests[f"{status // 100}xx"].inc()

    def crashed(self, crash: Exception, request_id: str) -> None:
        """A fault of ours: where it happened, without values (they may hold what a caller sent)."""
        frames = [f"{frame.filename}:{frame.lineno}:{frame.name}" for frame in traceback.extract_tb(crash.__traceback__)]
        self.log.error("crash", request_id=request_id, error=type(crash).__name__, at=frames[-6:])

    def outlives(self, call: Call, task: "asyncio.Task[None]", unread: Callable[[], float] | None = None) -> None:
        """A call that goes on without its client, for `finish_limit` at most; it is logged when it ends.

        `unread`: for how many seconds nobody has read what it says; it is these that are limited then.
        """
        call.detached = True
        self._detached.add(task)
        limit = float(call.route.config.finish_limit)
        loop = asyncio.get_running_loop()

        timer = loop.call_later(limit, lambda: look())

        def look() -> None:
            nonlocal timer
            left = limit - unread() if unread is not None else 0.0
            if left > 0:
                timer = loop.call_later(left, look)
            else:
                task.cancel()

        def ended(_: object) -> None:
            timer.cancel()
            self._detached.discard(task)
            error = None if task.cancelled() else task.exception()
            self.log.info("detached", request_id=call.id, error=type(error).__name__ if error else None, **_facts(call))

        task.add_done_callback(ended)

    def finished(
        self,
        exchange: Any,
        request_id: str,
        frontend: str,
        principal: Principal | None,
        call: Call | None,
        error: GatewayError | None,
    ) -> None:
        """Count and log one chat request, however it ended."""
        duration = self._clock() - exchange.received
        series = call.series if call is not None else self.series[frontend, OTHER]
        status = exchange.status
        if status:
            series.requests[f"{status // 100}xx"].inc()
        series.duration.observe(duration)
        error = error or (call.error if call is not None else None)
        self.log.info(
            "request",
            request_id=request_id,
            frontend=frontend,
            key=principal.key_id if principal is not None else None,
            status=status or None,
            duration=round(duration, 6),
            error=error.code if error is not None else None,
            reason=error.reason if isinstance(error, Unauthorized) else None,
            **(
                _facts(call)
                if call is not None and not call.detached
                else {"end": "refused" if error is not None else "client_gone"}
            ),
        )

    def resumed(self, exchange: Any, request_id: str, principal: Principal, stream: str | None) -> None:
        """Log one request that resumed a stream, or tried to; the call is counted where it was made."""
        duration = round(self._clock() - exchange.received, 6)
        status = exchange.status or None
        self.log.info("resume", request_id=request_id, key=principal.key_id, status=status, duration=duration, resumed=stream)

    def exposition(self) -> bytes:
        """/metrics, with the gauges that are only looked at."""
        now = self._clock()
        flows = self.pipeline.flows
        self._oldest.set(max((now - flow.call.received for flow in flows), default=0.0))
        for name, transport in self._transports.items():
            for state in ("open", "idle", "waiting"):
                self.metrics.child("upstream_connections", name, state).set(getattr(transport, state, 0))
        return self.metrics.exposition()

    def check_admin(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises Unauthorized unless `x-admin-api-key`, given once among these raw pairs, is the configured one."""
        given = [value.strip(b" \t") for name, value in headers if name.lower() == b"x-admin-api-key"]
        if len(given) > 1:
            raise Unauthorized("ambiguous")
        digest = hashlib.sha256(given[0] if given else b"").hexdigest()
        if not self._admin_digest or not hmac.compare_digest(digest, self._admin_digest):
            raise Unauthorized("unknown_key")

    # --- living

    async def tick(self, sweep: Callable[[float], None]) -> None:
        """Look at the deadlines of all calls, again and again; run until cancelled. `sweep` is called once a second."""
        due = self._clock() + TICK
        swept = due
        while True:
            await asyncio.sleep(max(0.0, due - self._clock()))
            now = self._clock()
            self._lag.observe(max(0.0, now - due))
            self.pipeline.tick(now)
            if now - swept >= 1:
                swept = now
                sweep(now)
            due = now + TICK

    def start_probes(self) -> None:
        """Begin with the active probes that the configuration asks for; they end with `close`."""
        for name, upstream in self.config.upstreams.items():
            base_url = getattr(self._backends[name], "base_url", "")
            if upstream.probe is not None and base_url:
                health = [t.health for route in self.routes.values() for t in route.targets if t.upstream == name]
                watching = watch(upstream.probe, self._transports[name], base_url, upstream.timeouts, health)
                self._probing.append(asyncio.create_task(watching))

    async def close(self) -> None:
        for task in (beside := [*self._detached, *self._probing]):
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self.pipeline.close()
        await self.journals.close()
        for transport in self._transports.values():
            await transport.close()
        await self.store.close()
        await self.conversations.close()


def _facts(call: Call) -> dict[str, Any]:
    usage = call.usage
    answered = call.answered or (call.attempts[-1] if call.attempts else None)
    return {
        "alias": call.route.name,
        "target": answered.target.label if answered is not None else None,
        "attempts": [f"{attempt.target.label} {attempt.outcome}" for attempt in call.attempts],
        "stream": call.chat.stream,
        "end": call.end,
        "ttft": round(call.ttft, 6) if call.ttft is not None else None,
        "tokens_in": usage.input if usage is not None else None,
        "tokens_out": usage.output if usage is not None else None,
        "upstream_status": (call.error.status or None) if isinstance(call.error, UpstreamError) else None,
    }


def _http(config: Config, name: str, backend: Backend) -> Transport:
    upstream = config.upstreams[name]
    base_url: str = getattr(backend, "base_url", "")
    return HttpTransport(base_url, credentials=backend.credentials(), max_connections=upstream.max_connections)


def _bucket_store(config: Config, metrics: Metrics, log: Any) -> BucketStore:
    url = config.limits.store.reveal()
    if url == "memory":
        return MemoryStore()
    from gateway.limits.guarded import Guarded
    from gateway.limits.redis import RedisStore

    errors = metrics.child("ratelimit_store_errors", "redis")
    seconds = metrics.child("ratelimit_store_seconds", "redis")
    return Guarded(
        RedisStore(url, prefix=config.limits.prefix),
        MemoryStore(),
        config.limits.when_down,
        replicas=config.limits.replicas,
        failed=lambda reason: errors.inc(),
        decided=lambda decider, took: seconds.observe(took),
        switched=lambda down: log.warning("limits_store", down=down, mode=config.limits.when_down),
    )


def _journals(config: Config, failed: Callable[[Exception], None]) -> Journals:
    url = config.resume.reveal()
    if url == "memory":
        return MemoryJournals()
    from gateway.resume.redis import RedisJournals

    return RedisJournals(url, prefix=config.limits.prefix, failed=failed)


def _conversation_store(config: Config) -> ConversationStore:
    kind, _, path = config.state.partition(":")
    if kind == "memory":
        return MemoryConversations()
    from gateway.conversations.sqlite import SqliteConversations

    return SqliteConversations(Path(path))
