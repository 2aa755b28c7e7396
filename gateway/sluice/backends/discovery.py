"""Plugins by entry point that are Structs, whose fields are options in the configuration."""

import msgspec

from sluice import entrypoints

INTERCEPTORS = "sluice.interceptors"
STAGES = "sluice.stages"


def struct_of(group: str, name: str, what: str) -> type[msgspec.Struct]:
    """Returns the Struct called `name`. Raises LookupError, which says which ones there are or why it cannot
    be loaded."""
    loaded = entrypoints.load(group, what, name)
    if not (isinstance(loaded, type) and issubclass(loaded, msgspec.Struct)):
        raise LookupError(f'{what} "{name}" cannot be loaded: {loaded!r} is not a msgspec Struct')
    return loaded
