"""Adapts JSON Schemas to what Gemini accepts. Pure functions.

Gemini accepts references, but no keyword beside one ("$ref was set alongside unsupported fields"), and finds
definitions only in `$defs`. pydantic writes a description beside a reference, older tools write
`definitions`.

https://ai.google.dev/api/generate-content#GenerationConfig (responseJsonSchema); anomalyco/opencode#12295,
su-kaka/gcli2api#374, google-gemini/gemini-cli#13326
"""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
_OLD, _NEW = "#/definitions/", "#/$defs/"
MAX_DEPTH = 64
"""Levels that are adapted; deeper parts of a schema are left unmodified."""
MAX_VALUES = 100_000
"""After so many values definitions are no longer copied, since each copy may refer to further definitions."""


def google_schema(schema: Mapping[str, Any]) -> Schema:
    """Returns the schema with nothing beside references: keywords beside one are merged into a copy of its
    target."""
    found = dict(schema)
    definitions: Schema = {}
    for name in ("definitions", "$defs"):
        if isinstance(group := found.get(name), dict):
            definitions |= group
            del found[name]
    if not definitions:
        return found
    walk = _Walk(definitions)
    defined = {name: walk(value, 1) for name, value in definitions.items()}
    return {**walk.each(found, 1), "$defs": defined}


class _Walk:
    def __init__(self, definitions: Schema) -> None:
        self._definitions = definitions
        self._within: list[str] = []  # names of definitions that are being copied, to detect cycles
        self._values = 0  # values visited so far

    def __call__(self, value: Any, depth: int) -> Any:
        self._values += 1
        if depth > MAX_DEPTH:
            return value
        if isinstance(value, list):
            return [self(inner, depth + 1) for inner in value]
        if not isinstance(value, dict):
            return value
        match value.get("$ref"):
            case str(place):
                return self._reference(place.replace(_OLD, _NEW, 1), value, depth)
            case _:
                return self.each(value, depth)

    def each(self, schema: Schema, depth: int) -> Schema:
        return {name: self(value, depth + 1) for name, value in schema.items()}

    def _reference(self, place: str, value: Schema, depth: int) -> Any:
        beside = {name: inner for name, inner in value.items() if not name.startswith("$")}
        name = place.removeprefix(_NEW)
        definition = self._definitions.get(name)
        if not isinstance(definition, dict):
            return value
        if not beside or name in self._within or self._values > MAX_VALUES:
            return {"$ref": place}
        self._within.append(name)
        found = self({**definition, **beside}, depth)
        self._within.pop()
        return found
