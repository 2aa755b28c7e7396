"""One configuration, ready to answer calls: routes, keys, rules, prices.

A request uses one snapshot from its beginning to its end. The snapshot also refers to everything that a
request needs of the process's state (`sluice.runtime.state`).
"""

import asyncio
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec

from sluice.backends.protocol import ListsModels, UpstreamRequest
from sluice.backends.transport import Transport
from sluice.config.loader import Loaded, models_of
from sluice.config.types import Issuer, Key, Probe, Queue, Timeouts, targets_of
from sluice.frontends import credential_names
from sluice.identity import Authenticator
from sluice.identity.addresses import client_addresses
from sluice.identity.operators import Operators
from sluice.policies.end_users import EndUserNames
from sluice.policies.limits import Limiter
from sluice.policies.priced import Priced
from sluice.proxy.interceptors import Interceptor
from sluice.proxy.pipeline import Pipeline, Policy
from sluice.routing.health import Health
from sluice.routing.probes import watch
from sluice.runtime.catalogue import Catalogue
from sluice.runtime.detached import Detached
from sluice.runtime.listings import Listing, follow, listed_by
from sluice.runtime.maxima import show_maxima
from sluice.runtime.restart import effective
from sluice.runtime.routes import Routes, forward_of
from sluice.runtime.state import ProcessState
from sluice.runtime.stores import use_keys
from sluice.runtime.wildcards import Wildcards
from sluice.telemetry.notices import look_at_alias
from sluice.usage.opening import reopen
from sluice.usage.tags import Tags
from sluice.wire.baseurl import endpoint


class Names(msgspec.Struct, frozen=True):
    """The configured names that are labels of metrics.

    `targets`: upstream and model. `credentials`: upstream and name.
    """

    aliases: frozenset[str] = frozenset()
    targets: frozenset[tuple[str, str]] = frozenset()
    upstreams: frozenset[str] = frozenset()
    credentials: frozenset[tuple[str, str]] = frozenset()
    keys: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()
    frontends: frozenset[str] = frozenset()

    def without(self, others: "Iterable[Names]") -> "Names":
        """Returns the names that none of the other snapshots has."""
        found = [getattr(self, field) for field in self.__struct_fields__]
        for other in others:
            found = [
                names - getattr(other, field)
                for names, field in zip(found, self.__struct_fields__, strict=True)
            ]
        return Names(*found)


