"""The installed frontends: entry points `sluice.frontends`. Only those that are switched on are imported."""

from collections.abc import Iterable
from itertools import product
from typing import cast

from sluice import entrypoints
from sluice.frontends import Frontend, shape_of

GROUP = "sluice.frontends"


def installed() -> list[str]:
    """Returns the names of the installed frontends, in alphabetical order."""
    return sorted(entrypoints.installed(GROUP))


def find_frontend(name: str) -> Frontend:
    """Returns the frontend called `name`. Raises LookupError, listing those that exist, or why it cannot be
    loaded."""
    found = entrypoints.load(GROUP, "frontend", name)
    called = getattr(found, "name", None)
    if not isinstance(found, type) or called != name:
        raise LookupError(
            f'frontend "{name}" cannot be loaded: {found!r} is not a class whose name is "{name}"'
        )
    return cast(Frontend, found())


def conflicts(frontends: Iterable[Frontend]) -> list[str]:
    """Finds ambiguous routes: those that two of these frontends have, without a marker header or with the
    same one."""
    owners: dict[tuple[str, str, str], str] = {}
    found = []
    for frontend in frontends:
        for route in frontend.routes():
            for method, path in product(route.methods, (route.path, *route.also)):
                shape = shape_of(path)
                owner = owners.setdefault((method, shape, frontend.marker), frontend.name)
                if owner != frontend.name:
                    found.append(
                        f'frontends "{owner}" and "{frontend.name}" both answer {method} {path}: switch one of them off'
                    )
    return found
