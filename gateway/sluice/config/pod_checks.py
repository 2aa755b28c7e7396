"""What has to hold of upstreams that are several servers, and of the tiers that go by their queues."""

from collections.abc import Callable

from sluice.config.problems import Path
from sluice.config.types import Alias, Config, Pods, Tier, Upstream
from sluice.routing.strategies import BY_PODS
from sluice.upstream.names import host_and_port

Problem = Callable[[Path, str], object]


def check_pods(problem: Problem, path: Path, pods: Pods) -> None:
    """Looks at the section itself."""
    for index, address in enumerate(pods.addresses if isinstance(pods.addresses, tuple) else ()):
        if isinstance(address, str):
            try:
                host_and_port(address, 80)
            except ValueError as error:
                problem((*path, "addresses", index), str(error))
    if isinstance(pods.addresses, tuple) and isinstance(pods.max, int) and len(pods.addresses) > pods.max:
        problem((*path, "addresses"), f"has more than {pods.max} servers (`max`)")
    for name, least in (("resolve", 0.1), ("every", 0.05), ("stale", 0.05)):
        value = getattr(pods, name)
        if isinstance(value, float) and value < least:
            problem((*path, name), f"must be at least {least * 1000:g}ms")
    if isinstance(pods.stale, float) and isinstance(pods.every, float) and pods.stale < pods.every:
        problem((*path, "stale"), "must be at least `every`: else all figures are stale before the next ones come")
    if isinstance(pods.metrics, str) and not pods.metrics.startswith("/"):
        problem((*path, "metrics"), 'expected a path, such as "/metrics"')


def check_pooled(problem: Problem, path: Path, upstream: Upstream) -> None:
    """Looks at an upstream that has the section."""
    if not isinstance(upstream.pods, Pods):
        return
    if upstream.proxy is not None:
        problem((*path, "pods"), "servers behind a proxy cannot be asked one by one: leave out `proxy`")
    if upstream.probe is not None:
        problem((*path, "probe"), "the metrics of its `pods` are read anyway: leave it out")
    if "base_url" not in upstream.options:
        problem((*path, "pods"), "needs a backend with a base_url, whose host, port and path its servers have in common")


def check_strategies(problem: Problem, config: Config) -> None:
    """The strategies that go by queues or caches need upstreams with pods."""
    if not isinstance(config.upstreams, dict) or not isinstance(config.aliases, dict):
        return
    without = {name for name, upstream in config.upstreams.items() if isinstance(upstream, Upstream) and upstream.pods is None}
    for name, alias in config.aliases.items():
        for at, tier in enumerate(alias.tiers if isinstance(alias, Alias) and isinstance(alias.tiers, tuple) else ()):
            if not isinstance(tier, Tier) or tier.strategy not in BY_PODS or not isinstance(tier.targets, tuple):
                continue
            for target in tier.targets:
                if getattr(target, "upstream", None) in without:
                    text = f'{tier.strategy} needs servers whose queues are known: "{target.upstream}" has no `pods`'
                    problem(("aliases", name, "tiers", at, "strategy"), text)
