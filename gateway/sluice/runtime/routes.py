"""Builds the routes of a configuration's aliases."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from sluice.backends.protocol import AnswersWhole, Backend, with_rules
from sluice.backends.transport import Transport
from sluice.config.loader import Loaded, models_of
from sluice.config.rule_file import ModelTable
from sluice.config.types import Alias, Config, Tier, Upstream, heeds_limits, targets_of
from sluice.config.types import Target as TargetConfig
from sluice.model.rules import NO_RULES, ModelRules, Overrides, rules_of
from sluice.proxy.capable import Capable, refusing, takes_of
from sluice.proxy.fitting import Fitting
from sluice.proxy.target import Route, Target, add_headers
from sluice.proxy.tool_names import NamesFitting
from sluice.routing.failover import RetryPolicy
from sluice.routing.health import BreakerPolicy, Health, Load
from sluice.routing.strategies import BY_PODS, BY_TTFT, RoutedTier
from sluice.runtime.state import ModelState, ProcessState
from sluice.telemetry.metrics import TargetSeries, zero_of_failovers, zero_of_target
from sluice.telemetry.notices import TargetNotices
from sluice.wire.forwarding import Allowed, shown_target

if TYPE_CHECKING:
    from sluice.runtime.pods import PodPool


class Routes:
    """Builds the routes of a configuration.

    `loaded`: the configuration as in the file; `config`: as this process can apply it. What the routes use of
    the process's state is released when `stack` is closed.
    """

    def __init__(self, config: Config, loaded: Loaded, state: ProcessState, stack: AsyncExitStack) -> None:
        self._config = config
        self._backends = loaded.backends
        self._prices = loaded.prices
        self._models = models_of(loaded)
        self._stages = loaded.stages
        self._state = state
        self._stack = stack
        self._metrics = state.metrics
        self.standings: dict[tuple[str, str], ModelState] = {}
        """The state shared by all targets of one model, by upstream and model."""
        self.transports: dict[str, Transport] = {
            name: state.transports.take(
                stack, name, config.upstreams[name], backend, loaded.credentials.get(name, ())
            )
            for name, backend in loaded.backends.items()
        }
        self.pools = self._pools()
        self._reached = self.transports | {
            name: state.picked(stack, name, upstream.picker, self.transports[name])
            for name, upstream in config.upstreams.items()
            if upstream.picker is not None
        }
        self.routes: dict[str, Route] = {
            name: self._route(name, alias) for name, alias in config.aliases.items()
        }

    def _pools(self) -> "dict[str, PodPool]":
        """Returns the pools of servers, for upstreams that have several."""
        found = {}
        for name, upstream in self._config.upstreams.items():
            if upstream.pods is not None:
                base_url = getattr(self._backends[name], "base_url", "")
                found[name] = self._state.pool(
                    self._stack, name, upstream.pods, base_url, self.transports[name]
                )
        return found

    def route_of(self, name: str, model: str) -> Route:
        """Returns the route of one model of a wildcard alias; it is counted under the configured names."""
        return self._route(name, self._config.aliases[name], model)

    def _route(self, name: str, alias: Alias, called: str = "") -> Route:
        rest = called.removeprefix(name[:-1]) if called else ""
        metrics = self._metrics
        tiers: list[RoutedTier] = []
        stages = self._stages.get(name, ())
        for tier in alias.tiers:
            by_ttft = alias.hedge is not None or (isinstance(tier, Tier) and tier.strategy in BY_TTFT)
            targets = [
                msgspec.structs.replace(
                    self._target(target, alias, by_ttft, rest=rest).with_stages(stages),
                    answered=metrics.child(
                        "answered", name, target.upstream, target.model, str(len(tiers) + 1)
                    ),
                )
                for target in targets_of(tier)
            ]
            pooled = any(target.pods is not None for target in targets)
            strategy, affinity = (
                (tier.strategy, tier.affinity) if isinstance(tier, Tier) else ("weighted", "session")
            )
            tiers.append(RoutedTier(targets, strategy, affinity, pooled=pooled))
        retry = RetryPolicy(
            same_target=alias.retry.same_target,
            backoff=float(alias.retry.backoff),
            retry_after_wait=float(alias.retry.retry_after_wait),
            after_content_policy=alias.fall_back_on_content_policy,
        )
        if not called:
            zero_of_failovers(metrics, name, [[target.label for target in tier.targets] for tier in tiers])
        inter_token = metrics.child("inter_token_seconds", name)
        if alias.queue is not None:
            metrics.zero("requests_waiting", name)
            metrics.zero("queue_length", name)

        def waiting(change: int) -> None:
            metrics.child("requests_waiting", name).inc(change)

        def queued(change: int) -> None:
            waiting(change)
            metrics.child("queue_length", name).inc(change)

        return Route(
            name,
            alias,
            tiers,
            retry,
            self._shadow(alias, rest),
            inter_token,
            waiting,
            queued,
            wildcard=name.endswith("*") and not called,
            called=called,
            single_target=_takes_every_call(tiers),
            by_pods=any(tier.pooled and tier.strategy in BY_PODS for tier in tiers),
        )

    def _shadow(self, alias: Alias, rest: str = "") -> Target | None:
        if alias.shadow is None:
            return None
        shadow = self._target(
            TargetConfig(upstream=alias.shadow.upstream, model=alias.shadow.model), alias, rest=rest
        )
        return None if self._config.prices.unknown == "refuse" and not shadow.prices else shadow

    def _target(self, spec: TargetConfig, alias: Alias, by_ttft: bool = False, rest: str = "") -> Target:
        """Builds a target. `by_ttft`: the time to its first token affects routing, so whole answers are
        streamed to us, too. `rest`: the text for * in its model; health and metrics are those of the
        configured model.
        """
        upstream, backend = self._config.upstreams[spec.upstream], self._backends[spec.upstream]
        standing = self._standing(spec, upstream, backend)
        model = spec.model.replace("*", rest) if rest else spec.model
        rules = rules_for(self._models, msgspec.structs.replace(spec, model=model), upstream, backend)
        if spec.prefill and not rules.prefill:
            spec = msgspec.structs.replace(spec, prefill=False)
        backend = with_rules(backend, rules)
        label = f"{spec.upstream}/{spec.model}"
        shown = shown_target(f"{spec.upstream}/{model}") if alias.report_model == "target" else ""
        dropped, takes = self._dropping(label, spec), takes_of(backend, rules)
        configured_drops = configured_drops_of(upstream, spec)
        by_rule = refusing(dropped, configured_drops) if alias.unsupported == "refuse" else dropped
        return Target(
            label=label,
            upstream=spec.upstream,
            model=model,
            spec=spec,
            backend=backend,
            transport=self._reached[spec.upstream],
            timeouts=spec.timeouts or upstream.timeouts,
            health=standing.health,
            load=standing.load,
            series=TargetSeries(self._metrics, spec.upstream, spec.model),
            prices=self._prices.prices_of(spec.upstream, model),
            max_before_content=int(upstream.max_before_content),
            max_answer=int(upstream.max_answer),
            forward=forward_of(upstream, backend),
            heeds_limits=heeds_limits(upstream) and sum(len(targets_of(tier)) for tier in alias.tiers) > 1,
            shown=shown,
            attribution=(("x-sluice-attempts", "1"), *((("x-sluice-target", shown),) if shown else ())),
            passes_on=backend.dialect or None,
            fit=Fitting(rules, by_rule, backend.dialect).__call__ if rules is not NO_RULES else None,
            names=NamesFitting(rules.tool_names) if rules.tool_names else None,
            capable=Capable(takes, alias.unsupported, dropped, configured_drops)
            if takes is not None
            else None,
            dropped=dropped,
            tell=getattr(backend, "tell", add_headers),
            whole=backend
            if isinstance(backend, AnswersWhole) and not (backend.always_stream or by_ttft)
            else None,
            pods=self.pools[spec.upstream].targets if spec.upstream in self.pools else None,
        )

    def _dropping(self, label: str, spec: TargetConfig) -> Callable[[str], None]:
        """Returns the counter of request fields that a target does not get."""
        metrics, log = self._metrics, self._state.log

        def dropped(name: str) -> None:
            metrics.child("dropped_fields", spec.upstream, spec.model, name).inc()
            log.debug("dropped_field", target=label, field=name)

        return dropped

    def _standing(self, spec: TargetConfig, upstream: Upstream, backend: Backend) -> ModelState:
        """Returns the state of a target that all aliases share: its breaker, its load."""
        state, name = self._state, (spec.upstream, spec.model)
        known = self.standings.get(name)
        if known is not None:
            return known
        policy = BreakerPolicy(
            failures=upstream.breaker.failures,
            error_rate=upstream.breaker.error_rate,
            open_for=float(upstream.breaker.open_for),
            open_max=float(upstream.breaker.open_max),
        )

        def begin() -> ModelState:
            notices = TargetNotices(
                state.notices, *name, count=partial(state.metrics.child, "breaker_transitions")
            )
            if upstream.pods is not None:
                return _pooled(state, notices, policy, name)
            return ModelState(Health(state.clock, policy, notices), Load(), notices)

        terms = (getattr(backend, "base_url", ""), policy, upstream.pods is not None)
        standing = state.standings.take(self._stack, name, terms, begin)
        zero_of_target(state.metrics, *name)
        self.standings[name] = standing
        return standing


def _pooled(
    state: ProcessState, notices: TargetNotices, policy: BreakerPolicy, name: tuple[str, str]
) -> ModelState:
    """Returns the shared state of a model whose upstream has several servers."""
    from sluice.routing.pooled import PooledHealth, PooledLoad

    def gone(address: str) -> None:
        state.notices.forget(("breaker", *name, address))

    health = PooledHealth(state.clock, policy, notices, server_watcher=notices.of_server, server_gone=gone)
    return ModelState(health, PooledLoad(), notices)


def forward_of(upstream: Upstream, backend: Backend) -> Allowed:
    """Returns the callers' headers that are forwarded to an upstream: those that its backend names
    (`forwards`), and those of its option `forward`."""
    of_dialect: Allowed = getattr(backend, "forwards", {})
    return {**of_dialect, **{header.lower(): allowed for header, allowed in upstream.forward.items()}}


def configured_drops_of(upstream: Upstream, spec: TargetConfig) -> frozenset[str]:
    """Returns the names of fields that the configuration itself drops."""
    return frozenset(name for name in (*upstream.drop, *spec.drop) if not name.startswith("!"))


def rules_for(table: ModelTable, spec: TargetConfig, upstream: Upstream, backend: Backend) -> ModelRules:
    """Returns the rules of a target: those of the table, then the upstream's options, then the target's own."""
    host = urlsplit(getattr(backend, "base_url", "")).hostname or ""
    options = [Overrides(of.drop, of.rename, of.default, of.force, of.roles) for of in (upstream, spec)]
    return rules_of(table.rules, options, upstream.backend, host, spec.model, vendor=upstream.vendor)


def _takes_every_call(tiers: list[RoutedTier]) -> bool:
    """Returns whether every call has the same route: there is one target, and it has no conditions."""
    targets = [target for routed in tiers for target in routed.targets]
    spec = targets[0].spec
    pooled = any(routed.pooled for routed in tiers)
    return len(targets) == 1 and spec.vision and spec.tools and spec.context is None and not pooled
