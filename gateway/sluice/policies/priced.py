"""Refuses calls of models without a known price (`prices.unknown: refuse`), before they take or cost
anything."""

from collections.abc import Callable

from sluice.errors import Forbidden
from sluice.pricing.prices import price_at
from sluice.proxy.call import Call


class Priced:
    """A policy that only refuses. `wall` gives seconds since the epoch."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall

    def __call__(self, call: Call) -> None:
        """Raises Forbidden if none of the route's targets has a price; those without one are skipped
        later."""
        now = self._wall()
        if all(price_at(target.prices, now) is None for target in call.route.targets):
            raise Forbidden("What this model costs is not known", code="price_unknown")
