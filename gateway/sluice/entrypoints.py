"""Plugins by entry point: objects of installed distributions (the gateway's own and others), loaded by name
when they are needed."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@lru_cache(8)
def installed(group: str) -> dict[str, "EntryPoint"]:
    """Returns the entry points of this environment by name. The distributions are read once per process."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def load(group: str, kind: str, name: str) -> Any:
    """Returns the object of an entry point; `kind` is its name in messages ("backend"). Raises LookupError,
    which says which ones there are or why it cannot be loaded."""
    there = installed(group)
    if name not in there:
        known = ", ".join(sorted(there)) or "none (is the distribution installed?)"
        raise LookupError(f'no {kind} "{name}"; installed: {known}')
    try:
        return there[name].load()
    except Exception as error:  # a plugin's import may fail in any way; the error names the plugin
        raise LookupError(f'{kind} "{name}" cannot be loaded: {type(error).__name__}: {error}') from error
