"""The process's state, which outlives every snapshot: log, metrics, stores, connections to upstreams, and
learned state of targets.

It is built from the configuration that the process starts with. The options of stores, log and listeners hold
to the end (`sluice.runtime.restart`); everything else belongs to snapshots (`sluice.runtime.snapshot`).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from sluice.aio.deferred import DeferredWork
from sluice.config.loader import Loaded
from sluice.config.types import Config, Issuer, MetricsPush, Picker, Pods, Tracing
from sluice.conversations import ConversationsFailed, Retention, Swept
from sluice.conversations.leases import Leases
from sluice.conversations.measured import MeasuredShared
from sluice.conversations.turnstile import Turnstile
from sluice.errors import Unavailable
from sluice.kept import ResponseStore
from sluice.limits import Dated, Remote
from sluice.policies.end_users import TrackedUsers
from sluice.policies.kept import KeptResponses
from sluice.policies.queue import AliasQueues
from sluice.policies.settlements import Settlements
from sluice.policies.turns import Turns
from sluice.proxy.interceptors import Closing, Interceptor
from sluice.routing.failover import RetryBudget
from sluice.routing.health import Health, Load
from sluice.runtime.credentials import Accounts
from sluice.runtime.descriptors import limit_of_files, places
from sluice.runtime.fleet import RESULTS, ConfigStatus, Fleet
from sluice.runtime.listings import Listing
from sluice.runtime.shared import Shared
from sluice.runtime.stores import (
    StoreWatches,
    bucket_store,
    conversation_store,
    journals,
    key_follower,
    patience,
    response_store,
    retention,
    turn_locks,
    usage_ledger,
    use_keys,
)
from sluice.runtime.transports import Transports
from sluice.storage import PROBLEMS
from sluice.storage.address import store_of
from sluice.storage.again import STORE_SECONDS
from sluice.storage.sealing import Seals
from sluice.storage.steady import MAX_STEP_SECONDS, SteadyWall
from sluice.telemetry.board import BoardSlot
from sluice.telemetry.formats import Format
from sluice.telemetry.logs import LogLines, open_lines, open_log
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.notices import Notices, TargetNotices
from sluice.telemetry.records import Records
from sluice.upstream import IdleConnections
from sluice.version import VERSION

if TYPE_CHECKING:
    from sluice.identity.remote import RemoteKeys
    from sluice.runtime.pods import PodPool
    from sluice.runtime.push import MetricsPusher
    from sluice.sinks.recorder import Recorder
    from sluice.telemetry.recent import RecentCalls
    from sluice.tracing.tracer import Tracer
    from sluice.upstream.picked import PickedTransport

T = TypeVar("T")
CLOSING = 5.0
"""Maximum seconds that an interceptor may take to close."""


class ModelState(msgspec.Struct, frozen=True, eq=False):
    """The state of one model of one upstream: its breaker, its load, and its notices in the log."""

    health: Health
    load: Load
    notices: TargetNotices


class ProcessState:
    """The state of one process.

    `async with` opens stores and reads the dynamic keys; leaving it closes everything in reverse order.
    Snapshots must be closed before it. `lines` receives log lines. `slot`: the place of this process's
    counters, if it is one of several. `clock` is monotonic, in seconds; None: the system's.
    """

    def __init__(
        self,
        loaded: Loaded,
        lines: LogLines,
        slot: BoardSlot | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        config = self.config = loaded.config
        self.given = loaded.given or loaded.config
        """The configuration as in the file that the process was started with."""
        self.workers_given = loaded.workers
        self._frontends = [*loaded.frontends]
        self.following = ConfigStatus(loaded.hash, time.time())
        """The current configuration; set by `show`."""
        self.lines = lines
        self.clock = clock or time.monotonic
        self.started = int(time.time())
        self._steady = SteadyWall(time.time, self.clock)
        self.draining = False
        self.off: dict[str, str] = {}
        """Labels of targets that are switched off: "disabled" or "draining"."""
        self.tracer: Tracer | None = None
        self.recorder: Recorder | None = None
        self.fleet: Fleet | None = None
        """The operations for operators; None if the gateway is part of another program's process."""
        self.seed = loaded.seed
        self.recent: RecentCalls | None = None
        self._made: dict[str, Any] = {}
        self.slot = slot
        self.metrics = metrics = Metrics(VERSION, slot)
        lines.dropped = metrics.child("log_errors").inc
        self.log = open_log(lines, config.log.level)
        self.notices = Notices(self.log, self.clock)
        self.places = places(limit_of_files(), config.server.max_connections)
        self.lag = metrics.zero("event_loop_lag_seconds", str(slot.worker if slot is not None else 0))
        self.retries = RetryBudget(self.clock)
        self.watches = StoreWatches(metrics, self.log, self.clock)
        soon = asyncio.get_running_loop().call_soon if slot is not None else None
        self.deferred = DeferredWork(lambda crash: self.records.crashed(crash, ""), soon)
        self.alias_queues = AliasQueues(self.clock)
        self.end_users = TrackedUsers(self.clock)
        accounts = Accounts(metrics, self.notices, self.clock)
        self.show(self.following)
        self.transports = Transports(accounts, IdleConnections(self.places.idle), self.notices)
        self.standings: Shared[ModelState] = Shared()
        self.key_sets: Shared[RemoteKeys] = Shared(lambda keys: keys.close())
        self.probes: Shared[asyncio.Task[None]] = Shared(_stop)
        self.pickers: Shared[PickedTransport] = Shared(lambda picked: picked.close())
        self.pools: Shared[PodPool] = Shared(lambda pool: pool.close())
        self.interceptors: Shared[Interceptor] = Shared(self._close_interceptor)
        self.listings: Shared[Listing] = Shared(lambda listing: listing.close())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._build(stack)
            await asyncio.gather(self.keys.start(), self._greet())
            counting = asyncio.create_task(self.usage.run())
            stack.push_async_callback(_stop, counting)
            if self.tracer is not None:
                stack.push_async_callback(_stop, asyncio.create_task(self.tracer.run()))
                stack.callback(self.deferred.flush)
            if self.recorder is not None:
                stack.push_async_callback(_stop, asyncio.create_task(self.recorder.run()))
                stack.callback(self.deferred.flush)
            if (kept := retention(self.config)) != Retention():
                stack.push_async_callback(_stop, self._sweeping(partial(self._sweep, kept)))
            at = self.config.responses.store
            if self.kept.store is not None and at is not None and store_of(at.reveal()).kind != "memory":
                stack.push_async_callback(_stop, self._sweeping(partial(self._forget, self.kept.store)))
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    def _build(self, stack: AsyncExitStack) -> None:
        """Opens everything that has to be closed. Raises OSError and the like if a store cannot be opened."""
        config, metrics = self.config, self.metrics
        stack.callback(self.flush)
        self._thread = ThreadPoolExecutor(1, "beside")
        stack.callback(self._thread.shutdown, wait=False, cancel_futures=True)
        self.usage = usage_ledger(config, metrics, self.log, self.watches, self._steady)
        stack.push_async_callback(self.usage.close)
        stack.callback(self.deferred.flush)
        kind = store_of(config.state.reveal()).kind
        say = open_lines(self.lines, config.log.level)
        if config.admin.ui:
            from sluice.telemetry.recent import RecentCalls

            self.recent = RecentCalls(time.time)
            say = self.recent.feed(say)
        self.records = records = Records(
            metrics,
            self.log,
            say,
            self.clock,
            aliases=(),
            conversations=kind,
            keys=(),
            frontends=self._frontends,
            used=self.usage.add,
            later=self.deferred.later,
        )
        if config.tracing is not None:
            self.tracer = self._tracer(config.tracing)
            records.traced = self.tracer.over
        if config.records:
            self._record()
        self.seals = Seals()
        use_keys(self.seals, config)
        self.conversations = store = conversation_store(config, metrics, self.watches, self.seals)
        stack.push_async_callback(self.conversations.close)
        leases = Leases(store, records.not_kept) if isinstance(store, MeasuredShared) else None
        locks = turn_locks(config)
        if locks is not None:
            stack.callback(locks.close)
        turnstile = Turnstile(locks=locks)
        waits = patience(config.state.reveal())
        self.turns = Turns(store, turnstile, time.time, records.not_kept, leases=leases, patience=waits)
        stack.push_async_callback(self.turns.close)
        kept_at = config.responses.store
        self.kept = KeptResponses(
            response_store(config, self.watches, self.seals),
            time.time,
            records.not_kept,
            clock=self.clock,
            patience=patience(kept_at.reveal()) if kept_at is not None else STORE_SECONDS,
        )
        stack.push_async_callback(self.kept.close)
        self.keys = key_follower(config, metrics, self.watches)
        stack.push_async_callback(self.keys.close)
        self.store = bucket_store(config, metrics, self.log, self.watches)
        stack.push_async_callback(self.store.close)
        self.calendar = self.store.wall if isinstance(self.store, Dated) else time.time
        """The wall clock that budgets' periods go by."""
        self.settlements = Settlements(self.store, self.alias_queues.wake)
        stack.push_async_callback(self.settlements.close)
        self.journals = journals(config, records.not_journaled, self.watches)
        stack.push_async_callback(self.journals.close)
        metrics.computed("dynamic_keys", lambda: len(self.keys.table)).kept = True

    def _tracer(self, tracing: Tracing) -> "Tracer":
        from sluice.tracing.exemplars import CallExemplars
        from sluice.tracing.exporter import RESULTS as SPAN_RESULTS
        from sluice.tracing.tracer import Tracer

        upstreams = self.config.upstreams
        spans_of = {result: self.metrics.zero("trace_spans", result) for result in SPAN_RESULTS}

        def vendor(name: str) -> str:
            upstream = upstreams.get(name)
            return (upstream.vendor or upstream.backend) if upstream is not None else "_OTHER"

        def counted(result: str, spans: int) -> None:
            spans_of[result].inc(spans)

        exemplify = CallExemplars(self.metrics, time.time).add
        return Tracer(tracing, vendor, counted, clock=self.clock, wall=time.time, exemplify=exemplify)

    def push(self) -> "asyncio.Task[None] | None":
        """Starts sending metrics, if `metrics.push` is configured. Cancel it while all counters are still
        shown."""
        push = self.config.metrics.push
        return asyncio.create_task(self._pusher(push).run()) if push is not None else None

    def _pusher(self, push: MetricsPush) -> "MetricsPusher":
        from sluice.runtime.push import MetricsPusher

        async def collect() -> bytes:
            merged = await self.fleet.exposition("otlp") if self.fleet is not None else None
            if merged is not None:
                return merged
            parts = []
            for piece in self.scrape("otlp"):
                parts.append(piece)
                await asyncio.sleep(0)
            return b"".join(parts)

        pushes = {result: self.metrics.zero("metrics_pushes", result) for result in ("ok", "failed")}

        def counted(result: str, why: str) -> None:
            pushes[result].inc()
            if why:
                self.notices.begin(("push",), "warning", "metrics_not_pushed", why=why)
            else:
                self.notices.end(("push",), "metrics_pushed")

        process = self.slot.board.maker if self.slot is not None else os.getpid()
        return MetricsPusher(push, process, collect, counted)

    def recorder_of(self, config: Config) -> "Recorder | None":
        """Returns the recorder of calls under this configuration, which a reload may be the first to need; None:
        there are no sinks, and no texts to keep for the pages."""
        if not config.records and (self.recent is None or not _has_content(config)):
            return None
        return self.recorder or self._record()

    def _record(self) -> "Recorder":
        """Opens the sinks. Raises OSError if a sink's file or directory cannot be used."""
        from sluice.sinks.recorder import Recorder

        keep = self.recent.keep if self.recent is not None else None
        self.recorder = Recorder(
            self.config, self.metrics, self.log, clock=self.clock, wall=time.time, keep=keep
        )
        self.records.recorded = self.recorder.over
        return self.recorder

    def _sweeping(self, step: Callable[[], Awaitable[Swept]]) -> "asyncio.Task[None]":
        """Starts to delete what is not to be kept, now and then."""
        from sluice.conversations.sweeper import Sweeper

        return asyncio.create_task(Sweeper(step, self.records.swept, self.records.not_kept).run())

    async def _sweep(self, kept: Retention) -> Swept:
        return await self.conversations.sweep(kept, self._steady())

    async def _forget(self, responses: ResponseStore) -> Swept:
        """Deletes by the stores' own reading of the wall clock, so not while that is not believed."""
        if time.time() - self._steady() > MAX_STEP_SECONDS:
            return Swept()
        return Swept(more=await responses.forget())

    async def _greet(self) -> None:
        """Sends one request to each store, so that a wrong password shows at the start and not at the first
        call."""
        if isinstance(self.store, Remote):
            await self.store.greet()
        if self.config.state.reveal() != "memory":
            await self._greet_conversations()
        if any(alias.resumable for alias in self.config.aliases.values()):
            with contextlib.suppress(Unavailable):
                await self.journals.find("")

    async def _greet_conversations(self) -> None:
        try:
            newest, _ = await self.conversations.newest(1)
            for conversation in newest:
                await self.conversations.recent(conversation.id, 1)
        except ConversationsFailed as error:  # other errors have been reported by the store's watch
            if error.reason == "key":
                self.log.error("conversations_unreadable", problem=PROBLEMS["key"])
        except OSError as error:
            self.records.not_kept("open", error)

    def key_set(self, stack: AsyncExitStack, issuer: Issuer) -> "RemoteKeys":
        """Returns the key set of an issuer. It is not fetched before it is started."""
        from sluice.identity.remote import RemoteKeys

        terms = (issuer.jwks_url, issuer.discovery, issuer.algorithms)
        return self.key_sets.take(
            stack, issuer.issuer, terms, lambda: RemoteKeys(issuer, self.records.keys_fetched)
        )

    def pool(self, stack: AsyncExitStack, name: str, pods: Pods, base_url: str, transport: Any) -> "PodPool":
        """Returns the pool of an upstream's servers, which are followed from now on; it is released when
        `stack` is closed."""
        from sluice.runtime.pods import PodPool

        def begin() -> PodPool:
            pool = PodPool(
                name,
                pods,
                base_url,
                transport,
                metrics=self.metrics,
                notices=self.notices,
                log=self.log,
                clock=self.clock,
            )
            pool.start()
            return pool

        taken = self.pools.take(stack, name, (pods, base_url, transport), begin)
        stack.callback(taken.forget_targets)
        return taken

    def picked(self, stack: AsyncExitStack, name: str, picker: Picker, base: Any) -> "PickedTransport":
        """Returns the transport to an upstream whose servers an endpoint picker chooses; it is released when
        `stack` is closed."""
        from sluice.upstream.grpc import GrpcChannel
        from sluice.upstream.names import host_and_port, joined
        from sluice.upstream.picked import PickedTransport
        from sluice.upstream.tls import picker_tls

        def told(result: str) -> None:
            self.metrics.child("picks", name, result).inc()
            if result in ("failed", "bypassed"):
                self.notices.begin(
                    ("picker", name), "warning", "picker_failed", upstream=name, when_down=picker.when_down
                )
            else:
                self.notices.end(("picker", name), "picker_answers")

        def make() -> PickedTransport:
            host, port = host_and_port(picker.address, 9002)
            channel = GrpcChannel(host, port, joined(host, port), picker_tls(picker) if picker.tls else None)
            to_service = picker.when_down == "service"
            return PickedTransport(
                base, channel, timeout=float(picker.timeout), open_on_failure=to_service, told=told,
                networks=picker.networks,
            )  # fmt: skip

        return self.pickers.take(stack, name, (picker, base), make)

    def connections(self, upstream: str, condition: str) -> int:
        """Returns the number of connections to an upstream that are "open" or "idle", or of calls "waiting"
        for one."""
        pooled = sum(pool.connections(condition) for pool in self.pools.named(upstream))
        picked = sum(getattr(transport, condition) for transport in self.pickers.named(upstream))
        return self.transports.connections(upstream, condition) + pooled + int(picked)

    # --- what happens

    def show(self, following: ConfigStatus) -> None:
        """Shows the current configuration and the result of the last reload in metrics and probes."""
        last, metrics = following.last, self.metrics
        if self.following.hash != following.hash:
            metrics.forget_one("config_info", self.following.hash)
        metrics.zero("config_info", following.hash).set(1.0)
        self.following = following
        metrics.zero("config_last_reload_timestamp_seconds").set(
            last.at if last is not None else following.since
        )
        metrics.zero("config_last_reload_duration_seconds").set(last.seconds if last is not None else 0.0)
        metrics.zero("config_last_reload_success_timestamp_seconds").set(following.since)
        metrics.zero("config_last_reload_successful").set(float(last is None or last.ok))
        for result in RESULTS:
            metrics.zero("config_reloads", result).value = float(following.counts.get(result, 0))

    def scrape(self, format: Format = "text") -> Iterator[bytes]:
        """Yields /metrics in pieces that each take some two milliseconds of the event loop."""
        self.deferred.flush()
        return self.metrics.slices(self.clock, format)

    def exposition(self) -> bytes:
        """Returns all of /metrics at once."""
        return b"".join(self.scrape())

    def publish(self, now: float) -> None:
        """Publishes that this process is alive, and the values of gauges that are computed on demand."""
        if self.slot is not None:
            self.slot.beat(now)
            self.metrics.publish()

    @property
    def ready(self) -> bool:
        """Returns whether new calls may be sent; workers that are being replaced do not make the gateway
        unready."""
        return not (self.draining if self.slot is None else self.slot.stopping)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns the part of the process with this name, made at first use: for parts that only some
        configurations need."""
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found

    async def _close_interceptor(self, interceptor: Interceptor) -> None:
        """Closes an interceptor. An exception in a plugin is logged, so that everything else is closed all
        the same."""
        if isinstance(interceptor, Closing):
            try:
                async with asyncio.timeout(CLOSING):
                    await interceptor.close()
            except Exception as error:
                self.records.crashed(error, "")

    def flush(self) -> None:
        """Counts finished calls, and writes their log lines."""
        self.deferred.flush()
        self.lines.flush()

    async def beside(self, work: Callable[..., T], *args: object) -> T:
        """Runs `work(*args)` in a thread, and returns its result: for slow pure Python.

        One at a time, because such a thread delays the event loop now and then, and several would add up.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)


def _has_content(config: Config) -> bool:
    """Returns whether the texts of any call may be recorded: a key allows no more than its alias."""
    return any((alias.log_content or config.log.content) != "none" for alias in config.aliases.values())


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
