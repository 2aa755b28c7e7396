"""Shows the configured maxima as gauges: limits, budgets, queues, connections. Dashboards and alerts compare
with them.
"""

from collections.abc import Iterator
from typing import Literal

from sluice.config.resources import windows_by_resource
from sluice.config.types import CallLimits, Config
from sluice.policies.end_users import END_USER
from sluice.policies.scopes import KEY_ALIAS, TEAM, key_alias
from sluice.telemetry.metrics import Metrics

Gauge = Literal["limit_rate", "limit_capacity", "queue_length_max", "upstream_connections_max"]
Maxima = dict[tuple[Gauge, tuple[str, ...]], float]


def show_maxima(metrics: Metrics, config: Config, config_before: Config | None = None) -> None:
    """Shows the maxima of `config`, and removes those that only `config_before` had."""
    now = maxima_of(config)
    if config_before is not None:
        for name, labels in maxima_of(config_before).keys() - now.keys():
            metrics.forget_one(name, *labels)
    for (name, labels), value in now.items():
        metrics.zero(name, *labels).set(value)


def maxima_of(config: Config) -> Maxima:
    """Returns the values by gauge and labels. Limits of keys are included only if `metrics.key_label` is
    set."""
    found: Maxima = {}
    for name, upstream in config.upstreams.items():
        found["upstream_connections_max", (name,)] = upstream.max_connections
    for name, alias in config.aliases.items():
        if alias.queue is not None:
            found["queue_length_max", (name,)] = alias.queue.size
    if config.limits.address is not None:
        found |= _limits("address", "", CallLimits(requests=config.limits.address))
    for scope, name, limits in _owners(config):
        found |= _limits(scope, name, limits)
    return found


def _owners(config: Config) -> Iterator[tuple[str, str, CallLimits]]:
    """Yields everything that has limits: the scope, the name within it, the limits."""
    yield "overall", "", config.limits.overall
    if config.limits.end_users is not None:
        yield END_USER, "", config.limits.end_users
    for scope, owners in (
        ("tenant", config.tenants),
        (TEAM, config.teams),
        ("alias", config.aliases),
        ("upstream", config.upstreams),
    ):
        for name, owner in owners.items():
            yield scope, name, owner.limits
    if config.metrics.key_label:
        for key in config.keys:
            yield "key", key.id, key.limits
            for alias, limits in key.limits.aliases.items():
                yield KEY_ALIAS, key_alias(key.id, alias), limits


def _limits(scope: str, name: str, limits: CallLimits) -> Maxima:
    """Yields the gauges of one owner. A window is named by its seconds, a budget's by its period."""
    found: Maxima = {}
    for resource, windows in windows_by_resource(limits):
        for limit in windows:
            labels = (scope, name, resource.name, f"{limit.rate.window:g}")
            found["limit_rate", labels] = float(limit.rate)
            found["limit_capacity", labels] = limit.capacity
    if limits.streams is not None:
        found["limit_capacity", (scope, name, "streams", "")] = limits.streams
    if limits.budget is not None:
        for period in ("day", "week", "month"):
            dollars = getattr(limits.budget, period)
            if dollars is not None:
                found["limit_capacity", (scope, name, "budget", period)] = dollars
    return found