class Snapshot:
    """A configuration at work.

    `async with` builds it, beside other snapshots of the same `state`, and ends its remaining calls at the
    exit. `config` is the configuration as this process can apply it (`sluice.runtime.restart`). Raises
    ConfigError, ValueError or OSError if it cannot be applied; what was built is closed then.
    """

    def __init__(self, loaded: Loaded, state: ProcessState) -> None:
        self.state = state
        self.config = config = effective(state.config, loaded.config)
        self.names = names_of(loaded)
        self.path, self.hash = loaded.path, loaded.hash
        self.superseded = asyncio.Event()
        """Set when new requests go to another snapshot, so that responses that never end by themselves end
        then."""
        self.loaded = loaded
        self.started = state.started
        self.metrics = state.metrics
        self.log = state.log
        self.records = state.records
        self.tracer = state.tracer
        self.recorder = state.recorder_of(config)
        self.deferred = state.deferred
        self.beside = state.beside
        self.scrape = state.scrape
        self.exposition = state.exposition
        self.watches = state.watches
        self.keys = state.keys
        self.usage = state.usage
        self.conversations = state.conversations
        self.turns = state.turns
        self.kept = state.kept
        self.journals = state.journals
        self.store = state.store
        self.detached = Detached(state.records)
        self.outlives = self.detached.outlives
        self.frontends = loaded.frontends
        forwarded = (
            name
            for key, upstream in config.upstreams.items()
            for name in forward_of(upstream, loaded.backends[key])
        )
        self.forwardable = frozenset(forwarded).difference(credential_names(loaded.frontends.values()))
        self.operators = Operators(config.admin)

    async def __aenter__(self) -> Self:
        state, config = self.state, self.config
        async with AsyncExitStack() as stack:
            self._build(stack)
            budgets = state.keys.table.budgets_beside(self.names.keys)
            await reopen(state.store, state.usage.store, config, state.calendar(), budgets)
            self._start(stack)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    # --- building

    def _build(self, stack: AsyncExitStack) -> None:
        state, config, records = self.state, self.config, self.state.records
        keys = [key.id for key in config.keys] if config.metrics.key_label else []
        records.expect(config.aliases, keys, self.frontends)
        for name in config.upstreams:
            for condition in ("open", "idle", "waiting"):
                connections = partial(state.connections, name, condition)
                state.metrics.computed("upstream_connections", connections, name, condition)
        built = Routes(config, self.loaded, state, stack)
        self.routes, self.standings, self.transports = built.routes, built.standings, built.transports
        self.wildcards = Wildcards(config.aliases, built.route_of)
        self.catalogue = Catalogue(
            config.aliases, lambda: models_of(self.loaded).models, self._listings(stack)
        )
        self.addresses = client_addresses(
            config.server.trusted_proxies, records.address_unreadable, records.address_unheeded
        )
        dynamic = state.keys.table
        self.authenticator = Authenticator(
            config,
            time.time,
            dynamic.keyring,
            credential_names(self.frontends.values()),
            partial(state.key_set, stack),
        )
        callers: tuple[Key | Issuer, ...] = (*config.keys, *config.jwt)
        configured = dict.fromkeys((origin for caller in callers for origin in caller.origins), 1)
        self.origins = ChainMap(configured, dynamic.origins)
        users, folded = config.limits.end_users, partial(state.metrics.child, "end_users_folded")
        self.end_users = EndUserNames(users, state.end_users, folded().inc) if users is not None else None
        tags = config.usage.tags
        self.tags = Tags(tags, state.usage.apart) if tags else None
        self.limits = Limiter(
            state.store,
            config.limits,
            config.tenants,
            config.upstreams,
            count=records.decisions,
            soft=partial(state.metrics.zero, "budget_soft"),
            clock=state.clock,
            wall=time.time,
            calendar=state.calendar,
            teams=config.teams,
            settlements=state.settlements,
            alias_queues=state.alias_queues,
        )
        self.pipeline = self._pipeline(self._interceptors(stack))
        stack.push_async_callback(self.pipeline.close)
        stack.push_async_callback(self.detached.close)

    def _interceptors(self, stack: AsyncExitStack) -> dict[str, list[Interceptor]]:
        """Builds the interceptors of each alias that has any. Equal ones of the snapshot before are reused."""
        take = self.state.interceptors.take
        return {
            alias: [take(stack, (alias, place), kind, kind.interceptor) for place, kind in enumerate(kinds)]
            for alias, kinds in self.loaded.interceptors.items()
        }

    def _pipeline(self, interceptors: Mapping[str, Sequence[Interceptor]]) -> Pipeline:
        state, config = self.state, self.config
        # Methods, not the objects that have them: to call those takes Python twice as long.
        # Waiting calls take no slot and are not charged.
        policies: list[Policy] = [state.turns.__call__, state.kept.__call__, self.limits.__call__]
        if config.prices.unknown == "refuse":
            policies.insert(0, Priced(time.time))
        return Pipeline(
            policies,
            claims=self.limits.upstream_claims,
            clock=state.clock,
            wall=time.time,
            metrics=state.metrics,
            write_idle=float(config.server.write_idle),
            crashed=state.records.crashed,
            prices=config.prices,
            later=state.deferred.later,
            beside=state.beside,
            retries=state.retries,
            off=state.off,
            interceptors=interceptors,
        )

    def _start(self, stack: AsyncExitStack) -> None:
        """Starts fetching key sets and probing upstreams, if configured; nothing waits for either."""
        for issuer in self.names.issuers:
            for keys in self.state.key_sets.named(issuer):
                keys.start()
        for name, upstream in self.config.upstreams.items():
            base_url = getattr(self.loaded.backends[name], "base_url", "")
            if upstream.probe is not None and base_url:
                endings = getattr(self.loaded.backends[name], "endings", ())
                self._probe(stack, name, upstream.probe, endpoint(base_url, upstream.probe.path, endings))

    def _listings(self, stack: AsyncExitStack) -> dict[str, Listing]:
        """Returns the upstreams' lists for wildcard aliases that are expanded; they are fetched from now
        on."""
        found: dict[str, Listing] = {}
        for name, alias in self.config.aliases.items():
            target = listed_by(alias) if alias.expand else None
            backend = self.loaded.backends[target.upstream] if target is not None else None
            if (
                target is None
                or not isinstance(backend, ListsModels)
                or (request := backend.listing()) is None
            ):
                continue
            of, transport = target.upstream, self.transports[target.upstream]
            timeouts, report = (
                self.config.upstreams[of].timeouts,
                partial(_log_failed_list, self.state.log, of),
            )

            terms = (transport, request.url, request.headers, timeouts)
            found[name] = self.state.listings.take(
                stack, of, terms, partial(_listed, transport, request, timeouts, report)
            )
        return found

    def _probe(self, stack: AsyncExitStack, name: str, probe: Probe, url: str) -> None:
        transport, timeouts = self.transports[name], self.config.upstreams[name].timeouts
        health = [standing.health for (of, _), standing in self.standings.items() if of == name]

        def begin() -> asyncio.Task[None]:
            return asyncio.create_task(watch(probe, transport, url, timeouts, health))

        self.state.probes.take(stack, name, (probe, transport, url, timeouts, health), begin)

    # --- living

    @property
    def queues(self) -> set[tuple[str, Queue]]:
        """Returns the aliases that have a queue."""
        return {(name, alias.queue) for name, alias in self.config.aliases.items() if alias.queue is not None}

    def take_over(self, before: "Snapshot | None" = None) -> None:
        """Makes this the snapshot of new requests; requests that began under `before` stay with that one."""
        state = self.state
        if before is not None:
            before.superseded.set()
        state.keys.table.configure(self.names.keys)
        use_keys(state.seals, self.config)
        if before is not None:
            for target, standing in before.standings.items():
                if self.standings.get(target) is not standing:
                    standing.notices.mute()
            for alias in before.names.aliases - self.names.aliases:
                state.notices.forget(("alias", alias))
        show_maxima(state.metrics, self.config, before.config if before is not None else None)
        state.transports.follow(self.transports, before.transports if before is not None else {})
        healths = {alias: [target.health for target in route.targets] for alias, route in self.routes.items()}
        for target, standing in self.standings.items():
            standing.notices.follow(_with(standing.health, healths))
            state.metrics.computed(
                "breaker_state", partial(getattr, standing.health, "state"), *target
            ).kept = True
        if before is not None:
            for alias, of_alias in healths.items():
                look_at_alias(state.notices, alias, of_alias)

    async def idle(self) -> None:
        """Waits until none of its calls is in flight, including shadows and calls without their clients."""
        await self.pipeline.idle()
        while self.detached.tasks:
            await asyncio.wait([*self.detached.tasks])
        await self.pipeline.shadows.idle()


