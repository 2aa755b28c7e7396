"""Google's Schema -> JSON Schema.

Its types are in upper case, `nullable` is a type of its own in JSON Schema, numbers of 64 bits may be texts
(as JSON of Protocol Buffers is), and names may be in snake_case. A JSON Schema comes out as it went in.

Standard: https://ai.google.dev/api/caching#Schema
"""

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "any_of": "anyOf", "min_items": "minItems", "max_items": "maxItems", "min_length": "minLength", "max_length": "maxLength",
    "min_properties": "minProperties", "max_properties": "maxProperties", "additional_properties": "additionalProperties",
    "defs": "$defs", "ref": "$ref", "property_ordering": "propertyOrdering",
}  # fmt: skip
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_LEFT_OUT = frozenset({"nullable", "propertyOrdering", "example"})
_BY_NAME = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_WITHIN = frozenset({"items", "additionalProperties", "not"})


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON Schema of a Schema of Google's."""
    found: dict[str, Any] = {}
    for given, value in schema.items():
        name = _NAMES.get(given, given)
        if name not in _LEFT_OUT:
            _put(found, name, value)
    if found.get("format") == "enum":
        del found["format"]
    if schema.get("nullable") is True:
        _allow_null(found)
    return found


def _put(found: dict[str, Any], name: str, value: Any) -> None:
    if name == "type":
        kind = _types(value)
        if kind:
            found[name] = kind
    elif name in _BY_NAME and isinstance(value, Mapping):
        found[name] = {key: _schema(inner) for key, inner in value.items()}
    elif name in _LISTS and isinstance(value, list):
        found[name] = [_schema(inner) for inner in value]
    elif name in _WITHIN:
        found[name] = _schema(value)
    elif (
        name in _COUNTS and isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16
    ):
        found[name] = int(value)
    else:
        found[name] = value


def _schema(value: Any) -> Any:
    return json_schema(value) if isinstance(value, Mapping) else value


def _types(value: Any) -> Any:
    """Returns the type; "" for one that is not specified."""
    if isinstance(value, list):
        return [_types(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return "" if value == "TYPE_UNSPECIFIED" else value.lower()


def _allow_null(found: dict[str, Any]) -> None:
    kind = found.get("type")
    if isinstance(kind, str) and kind != "null":
        found["type"] = [kind, "null"]
    elif "anyOf" in found and {"type": "null"} not in found["anyOf"]:
        found["anyOf"] = [*found["anyOf"], {"type": "null"}]
    if isinstance(found.get("enum"), list) and None not in found["enum"]:
        found["enum"] = [*found["enum"], None]
