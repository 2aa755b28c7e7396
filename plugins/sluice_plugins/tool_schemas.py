"""Adapts the JSON Schema of a tool's arguments to what vendors accept. Pure functions.

OpenAI, Azure and DeepSeek refuse a schema without `"type": "object"`, OpenAI also one without `properties`
(langchain-ai/langchain-mcp-adapters#137, farion1231/cc-switch#5490). Anthropic, Bedrock and OpenAI refuse
`anyOf`, `oneOf` and `allOf` at the top level (anomalyco/opencode#35516): the properties of all branches are
merged into one object, and the branches are appended as JSON to the tool's description, so that the model
still reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.model.chat import Tool

Schema = dict[str, Any]
BRANCHES = ("anyOf", "oneOf", "allOf")
_NAMED = ("properties", "$defs", "definitions")
_MUST = "The arguments must also match this JSON Schema:"


def object_schema(parameters: Mapping[str, Any] | None) -> Schema:
    """Returns the schema of an object that has `properties`, if need be an empty one."""
    schema = dict(parameters or {})
    if schema.get("type") != "object":
        schema = {"type": "object"} | {name: value for name, value in schema.items() if name != "type"}
    if type(schema.get("properties")) is not dict:
        schema["properties"] = {}
    return schema


def is_closed(schema: Any) -> bool:
    """Returns whether OpenAI accepts this schema with `strict`: every object in it must be closed
    (`additionalProperties` false), and all its properties required. Anthropic's tools may have optional ones.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all([is_closed(inner) for inner in schema])
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, dict):
        named = properties if isinstance(properties, dict) else {}
        if schema.get("additionalProperties") is not False or _names(schema.get("required")) != named.keys():
            return False
    groups = [inner for name in _NAMED if isinstance(inner := schema.get(name), dict)]
    inner_schemas = [value for group in groups for value in group.values()]
    return is_closed([*inner_schemas, *[schema[name] for name in ("items", *BRANCHES) if name in schema]])


def plain_tool(tool: Tool) -> tuple[str, Schema]:
    """Returns the description and the schema of a tool, without branches at the schema's top level."""
    schema = object_schema(tool.parameters)
    branches = {name: schema.pop(name) for name in BRANCHES if name in schema}
    if not branches:
        return tool.description, schema
    for name, given in branches.items():
        _merge(schema, given if type(given) is list else [], every=name == "allOf")
    rule = f"{_MUST} {msgspec.json.encode(branches).decode()}"
    return f"{tool.description}\n\n{rule}" if tool.description else rule, schema


def _merge(schema: Schema, branches: Sequence[Any], *, every: bool) -> None:
    """Merges the branches' properties into the schema. `every`: all branches apply (allOf), else one of
    them."""
    properties = dict(schema["properties"])
    own = frozenset(properties)
    found = [_resolved(branch, schema) for branch in branches]
    for branch in found:
        inner = branch.get("properties")
        for name, value in inner.items() if type(inner) is dict else ():
            if name not in properties:
                properties[name] = value
            elif name not in own and properties[name] != value:
                known = properties[name]
                others = known["anyOf"] if type(known) is dict and known.keys() == {"anyOf"} else [known]
                properties[name] = {"anyOf": [*others, *([value] if value not in others else [])]}
    required = [_names(branch.get("required")) for branch in found]
    if required:
        more = set.union(*required) if every else set.intersection(*required)
        named = _names(schema.get("required")) | {name for name in more if name in properties}
        if named:
            schema["required"] = sorted(named)
    schema["properties"] = properties


def _names(required: Any) -> set[str]:
    return {name for name in required if type(name) is str} if type(required) is list else set()


def _resolved(branch: Any, schema: Schema) -> Schema:
    """Returns the branch, or the definition that its `$ref` names; {} if there is none."""
    if type(branch) is not dict:
        return {}
    match branch.get("$ref"):
        case str(place) if place.startswith(("#/$defs/", "#/definitions/")):
            _, group, name = place.split("/", 2)
            held = schema.get(group)
            target = held.get(name) if type(held) is dict else None
            return target if type(target) is dict else {}
        case _:
            return branch
