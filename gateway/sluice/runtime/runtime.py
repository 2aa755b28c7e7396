"""Config -> Runtime: everything that calls need, built once. Owns all state; nothing is global."""

import asyncio
import contextlib
import hashlib
import hmac
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from sluice.aio.deferred import Later
from sluice.backends.credentials import ConfiguredCredential
from sluice.backends.protocol import AnswersWhole, Backend, with_rules
from sluice.backends.transport import Transport
from sluice.config.loader import Loaded
from sluice.config.rule_file import bundled_rules
from sluice.config.types import Alias, Config, Issuer, Key, Tier, targets_of
from sluice.config.types import Target as TargetConfig
from sluice.conversations.measured import Measured
from sluice.conversations.turnstile import Turnstile
from sluice.errors import Unauthorized, Unavailable
from sluice.frontends import credential_names
from sluice.identity import Authenticator
from sluice.identity.addresses import client_addresses
from sluice.keystore.follower import Follower
from sluice.keystore.table import KeyTable
from sluice.limits import Remote
from sluice.model.rules import NO_RULES, ModelRules, Overrides, rules_of
from sluice.policies.limits import Limiter
from sluice.policies.priced import Priced
from sluice.policies.turns import Turns
from sluice.proxy.call import Call
from sluice.proxy.fitting import Fitting
from sluice.proxy.pipeline import Pipeline
from sluice.proxy.target import Route, Target
from sluice.routing.failover import RetryPolicy
from sluice.routing.health import BreakerPolicy, Health, Load
from sluice.routing.probes import watch
from sluice.routing.strategies import RoutedTier
from sluice.runtime.credentials import Accounts
from sluice.runtime.descriptors import limit_of_files, places
from sluice.runtime.stores import (
    admin_store,
    bucket_store,
    conversation_store,
    http_transport,
    journals,
    key_store,
    kind_of,
    usage_store,
)
from sluice.storage import Reason
from sluice.storage.watch import StoreWatch
from sluice.telemetry.logs import Lines, open_lines, open_log, standard_lines
from sluice.telemetry.metrics import Metrics, TargetSeries, zero_of_target
from sluice.telemetry.notices import Notices, TargetNotices
from sluice.telemetry.records import Records
from sluice.upstream import IdleConnections
from sluice.usage import Row, UsageFailed
from sluice.usage.ledger import Ledger
from sluice.usage.opening import reopen
from sluice.version import VERSION
from sluice.wire.baseurl import endpoint
from sluice.wire.forwarding import shown_target

T = TypeVar("T")

TICK = 0.05
"""Seconds between two looks at the deadlines of the calls in flight."""


