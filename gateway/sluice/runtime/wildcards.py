"""Aliases that stand for all names that begin alike: the route of each, made when it is first asked for.

The part behind the prefix comes from callers and goes to upstreams as the model, so it is bounded in length and characters, and
cannot climb in a URL's path. It is never a metric's label, nor a key of usage: those have the alias and the target as they are
configured.
"""

import re
from collections.abc import Callable, Iterable

from sluice.config.types import covering
from sluice.proxy.target import Route

KEPT = 512
"""Routes that are kept; with more models than that all are forgotten and made anew."""
may_be_a_model = re.compile(r"(?!.*(?:\.\.|//))[A-Za-z0-9](?:[A-Za-z0-9._:/@+-]{0,126}[A-Za-z0-9._:@+-])?\Z").match


class Wildcards:
    """The wildcards among `names`. `build` makes the route of a configured name and the name that a caller gave."""

    def __init__(self, names: Iterable[str], build: Callable[[str, str], Route]) -> None:
        self._names = [name for name in names if name.endswith("*")]
        self._build = build
        self._kept: dict[str, Route] = {}

    def route_of(self, called: str, may: Callable[[str], bool]) -> Route | None:
        """The route of a name that is no alias; None where no wildcard has it or its caller may not use it. Nothing is made for
        callers who may not."""
        if not self._names:
            return None
        found = self._kept.get(called)
        if found is not None:
            return found
        name = covering(self._names, called)
        if not name or not may_be_a_model(called[len(name) - 1 :]) or not may(called):
            return None
        if len(self._kept) >= KEPT:
            self._kept.clear()
        route = self._kept[called] = self._build(name, called)
        return route
