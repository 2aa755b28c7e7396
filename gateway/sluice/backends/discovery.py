"""Plugins by entry point: Structs that any distribution may declare, whose fields are options in the configuration."""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def entries(group: str) -> dict[str, "EntryPoint"]:
    """What is declared in this environment, by name: ours and everyone's."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def struct_of(group: str, name: str, what: str) -> type[msgspec.Struct]:
    """The one called `name`. Raises LookupError, saying which there are or why it cannot be loaded."""
    found = entries(group)
    if name not in found:
        known = ", ".join(sorted(found)) or "none (is the distribution installed?)"
        raise LookupError(f'no {what} "{name}"; installed: {known}')
    try:
        loaded = found[name].load()
    except Exception as error:  # a plugin's import may fail in any way; the file that names it is told
        raise LookupError(f'{what} "{name}" cannot be loaded: {type(error).__name__}: {error}') from error
    if not (isinstance(loaded, type) and issubclass(loaded, msgspec.Struct)):
        raise LookupError(f'{what} "{name}" cannot be loaded: {loaded!r} is not a msgspec Struct')
    return loaded
