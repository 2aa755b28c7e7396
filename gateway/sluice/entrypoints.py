"""Plugins by entry point: what installed distributions declare, ours and everyone's, loaded by name and only
when asked for."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@lru_cache(8)
def installed(group: str) -> dict[str, "EntryPoint"]:
    """The entry points of this environment, by name; the distributions are read once in a process."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def load(group: str, kind: str, name: str) -> Any:
    """The object behind an entry point; `kind` is what messages call it ("backend").

    Raises LookupError, saying which there are or why it cannot be loaded.
    """
    there = installed(group)
    if name not in there:
        known = ", ".join(sorted(there)) or "none (is the distribution installed?)"
        raise LookupError(f'no {kind} "{name}"; installed: {known}')
    try:
        return there[name].load()
    except Exception as error:  # a plugin's import may fail in any way; the file that names it is told
        raise LookupError(f'{kind} "{name}" cannot be loaded: {type(error).__name__}: {error}') from error
