"""One process of the gateway in a simulation, with the gateway's real routes, breakers, limits, queues and
failover. It has no sockets, dialects, histories of sessions, interceptors, stages, bytes of shadows, or
limits by client address."""

import io
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, cast

import msgspec

from sluice.config.loader import Loaded
from sluice.errors import ModelNotFound
from sluice.identity.keys import Keyring
from sluice.identity.principal import EVERY, Principal
from sluice.limits import BucketStore
from sluice.model.chat import Sampling
from sluice.policies.limits import Limiter
from sluice.policies.settlements import Settlements
from sluice.proxy.call import Call
from sluice.proxy.pipeline import Pipeline
from sluice.proxy.target import Route, Target
from sluice.routing.strategies import NO_TRAITS, traits_of
from sluice.runtime.routes import Routes
from sluice.runtime.state import ProcessState
from sluice.runtime.transports import Transports
from sluice.runtime.wildcards import Wildcards
from sluice.simulate.scenario import Clock
from sluice.simulate.traces import Arrival
from sluice.simulate.transport import ModelledBackend, ModelledFrontend, ModelledTransport, TracedRequest
from sluice.telemetry.logs import LogLines
from sluice.telemetry.metrics import CallSeries

NOBODY = Principal(key_id="(unknown)", tenant="(unknown)", bucket="(unknown)", aliases=frozenset((EVERY,)))
"""The caller for keys that are not in the configuration: it has no limits of its own."""


class _NoLines(LogLines):
    """Writes no log."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def msg(self, line: bytes) -> None:
        pass

    debug = info = warning = error = critical = exception = now = msg


class _ModelledTransports:
    """Stands in for Transports: all lead to modelled upstreams."""

    def __init__(self, transport: ModelledTransport) -> None:
        self._transport = transport

    def take(self, *_: Any) -> ModelledTransport:
        return self._transport


class Replica:
    """A process that is built from a configuration. `store` holds the limits; several replicas may share it.
    `clock` (monotonic) and `wall` (since the epoch) give seconds; `crashed` is called with faults of the
    gateway."""

    def __init__(
        self,
        loaded: Loaded,
        store: BucketStore,
        transport: ModelledTransport,
        stack: AsyncExitStack,
        *,
        clock: Clock,
        wall: Clock,
        chance: Callable[[], float],
        crashed: Callable[[Exception, str], object],
    ) -> None:
        config = loaded.config
        state = ProcessState(loaded, _NoLines(), clock=clock)
        state.transports = cast(Transports, _ModelledTransports(transport))
        self._clock = clock
        self.metrics = metrics = state.metrics
        built = Routes(config, loaded, state, stack)
        self._routes = {name: modelled(route) for name, route in built.routes.items()}
        self._wildcards = Wildcards(config.aliases, lambda name, model: modelled(built.route_of(name, model)))
        self._keys = Keyring(config.keys, wall)
        self._principals: dict[str, Principal] = {}
        self._series: dict[str, CallSeries] = {}
        self.standings = built.standings
        self.settlements = Settlements(store, state.alias_queues.wake)
        self.alias_queues = state.alias_queues
        self._limits = Limiter(
            store,
            msgspec.structs.replace(
                config.limits, address=None
            ),  # a trace does not contain callers' addresses
            config.tenants,
            config.upstreams,
            count=partial(metrics.child, "ratelimit_decisions"),
            soft=partial(metrics.child, "budget_soft"),
            clock=clock,
            wall=wall,
            teams=config.teams,
            settlements=self.settlements,
            alias_queues=state.alias_queues,
        )
        self.pipeline = Pipeline(
            [self._limits],
            claims=self._limits.upstream_claims,
            clock=clock,
            wall=wall,
            metrics=metrics,
            chance=chance,
            crashed=crashed,
            prices=config.prices,
            retries=state.retries,
            off=state.off,
        )
        self.in_flight = 0
        self.most = 0
        """The maximum number of calls at a time."""

    def call(self, arrival: Arrival, number: int) -> Call:
        """Makes the call of an arrival. Raises ModelNotFound for an alias that does not exist, or that its
        key may not use."""
        principal = self._principal(arrival.key)
        route = self._routes.get(arrival.alias) or self._wildcards.route_of(arrival.alias, principal.may)
        if route is None or route.wildcard or not principal.may(arrival.alias):
            raise ModelNotFound("There is no such model, or this key may not use it")
        chat = TracedRequest(
            "",
            arrival.alias,
            (),
            stream=arrival.stream,
            session=arrival.session or None,
            sampling=Sampling(max_tokens=arrival.max_tokens or None),
            input_tokens=arrival.input,
            output_tokens=arrival.output,
        )
        series = self._series.get(route.name)
        if series is None:
            series = self._series[route.name] = CallSeries(self.metrics, ModelledFrontend.name, route.name)
        traits = NO_TRAITS if route.single_target else traits_of(chat, principal.key_id, principal.tenant)
        return Call(str(number), self._clock(), FRONTEND, principal, route, chat, series, traits)

    def _principal(self, key: str) -> Principal:
        found = self._principals.get(key)
        if found is None:
            found = self._keys.named(key) or NOBODY
            if found is not NOBODY:
                self._principals[key] = found
        return found

    def breakers(self) -> Mapping[str, str]:
        """Returns each target's breaker: closed, half_open or open."""
        return {
            "/".join(target): standing.health.state.name.lower()
            for target, standing in self.standings.items()
        }


FRONTEND = ModelledFrontend()


def modelled(route: Route) -> Route:
    """Returns the route with its targets' dialects replaced by the modelled one. What requests reserve does
    not change."""
    for tier in route.tiers:
        tier.targets = [_modelled(cast(Target, target)) for target in tier.targets]
    return route if route.shadow is None else msgspec.structs.replace(route, shadow=_modelled(route.shadow))


def _modelled(target: Target) -> Target:
    backend = ModelledBackend(getattr(target.backend, "default_max_tokens", 0))
    return msgspec.structs.replace(
        target,
        backend=backend,
        decoder=backend.decoder,
        passes_on=None,
        fit=None,
        capable=None,
        whole=None,
        forward={},
        heeds_limits=False,
    )
