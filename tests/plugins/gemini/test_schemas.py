"""References in schemas, as Gemini takes them: nothing beside them, and definitions in one place."""

import json
import time
from typing import Any

import pytest

from sluice_plugins.gemini.schemas import MAX_VALUES, google_schema

CITY = {"type": "object", "properties": {"name": {"type": "string"}}, "description": "A city"}


def place(**field: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"place": field}}


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (place(type="string"), place(type="string")),
    ({**place(**{"$ref": "#/$defs/City"}), "$defs": {"City": CITY}},
     {**place(**{"$ref": "#/$defs/City"}), "$defs": {"City": CITY}}),
    ({**place(**{"$ref": "#/$defs/City"}, description="Where", default=None), "$defs": {"City": CITY}},
     {**place(**{**CITY, "description": "Where", "default": None}), "$defs": {"City": CITY}}),
    ({**place(**{"$ref": "#/definitions/City"}), "definitions": {"City": CITY}},
     {**place(**{"$ref": "#/$defs/City"}), "$defs": {"City": CITY}}),
    ({**place(anyOf=[{"$ref": "#/$defs/City", "title": "T"}, {"type": "null"}]), "$defs": {"City": CITY}},
     {**place(anyOf=[{**CITY, "title": "T"}, {"type": "null"}]), "$defs": {"City": CITY}}),
    ({**place(**{"$ref": "#/$defs/Odd", "title": "T"}), "$defs": {"City": CITY}},
     {**place(**{"$ref": "#/$defs/Odd", "title": "T"}), "$defs": {"City": CITY}}),
    ({**place(**{"$ref": "https://x/y", "title": "T"}), "$defs": {"City": True}},
     {**place(**{"$ref": "https://x/y", "title": "T"}), "$defs": {"City": True}}),
    ({**place(type="string"), "$defs": {"City": CITY, "Way": {"$ref": "#/$defs/City", "title": "T"}}},
     {**place(type="string"), "$defs": {"City": CITY, "Way": {**CITY, "title": "T"}}}),
    ({"properties": {"$ref": {"type": "string"}}, "$defs": {"City": CITY}},
     {"properties": {"$ref": {"type": "string"}}, "$defs": {"City": CITY}}),
    ({**place(type="string"), "$defs": "odd"}, {**place(type="string"), "$defs": "odd"}),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "expected"), CASES)
def test_a_reference_stands_alone(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    before = json.dumps(schema)
    assert google_schema(schema) == expected
    assert json.dumps(schema) == before


def test_what_refers_to_itself_is_copied_once() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node", "title": "N"}}}
    found = google_schema({**place(**{"$ref": "#/$defs/Node", "title": "P"}), "$defs": {"Node": node}})
    inner = found["properties"]["place"]
    assert (inner["title"], inner["properties"]["next"]) == ("P", {"$ref": "#/$defs/Node"})


def test_copies_are_bounded() -> None:
    twice = {
        f"D{level}": {"anyOf": [{"$ref": f"#/$defs/D{level + 1}", "title": side} for side in "ab"]}
        for level in range(60)
    }
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        deep = {"items": deep}
    start = time.process_time()
    found = google_schema({**place(**{"$ref": "#/$defs/D0", "title": "T"}), "$defs": {**twice, "D60": deep}})
    assert len(json.dumps(found)) < 100 * MAX_VALUES
    assert time.process_time() - start < 5
