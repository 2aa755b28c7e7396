"""Tags of calls: where their values come from, and what becomes of values that nobody should count."""

from typing import Any

import pytest

from sluice.config.types import Tag
from sluice.model.chat import ChatRequest
from sluice.usage.tags import MAX_VALUE_LENGTH, OTHER, Tags


def read(tag: Tag, headers: dict[str, str] | None = None, metadata: Any = None, wire: bool = True) -> str:
    chat = ChatRequest("openai", "chat", (), wire={"metadata": metadata} if wire else None)
    [(name, value)] = Tags({"project": tag}, lambda name, value, most: value).of(chat, headers or {})
    assert name == "project"
    return value


BOTH = Tag(header="X-Project", metadata="project")


@pytest.mark.parametrize(
    ("headers", "metadata", "value"),
    [
        ({"x-project": "alpha"}, {"project": "beta"}, "alpha"),
        ({"x-project": " "}, {"project": " beta "}, "beta"),
        ({}, {"project": 17}, "17"),
        ({}, {"project": 10**400}, OTHER),
        ({}, {"project": True}, ""),
        ({}, {"project": ["a"]}, ""),
        ({}, {"project": None}, ""),
        ({}, {}, ""),
        ({}, None, ""),
        ({}, "project", ""),
        ({"x-project": "a" * MAX_VALUE_LENGTH}, {}, "a" * MAX_VALUE_LENGTH),
        ({"x-project": "a" * (MAX_VALUE_LENGTH + 1)}, {}, OTHER),
        ({}, {"project": "a\nb"}, OTHER),
        ({"x-project": "grün".encode().decode("latin-1")}, {}, "grün"),  # as a parser reads UTF-8
        ({"x-project": "grün"}, {}, "grün"),
        ({}, {"project": "\ud800"}, OTHER),
    ],
)
def test_the_header_decides_then_the_metadata(headers: dict[str, str], metadata: Any, value: str) -> None:
    assert read(BOTH, headers, metadata) == value


def test_a_request_without_a_body_of_json_has_headers_alone() -> None:
    assert read(BOTH, {"x-project": "alpha"}, wire=False) == "alpha"
    assert read(BOTH, wire=False) == ""


def test_only_the_values_that_are_allowed_are_kept_apart() -> None:
    tag = Tag(header="x-project", values=("alpha", "beta"))
    assert [read(tag, {"x-project": value}) for value in ("alpha", "gamma", "")] == ["alpha", OTHER, ""]
