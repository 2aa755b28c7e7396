"""Looking into a running gateway's limits: what is left in a bucket, how many places are taken."""

from sluice.limits import Claim, Slot
from sluice.policies.claims import bucket_of
from tests.e2e.gateways import Running


async def left(g: Running, scope: str, name: str, resource: str, number: int = 0) -> float:
    """Units in the bucket of one window, by the limits that stand in the configuration."""
    config = g.runtime.config
    sections = {
        "key": lambda: next(key for key in config.keys if key.id == name).limits,
        "alias": lambda: config.aliases[name].limits,
        "tenant": lambda: config.tenants[name].limits,
        "upstream": lambda: config.upstreams[name].limits,
        "overall": lambda: config.limits.overall,
    }
    windows = getattr(sections[scope](), resource)
    limit = windows[number] if isinstance(windows, tuple) else windows
    claim = Claim(f"{scope}:{name}:{resource}:{number}", bucket_of(limit), 0.0)
    return (await g.runtime.store.take([claim])).levels[0].remaining


async def taken(g: Running, scope: str, name: str) -> int:
    """Places that are held."""
    probe = [Slot(f"{scope}:{name}:streams", 1_000_000, "probe")]
    verdict = await g.runtime.store.take([], probe)
    await g.runtime.store.settle([], probe)
    return 1_000_000 - 1 - int(verdict.levels[0].remaining)
