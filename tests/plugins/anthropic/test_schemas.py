"""Schemas of answers, as Anthropic and Bedrock take them."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest
from sluice_plugins.anthropic.schemas import answer_schema
from tests.matrix.lanes import UPSTREAMS, parsed, sent

CLOSED = {"additionalProperties": False}


@pytest.mark.parametrize(
    ("given", "fitted"),
    [
        ({"type": "object"}, {"type": "object", **CLOSED}),
        ({"type": "object", "additionalProperties": True}, {"type": "object", **CLOSED}),
        (
            {"properties": {"a": {"type": "object"}}},
            {"properties": {"a": {"type": "object", **CLOSED}}, **CLOSED},
        ),
        (
            {"type": "array", "items": {"type": ["object", "null"]}},
            {"type": "array", "items": {"type": ["object", "null"], **CLOSED}},
        ),
        (
            {"type": "integer", "minimum": 1, "maximum": 5},
            {"type": "integer", "description": 'Must match: {"minimum":1,"maximum":5}'},
        ),
        (
            {"type": "string", "description": "A name.", "maxLength": 9, "format": "color"},
            {"type": "string", "description": 'A name.\n\nMust match: {"maxLength":9,"format":"color"}'},
        ),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 1}),
        ({"type": "array", "minItems": 2}, {"type": "array", "description": 'Must match: {"minItems":2}'}),
        (
            {"oneOf": [{"type": "object"}, {"type": "null"}]},
            {"anyOf": [{"type": "object", **CLOSED}, {"type": "null"}]},
        ),
        (
            {"$ref": "#/$defs/N", "$defs": {"N": {"type": "object", "properties": {"n": {"const": 1}}}}},
            {
                "$ref": "#/$defs/N",
                "$defs": {"N": {"type": "object", "properties": {"n": {"const": 1}}, **CLOSED}},
            },
        ),
        ({"$schema": "https://x", "enum": [1, "a", None]}, {"enum": [1, "a", None]}),
        (
            {"properties": {"minimum": {"type": "string"}, "format": True}},
            {"properties": {"minimum": {"type": "string"}, "format": True}, **CLOSED},
        ),
        (
            {"type": "string", "format": ["date"]},
            {"type": "string", "description": 'Must match: {"format":["date"]}'},
        ),
        (
            {"type": "string", "nullable": True},
            {"type": "string", "description": 'Must match: {"nullable":true}'},
        ),
    ],
)
def test_a_schema_keeps_what_they_compile_and_says_the_rest(given: Any, fitted: Any) -> None:
    assert answer_schema(given) == fitted
    assert answer_schema(fitted) == fitted


def test_what_no_description_can_stand_for_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        answer_schema({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {}}}})
    assert caught.value.param == "response_format"
    deep: Any = {}
    for _ in range(1000):
        deep = {"items": deep}
    with pytest.raises(BadRequest, match="too deep"):
        answer_schema(deep)


@pytest.mark.parametrize("upstream", ["anthropic", "bedrock"])
def test_a_schema_that_openai_takes_is_fitted(upstream: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], "response_format": wanted}
    seen = sent(UPSTREAMS[upstream], parsed("openai", json.dumps(body).encode(), stream=True))
    found = (
        seen["output_config"]["format"]["schema"]
        if upstream == "anthropic"
        else json.loads(seen["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"])
    )
    assert found == {
        "type": "object",
        "properties": {"a": {"type": "integer", "description": 'Must match: {"minimum":1}'}},
        **CLOSED,
    }