class Runtime:
    """One configuration at work. Build it inside the event loop that will serve it."""

    def __init__(self, loaded: Loaded, lines: Lines | None = None) -> None:
        config = loaded.config
        self.config = config
        self.started = int(time.time())
        self.draining = False
        self._clock = time.monotonic
        self.metrics = Metrics(VERSION)
        dropped = self.metrics.child("log_errors").inc
        self.lines = lines or standard_lines(config.log, dropped, shared=config.server.workers > 1)
        self.log = open_log(self.lines, config.log.level)
        self.notices = Notices(self.log, self._clock)
        self.frontends = loaded.frontends
        self._backends = loaded.backends
        self._stages = loaded.stages
        self._prices = loaded.prices
        self.places = places(limit_of_files(), config.server.max_connections)
        idle = IdleConnections(self.places.idle)
        self._transports: dict[str, Transport] = {
            name: backend.transport() or self._http_transport(name, backend, loaded.credentials.get(name, ()), idle)
            for name, backend in loaded.backends.items()
        }
        self._states: dict[tuple[str, str], tuple[Health, Load]] = {}
        named = credential_names(self.frontends.values())
        forwarded = (name.lower() for upstream in config.upstreams.values() for name in upstream.forward)
        self.forwardable = frozenset(forwarded).difference(named)
        self._siblings: dict[tuple[str, str], dict[str, list[Health]]] = {}
        self.routes = {name: self._route(name, alias, loaded.backends) for name, alias in config.aliases.items()}
        labelled = [key.id for key in config.keys] if config.metrics.key_label else []
        kind = config.state.partition(":")[0]
        say = open_lines(self.lines, config.log.level)
        self.watches: dict[str, StoreWatch] = {}
        self.conversations = Measured(conversation_store(config), self.metrics, kind, self._clock)
        self.usage = self._ledger()
        self.later = Later(lambda crash: self.records.crashed(crash, ""))
        self.records = records = Records(
            self.metrics,
            self.log,
            say,
            self._clock,
            aliases=self.routes,
            conversations=kind,
            keys=labelled,
            frontends=[*self.frontends],
            used=self.usage.add,
            later=self.later,
        )
        self.keys = self._keys(config)
        self.authenticator = Authenticator(config, time.time, records.keys_fetched, self.keys.table.keyring, named)
        callers: tuple[Key | Issuer, ...] = (*config.keys, *config.jwt)
        configured = dict.fromkeys((origin for caller in callers for origin in caller.origins), 1)
        self.origins = ChainMap(configured, self.keys.table.origins)
        self.addresses = client_addresses(config.server.trusted_proxies, records.address_unreadable, records.address_unheeded)
        watch = self._watch("limits", kind_of(config.limits.store.reveal()))
        self.store = bucket_store(config, self.metrics, self.log, watch)
        self.limits = Limiter(
            self.store,
            config.limits,
            config.tenants,
            config.upstreams,
            count=records.decisions,
            soft=lambda scope, period: self.metrics.child("budget_soft", scope, period),
            clock=self._clock,
            wall=time.time,
        )
        resume = self._watch("resume", kind_of(config.resume.reveal()))

        def not_journaled(reason: Reason) -> None:
            records.not_journaled()
            resume.failed(reason)

        self.journals = journals(config, not_journaled, resume.succeeded)
        self.turns = turns = Turns(self.conversations, Turnstile(), time.time, records.not_kept)
        priced = [Priced(time.time)] if config.prices.unknown == "refuse" else []
        self.pipeline = Pipeline(
            [*priced, turns, self.limits],  # who waits for a turn holds no place and is charged nothing
            room=self.limits.room,
            clock=self._clock,
            wall=time.time,
            metrics=self.metrics,
            write_idle=float(config.server.write_idle),
            crashed=records.crashed,
            prices=config.prices,
            later=self.later,
            beside=self.beside,
            interceptors=loaded.interceptors,
        )
        self._beside = ThreadPoolExecutor(1, "beside")
        self._probing: list[asyncio.Task[None]] = []
        self._counting: asyncio.Task[None] | None = None
        self._detached: set[asyncio.Task[None]] = set()
        self._admin_digest = config.admin.digest.partition(":")[2] if config.admin.digest else ""
        self._lag = self.metrics.child("event_loop_lag_seconds")
        self._computed_gauges()

    # --- building

    def _http_transport(
        self, name: str, backend: Backend, credentials: Sequence[ConfiguredCredential], idle: IdleConnections
    ) -> Transport:
        build = partial(http_transport, self.config.upstreams[name], backend, idle)
        return Accounts(self.metrics, self.notices, self._clock).transport(name, backend, credentials, build)

    def _keys(self, config: Config) -> Follower:
        pepper = config.admin.pepper.reveal().encode() if config.admin.pepper is not None else b""
        table = KeyTable(pepper=pepper, configured=frozenset(key.id for key in config.keys), clock=time.time)
        errors = self.metrics.child("key_store_errors")
        watch = self._watch("keys", kind_of(admin_store(config)))

        def failed(reason: Reason) -> None:
            errors.inc()
            watch.failed(reason)

        return Follower(key_store(config), table, failed=failed, succeeded=watch.succeeded)

    def _watch(self, name: str, kind: str) -> StoreWatch:
        """Who is told what becomes of the calls of this store."""

        def count(reason: Reason) -> None:
            self.metrics.child("store_errors", reason, name).inc()

        watch = self.watches[name] = StoreWatch(name, kind, count, self.log.warning, clock=self._clock)
        return watch

    def _route(self, name: str, alias: Alias, backends: Mapping[str, Backend]) -> Route:
        tiers: list[RoutedTier] = []
        stages = self._stages.get(name, ())
        for tier in alias.tiers:
            by_ttft = alias.hedge is not None or (isinstance(tier, Tier) and tier.strategy == "lowest_ttft")
            targets = [
                msgspec.structs.replace(
                    self._target(target, backends[target.upstream], alias, by_ttft).with_stages(stages),
                    answered=self.metrics.child("answered", name, target.upstream, target.model, str(len(tiers) + 1)),
                )
                for target in targets_of(tier)
            ]
            tiers.append(RoutedTier(targets, tier.strategy, tier.affinity) if isinstance(tier, Tier) else RoutedTier(targets))
        shadow = None
        if alias.shadow is not None:
            spec = TargetConfig(upstream=alias.shadow.upstream, model=alias.shadow.model)
            shadow = self._target(spec, backends[spec.upstream], alias)
            if self.config.prices.unknown == "refuse" and not shadow.prices:
                shadow = None
        retry = RetryPolicy(
            same_target=alias.retry.same_target,
            backoff=float(alias.retry.backoff),
            retry_after_wait=float(alias.retry.retry_after_wait),
            after_content_policy=alias.fall_back_on_content_policy,
        )
        inter_token = self.metrics.child("inter_token_seconds", name)
        healths = [target.health for routed in tiers for target in routed.targets]
        for routed in tiers:
            for target in routed.targets:
                self._siblings[target.spec.upstream, target.spec.model][name] = healths
        if alias.queue is not None:
            self.metrics.zero("requests_waiting", name)

        def waiting(change: int) -> None:
            self.metrics.child("requests_waiting", name).inc(change)

        return Route(name, alias, tiers, retry, shadow, inter_token, waiting, plain=_takes_every_call(tiers))

    def _target(self, spec: TargetConfig, backend: Backend, alias: Alias, by_ttft: bool = False) -> Target:
        """`by_ttft`: its time to the first token decides about routes, so whole answers have to be streamed to us, too."""
        upstream = self.config.upstreams[spec.upstream]
        health, load = self._state(spec)
        rules = self._rules(spec, backend)
        backend = with_rules(backend, rules)
        shown = shown_target(f"{spec.upstream}/{spec.model}") if alias.report_model == "target" else ""
        return Target(
            label=f"{spec.upstream}/{spec.model}",
            upstream=spec.upstream,
            model=spec.model,
            spec=spec,
            backend=backend,
            transport=self._transports[spec.upstream],
            timeouts=spec.timeouts or upstream.timeouts,
            health=health,
            load=load,
            series=TargetSeries(self.metrics, spec.upstream, spec.model),
            prices=self._prices.prices_of(spec.upstream, spec.model),
            max_before_content=int(upstream.max_before_content),
            max_answer=int(upstream.max_answer),
            forward={header.lower(): allowed for header, allowed in upstream.forward.items()},
            shown=shown,
            attribution=(("x-sluice-attempts", "1"), *((("x-sluice-target", shown),) if shown else ())),
            passes_on=backend.dialect or None,
            fit=self._fitting(rules, f"{spec.upstream}/{spec.model}", spec) if rules is not NO_RULES else None,
            whole=backend if isinstance(backend, AnswersWhole) and not (backend.always_stream or by_ttft) else None,
        )

    def _rules(self, spec: TargetConfig, backend: Backend) -> ModelRules:
        upstream = self.config.upstreams[spec.upstream]
        host = urlsplit(getattr(backend, "base_url", "")).hostname or ""
        options = [Overrides(of.drop, of.rename, of.default, of.force, of.roles) for of in (upstream, spec)]
        return rules_of(bundled_rules(), options, upstream.backend, host, spec.model, vendor=upstream.vendor)

    def _fitting(self, rules: ModelRules, label: str, spec: TargetConfig) -> Fitting:
        def dropped(name: str) -> None:
            self.metrics.child("dropped_fields", spec.upstream, spec.model, name).inc()
            self.log.debug("dropped_field", target=label, field=name)

        return Fitting(rules, dropped)

    def _state(self, spec: TargetConfig) -> tuple[Health, Load]:
        """A target's health and load: what one alias learns of a model of an upstream, all aliases know."""
        known = self._states.get((spec.upstream, spec.model))
        if known is not None:
            return known
        upstream = self.config.upstreams[spec.upstream]
        breaker = BreakerPolicy(
            failures=upstream.breaker.failures,
            error_rate=upstream.breaker.error_rate,
            open_for=float(upstream.breaker.open_for),
            open_max=float(upstream.breaker.open_max),
        )
        siblings = self._siblings[spec.upstream, spec.model] = {}
        health = Health(self._clock, breaker, TargetNotices(self.notices, spec.upstream, spec.model, siblings))
        self.metrics.computed("breaker_state", lambda: health.state, spec.upstream, spec.model).kept = True
        zero_of_target(self.metrics, spec.upstream, spec.model)
        state = self._states[spec.upstream, spec.model] = health, Load()
        return state

    def _computed_gauges(self) -> None:
        """Those that are only looked at when somebody scrapes."""
        computed = self.metrics.computed
        computed("dynamic_keys", lambda: len(self.keys.table)).kept = True
        computed("oldest_stream_age_seconds", self._oldest).kept = True
        for name, transport in self._transports.items():
            for state in ("open", "idle", "waiting"):
                computed("upstream_connections", partial(getattr, transport, state, 0), name, state)

    def _oldest(self) -> float:
        now = self._clock()
        return max((now - run.call.received for run in self.pipeline.runs), default=0.0)

    def _ledger(self) -> Ledger:
        store = usage_store(self.config)
        errors, aside = self.metrics.child("usage_store_errors"), self.metrics.child("usage_put_aside")
        watch = self._watch("usage", kind_of(admin_store(self.config)))

        def failed(error: UsageFailed) -> None:
            errors.inc()
            watch.failed(error.reason)

        def put_aside(row: Row) -> None:
            aside.inc()
            subject, figures = row
            names = {name: value.encode("utf-8", "replace").decode() for name, value in subject._asdict().items()}
            values = {name: str(value) for name, value in msgspec.structs.asdict(figures).items() if value}
            self.log.error("usage_put_aside", **names, figures=values)

        folded = self.metrics.child("usage_folded").inc
        return Ledger(store, wall=time.time, failed=failed, succeeded=watch.succeeded, folded=folded, put_aside=put_aside)

    # --- what happens

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
            self.records.detached(call, None if task.cancelled() else task.exception())

        task.add_done_callback(ended)

    def scrape(self) -> Iterator[bytes]:
        """/metrics, in pieces that each hold the event loop up for some two milliseconds."""
        self.later.flush()
        return self.metrics.slices(self._clock)

    def exposition(self) -> bytes:
        """All of it at once."""
        return b"".join(self.scrape())

    def check_admin(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises Unauthorized unless `x-admin-api-key`, given once among these raw pairs, is the configured one."""
        given = [value.strip(b" \t") for name, value in headers if name.lower() == b"x-admin-api-key"]
        if len(given) > 1:
            raise Unauthorized("ambiguous")
        digest = hashlib.sha256(given[0] if given else b"").hexdigest()
        if not self._admin_digest or not hmac.compare_digest(digest, self._admin_digest):
            raise Unauthorized("unknown_key")

    # --- living

    async def open(self) -> None:
        """To be done before the first call: keys and what was spent of budgets are known; from now on usage is stored."""
        await asyncio.gather(self.keys.start(), self._greet())
        await reopen(self.store, self.usage.store, self.config, time.time(), self.keys.table.budgets)
        self._counting = asyncio.create_task(self.usage.run())

    async def _greet(self) -> None:
        """Ask stores once, so that a wrong password and the like is said at the start and not by the first caller."""
        if isinstance(self.store, Remote):
            await self.store.greet()
        if any(alias.resumable for alias in self.config.aliases.values()):
            with contextlib.suppress(Unavailable):
                await self.journals.find("")

    def flush(self) -> None:
        """Count what has ended, and write its lines."""
        self.later.flush()
        self.lines.flush()

    async def beside(self, work: Callable[..., T], *args: object) -> T:
        """The result of `work(*args)`, done in a thread while the event loop goes on: pure Python that would take long.

        One at a time: each piece of such work that is done in C keeps the interpreter from the loop, and several would add up.
        """
        return await asyncio.get_running_loop().run_in_executor(self._beside, work, *args)

    async def tick(self, sweep: Callable[[float], None]) -> None:
        """Look at the deadlines of all calls, again and again; run until cancelled. `sweep` is called once a second."""
        due = self._clock() + TICK
        swept = due
        while True:
            await asyncio.sleep(max(0.0, due - self._clock()))
            now = self._clock()
            self._lag.observe(max(0.0, now - due))
            self.pipeline.tick(now)
            self.flush()
            if now - swept >= 1:
                swept = now
                sweep(now)
                self.notices.tick(now)
            due = now + TICK

    def start_probes(self) -> None:
        """Begin with the active probes that the configuration asks for; they end with `close`."""
        for name, upstream in self.config.upstreams.items():
            base_url = getattr(self._backends[name], "base_url", "")
            if upstream.probe is not None and base_url:
                health = [health for (of, _), (health, _) in self._states.items() if of == name]
                url = endpoint(base_url, upstream.probe.path, getattr(self._backends[name], "endings", ()))
                watching = watch(upstream.probe, self._transports[name], url, upstream.timeouts, health)
                self._probing.append(asyncio.create_task(watching))

    async def close(self) -> None:
        for task in (beside := [*self._detached, *self._probing]):
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self.authenticator.close()
        await self.pipeline.close()
        await self.journals.close()
        for transport in self._transports.values():
            await transport.close()
        await self.limits.close()
        await self.store.close()
        await self.keys.close()
        await self.turns.close()
        await self.conversations.close()
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait([self._counting])
        self.later.flush()
        await self.usage.close()
        self._beside.shutdown(wait=False, cancel_futures=True)
        self.flush()


def _takes_every_call(tiers: list[RoutedTier]) -> bool:
    """Whether nothing of a call can decide about its route: there is one target, and it has no conditions."""
    targets = [target for routed in tiers for target in routed.targets]
    spec = targets[0].spec
    return len(targets) == 1 and spec.vision and spec.tools and spec.context is None
