"""Adapts the JSON Schema of an answer to what Anthropic and Bedrock can compile. Pure functions.

They support a part of JSON Schema and refuse the rest with status 400 (BerriAI/litellm#35811,
agentjido/req_llm#302): every object must have `additionalProperties: false`, and bounds of numbers, texts and
arrays are not supported. As in Anthropic's SDKs, unsupported keywords are moved into the description of their
schema, so that the model still reads them; a list of alternatives (`oneOf`) becomes `anyOf`. A schema whose
objects may have any property names is refused with an error, since without them the answer would be another.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from sluice.errors import BadRequest

Schema = dict[str, Any]
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_KEPT = frozenset({"type", "enum", "const", "default", "title", "description", "$ref", "required"})
_BY_NAME = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "allOf")
_SILENT = frozenset({"$schema", "$id", "$comment", "strict"})
"""Keywords that do not constrain the answer."""
MAX_LEVELS = 200


def answer_schema(schema: Mapping[str, Any]) -> Schema:
    """Returns the adapted schema. Raises BadRequest for keywords that a description cannot replace."""
    found: Schema = _fitted(schema, 0)
    return found


def _fitted(schema: Any, level: int) -> Any:
    """Returns a schema, and all schemas within it, in the supported form."""
    if not isinstance(schema, Mapping):
        return schema
    if level > MAX_LEVELS:
        raise BadRequest("The schema of response_format is too deep for this model", param="response_format")
    found: Schema = {}
    refused: Schema = {}
    for name, value in schema.items():
        if name in _KEPT:
            found[name] = value
        elif name in _BY_NAME and isinstance(value, Mapping):
            found[name] = {key: _fitted(inner, level + 1) for key, inner in value.items()}
        elif name in _LISTS and isinstance(value, list):
            found[name] = [_fitted(inner, level + 1) for inner in value]
        elif name == "oneOf" and isinstance(value, list) and "anyOf" not in schema:
            found["anyOf"] = [_fitted(inner, level + 1) for inner in value]
        elif name == "items":
            found[name] = _fitted(value, level + 1)
        elif (name == "format" and isinstance(value, str) and value in FORMATS) or (
            name == "minItems" and value in (0, 1)
        ):
            found[name] = value
        elif name not in _SILENT and name != "additionalProperties":
            refused[name] = value
    if _is_object(schema):
        if isinstance(others := schema.get("additionalProperties"), Mapping) and not schema.get("properties"):
            raise BadRequest(
                "response_format: an object with names of any kind (additionalProperties) cannot be given to this model",
                param="response_format",
            )
        if isinstance(others, Mapping):
            refused["additionalProperties"] = others
        found["additionalProperties"] = False
    if refused:
        rule = f"Must match: {msgspec.json.encode(refused).decode()}"
        text = found.get("description")
        found["description"] = f"{text}\n\n{rule}" if isinstance(text, str) and text else rule
    return found


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
