"""Checks upstreams with several servers, and the tiers that are ordered by the servers' queues."""

from collections.abc import Callable
from importlib.util import find_spec
from ipaddress import ip_network

from sluice.config.problems import Path
from sluice.config.types import Alias, Config, Picker, Pods, Tier, Upstream
from sluice.routing.strategies import BY_PODS
from sluice.upstream.names import host_and_port
from sluice.upstream.tls import picker_tls

Problem = Callable[[Path, str], object]


def check_pods(problem: Problem, path: Path, pods: Pods) -> None:
    """Checks the section itself."""
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
        problem(
            (*path, "stale"), "must be at least `every`: else all figures are stale before the next ones come"
        )
    if isinstance(pods.metrics, str) and not pods.metrics.startswith("/"):
        problem((*path, "metrics"), 'expected a path, such as "/metrics"')


def check_pooled(problem: Problem, path: Path, upstream: Upstream) -> None:
    """Checks an upstream that has the section."""
    if not isinstance(upstream.pods, Pods):
        return
    if upstream.proxy is not None:
        problem((*path, "pods"), "servers behind a proxy cannot be asked one by one: leave out `proxy`")
    if upstream.probe is not None:
        problem((*path, "probe"), "the metrics of its `pods` are read anyway: leave it out")
    if "base_url" not in upstream.options:
        problem(
            (*path, "pods"),
            "needs a backend with a base_url, whose host, port and path its servers have in common",
        )


def check_picker(problem: Problem, path: Path, upstream: Upstream) -> None:
    """Checks an upstream whose servers an endpoint picker chooses."""
    picker = upstream.picker
    if upstream.vendor == "inference_pool" and picker is None:
        problem((*path, "picker"), "is missing: the address of the pool's endpoint picker")
    if not isinstance(picker, Picker):
        return
    if find_spec("h2") is None:
        problem(
            (*path, "picker"), "gRPC needs h2, which is not installed: pip install 'sluice-gateway[http2]'"
        )
    if upstream.pods is not None:
        problem((*path, "picker"), "either the picker chooses, or the gateway among `pods`")
    if upstream.proxy is not None:
        problem((*path, "picker"), "servers behind a proxy cannot be asked one by one: leave out `proxy`")
    if "base_url" not in upstream.options:
        problem(
            (*path, "picker"),
            "needs a backend with a base_url, whose host and path requests to its servers have",
        )
    if isinstance(picker.timeout, float) and picker.timeout <= 0:
        problem((*path, "picker", "timeout"), "must be more than 0")
    if picker.tls is False and (picker.ca is not None or picker.verify is False):
        problem((*path, "picker", "tls"), "ca and verify are about TLS: write `tls: true`")
    if isinstance(picker.address, str):
        try:
            host_and_port(picker.address, 9002)
        except ValueError:
            problem((*path, "picker", "address"), "expected host:port, such as llama-epp.models.svc:9002")
    for index, network in enumerate(picker.networks if isinstance(picker.networks, tuple) else ()):
        try:
            ip_network(network)
        except ValueError:
            problem(
                (*path, "picker", "networks", index), "expected a network, such as 10.8.0.0/14 or fd00::/8"
            )
    if isinstance(picker.ca, str) and picker.tls is True:
        try:
            picker_tls(picker)
        except (OSError, ValueError) as error:
            problem((*path, "picker", "ca"), f"cannot be used: {error}")


def check_strategies(problem: Problem, config: Config) -> None:
    """Reports strategies that need upstreams with `pods` where these have none."""
    if not isinstance(config.upstreams, dict) or not isinstance(config.aliases, dict):
        return
    without = {
        name
        for name, upstream in config.upstreams.items()
        if isinstance(upstream, Upstream) and upstream.pods is None
    }
    for name, alias in config.aliases.items():
        for at, tier in enumerate(
            alias.tiers if isinstance(alias, Alias) and isinstance(alias.tiers, tuple) else ()
        ):
            if (
                not isinstance(tier, Tier)
                or tier.strategy not in BY_PODS
                or not isinstance(tier.targets, tuple)
            ):
                continue
            for target in tier.targets:
                if getattr(target, "upstream", None) in without:
                    text = f'{tier.strategy} needs servers whose queues are known: "{target.upstream}" has no `pods`'
                    problem(("aliases", name, "tiers", at, "strategy"), text)
