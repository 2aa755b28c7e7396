"""The JSON Schema of the configuration: current, sound, and telling no secret."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.config.schema import DRAFT, json_schema
from tests.config.test_problems import Fake
from tests.config.test_values import bundled

COMMITTED = Path(__file__).parents[2] / "config" / "schema.json"


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


def test_every_option_is_described() -> None:
    schema = json.loads(COMMITTED.read_text())
    plugged = [
        option["then"]
        for name in ("Upstream", "Credential", "Interceptor")
        for option in schema["$defs"][name]["allOf"]
    ]
    sections = [schema, *schema["$defs"].values(), *plugged]
    bare = [
        name
        for section in sections
        for name, option in section.get("properties", {}).items()
        if option is not True and not option.get("description")
    ]
    assert bare == []


def test_the_committed_schema_is_current() -> None:
    whole = json_schema(bundled(), bundled("sluice.credentials"), interceptors=bundled("sluice.interceptors"))
    assert json.loads(COMMITTED.read_text()) == whole, "run: sluice config schema > config/schema.json"


def test_every_reference_leads_somewhere_and_every_pattern_compiles() -> None:
    schema = json_schema({"fake": Fake})
    assert schema["$schema"] == DRAFT
    for node in nodes(schema):
        if isinstance(reference := node.get("$ref"), str):
            assert reference.removeprefix("#/$defs/") in schema["$defs"]
        if isinstance(pattern := node.get("pattern"), str):
            re.compile(pattern)
            assert r"\Z" not in pattern  # not ECMA-262


def test_units_may_be_numbers_or_text_and_are_described() -> None:
    connect = json_schema()["$defs"]["Timeouts"]["properties"]["connect"]
    assert connect["type"] == ["number", "string"]
    assert connect["default"] == 2
    assert "unit (ms, s, m, h, d)" in connect["description"]
    for text, fits in (("500ms", True), ("${T}", True), ("2 weeks", False)):
        assert bool(re.search(connect["pattern"], text)) is fits


def test_a_backends_options_follow_its_name() -> None:
    upstream = json_schema({"fake": Fake})["$defs"]["Upstream"]
    (rule,) = upstream["allOf"]
    assert rule["if"]["properties"]["backend"] == {"const": "fake"}
    assert rule["then"]["required"] == ["base_url"]
    assert {"base_url", "api_key", "backend", "timeouts"} <= rule["then"]["properties"].keys()
    assert rule["then"]["additionalProperties"] is False
    assert "options" not in upstream["properties"]


def test_every_section_is_described_and_closed() -> None:
    for name, section in json_schema()["$defs"].items():
        assert section["description"], name
        assert section["additionalProperties"] is (name in ("Upstream", "Credential", "Interceptor", "Stage"))


@pytest.mark.parametrize("field", ["store", "secret"])
def test_defaults_of_secrets_are_left_out(field: str) -> None:
    sections = [s for s in json_schema()["$defs"].values() if field in s["properties"]]
    assert sections
    assert all(section["properties"][field].get("default") is None for section in sections)


def test_every_number_has_a_maximum() -> None:
    found = nodes(json.loads(COMMITTED.read_text()))
    assert [
        node for node in found if node.get("type") in ("integer", "number") and "maximum" not in node
    ] == []