def _listed(
    transport: Transport, request: UpstreamRequest, timeouts: Timeouts, report: Callable[[str], None]
) -> Listing:
    listing = Listing()
    listing.task = asyncio.create_task(follow(listing, transport, request, timeouts, report=report))
    return listing


def _log_failed_list(log: Any, upstream: str, reason: str) -> None:
    """Logs that an upstream's list of models could not be fetched; the previous list is shown meanwhile."""
    log.warning("models_not_listed", upstream=upstream, reason=reason)


def names_of(loaded: Loaded) -> Names:
    config, aliases = loaded.config, loaded.config.aliases.values()
    targets = {
        (spec.upstream, spec.model) for alias in aliases for tier in alias.tiers for spec in targets_of(tier)
    }
    targets |= {(alias.shadow.upstream, alias.shadow.model) for alias in aliases if alias.shadow is not None}
    return Names(
        aliases=frozenset(config.aliases),
        targets=frozenset(targets),
        upstreams=frozenset(config.upstreams),
        credentials=frozenset(
            (name, one.name) for name, several in loaded.credentials.items() for one in several
        ),
        keys=frozenset(key.id for key in config.keys),
        issuers=frozenset(issuer.issuer for issuer in config.jwt),
        frontends=frozenset(loaded.frontends),
    )


def _with(health: Health, healths: dict[str, list[Health]]) -> dict[str, list[Health]]:
    """Returns the aliases that use this target."""
    return {alias: of_alias for alias, of_alias in healths.items() if health in of_alias}
