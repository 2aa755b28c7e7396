"""Wildcard aliases stand for all names with their prefix: the route of each name is made at its first use.

The rest of the name comes from callers and is sent to upstreams as the model, so its length and characters
are bounded, and it cannot climb in a URL's path. It is never a label of a metric or a key of usage: those
have the configured alias and target.
"""

import re
from collections.abc import Callable, Iterable

from sluice.config.types import covering
from sluice.proxy.target import Route

MAX_CACHED_ROUTES = 512
"""Maximum routes that are cached; beyond it the cache is emptied."""
may_be_a_model = re.compile(
    r"(?!.*(?:\.\.|//))[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]{0,126}[A-Za-z0-9._:@+-])?\Z"
).match


class Wildcards:
    """The wildcards among `names`. `build` makes the route, given the configured name and the caller's."""

    def __init__(self, names: Iterable[str], build: Callable[[str, str], Route]) -> None:
        self._names = [name for name in names if name.endswith("*")]
        self._build = build
        self._kept: dict[str, Route] = {}

    def route_of(self, called: str, may: Callable[[str], bool]) -> Route | None:
        """Returns the route of a name that is no alias; None if no wildcard covers it, or the caller may not
        use it. Nothing is made for callers who may not.
        """
        if not self._names or not may(called):
            return None
        found = self._kept.get(called)
        if found is not None:
            return found
        name = covering(self._names, called)
        if not name or not may_be_a_model(called[len(name) - 1 :]):
            return None
        if len(self._kept) >= MAX_CACHED_ROUTES:
            self._kept.clear()
        route = self._kept[called] = self._build(name, called)
        return route
