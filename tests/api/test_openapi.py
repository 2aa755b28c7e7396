"""The OpenAPI document: complete, and sound in itself."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sluice.api.cors import RENEW
from sluice.api.openapi import document
from sluice.frontends import Head, shape_of
from sluice.frontends.widget.dialect import Widget
from tests.api.serving import served

METHODS = {"get", "post", "put", "patch", "delete"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(target)}:
            yield target
        case dict():
            for inner in value.values():
                yield from references(inner)
        case list():
            for inner in value:
                yield from references(inner)


async def test_it_describes_every_route_that_is_served_and_no_other() -> None:
    """Dialects that other vendors describe are not repeated."""
    async with served() as there:
        described = {
            (shape, method.lower())
            for shape, place in there.clients.table.shapes().items()
            for method, choices in place.methods.items()
            if any(
                choice.frontend is None or choice.frontend.name in ("openai", "widget") for choice in choices
            )
        }
    assert {(shape_of(path), method) for path, method, _ in operations()} == described


def test_it_is_json_and_of_version_3_1() -> None:
    again = json.loads(json.dumps(document(), allow_nan=False))
    assert again == document()
    assert again["openapi"] == "3.1.0"
    assert set(again) <= {"openapi", "jsonSchemaDialect", "info", "servers", "tags", "paths", "components"}


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    doc = document()
    used = set(references(doc))
    there = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "headers", "responses")
        for name in doc["components"][kind]
    }
    assert used == there


def test_every_operation_is_sound() -> None:
    doc = document()
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)
    for path, method, operation in operations():
        assert method in METHODS
        assert set(operation["tags"]) <= {tag["name"] for tag in doc["tags"]}
        assert {scheme for choice in operation["security"] for scheme in choice} <= set(
            doc["components"]["securitySchemes"]
        )
        assert all(re.fullmatch(r"[1-5]\d\d", status) for status in operation["responses"])
        assert all(
            "$ref" in response or response["description"] for response in operation["responses"].values()
        )
        placed = [
            parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"
        ]
        assert placed == re.findall(r"\{(\w+)\}", path)
        if (
            method == "post"
            and "{id}" not in path
            and path not in (RENEW, "/admin/config/check", "/v1/admin/conversations/reencrypt")
        ):
            assert operation["requestBody"]["required"]
        if method == "post":
            assert {"400", "401", "413", "415", "429"} <= set(operation["responses"])


def test_every_object_has_the_fields_that_it_requires() -> None:
    def check(schema: Any) -> None:
        match schema:
            case {"properties": properties, **rest}:
                assert set(rest.get("required", ())) <= set(properties)
        if isinstance(schema, dict | list):
            for inner in schema.values() if isinstance(schema, dict) else schema:
                check(inner)

    check(document()["components"]["schemas"])


def test_the_models_are_named_where_they_are_known() -> None:
    model = document(["b", "a"])["components"]["schemas"]["ChatTurn"]["properties"]["model"]
    assert model["enum"] == ["a", "b", None]
    assert "enum" not in document()["components"]["schemas"]["ChatTurn"]["properties"]["model"]


@pytest.mark.parametrize("session", ["a", "A.b_c:d-9", "x" * 128])
def test_the_described_session_is_the_one_that_is_taken(session: str) -> None:
    pattern = document()["components"]["schemas"]["ChatTurn"]["properties"]["sessionId"]["pattern"]
    assert re.search(pattern, session)
    assert (
        Widget().streamed(json.dumps({"sessionId": session, "message": "m"}).encode(), Head()).session
        == session
    )


def test_the_examples_are_what_is_really_sent() -> None:
    for _, _, operation in operations():
        for response in operation["responses"].values():
            for content_type, content in response.get("content", {}).items():
                example = content.get("example")
                if content_type == "application/x-ndjson" and "ChatLine" in content["schema"].get("$ref", ""):
                    assert [json.loads(line)["type"] for line in example.splitlines()] == [
                        "start",
                        "token",
                        "done",
                    ]
                if content_type == "text/event-stream":
                    assert example.endswith("data: [DONE]\n\n")
