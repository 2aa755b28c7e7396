"""Targets of upstreams with one server, for tests of routing."""

from collections.abc import Callable
from typing import Any

from sluice.config.types import Strategy
from sluice.config.types import Target as Spec
from sluice.routing.failover import queue_of
from sluice.routing.health import BreakerPolicy, Health, Load
from sluice.routing.strategies import NO_TRAITS, CallTraits, RoutedTier


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Target:
    def __init__(
        self, name: str, weight: float = 1.0, clock: Callable[[], float] = lambda: 0.0, **spec: Any
    ) -> None:
        self.name = self.label = name
        self.spec = Spec(upstream=name, model="m", weight=weight, **spec)
        self.health = Health(clock, BreakerPolicy(failures=1))
        self.load = Load()

    def __repr__(self) -> str:
        return self.name


def queue(
    *tiers: list[Target], traits: CallTraits = NO_TRAITS, strategy: Strategy = "weighted"
) -> list[Target]:
    return queue_of([RoutedTier(tier, strategy) for tier in tiers], traits, lambda: 0.5)


def names(targets: list[Target]) -> list[str]:
    return [target.name for target in targets]
