"""What providers say in an error beside its message: shown without accounts, secrets and novels."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.wire.error_fields import MAX_TEXT, fields_of, shown_fields
from sluice.wire.upstream_errors import conceal, upstream_error

OWN = "plain.own_key-of-ours"


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"error": {"message": "No", "param": "x"}, "user_id": "u"}, {"message": "No", "param": "x"}),
        ([{"error": {"code": 400}}], {"code": 400}),
        ({"object": "error", "message": "No", "param": "x"}, {"message": "No", "param": "x"}),
        ({"error": "No", "detail": ["x"]}, {"detail": ["x"]}),
        ("No", {}),
        ([], {}),
        (None, {}),
    ],
)
def test_finds_an_errors_fields(document: Any, fields: dict[str, Any]) -> None:
    assert fields_of(document) == fields


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"a": [1, 0.5, True, None, {"b": "words"}]}, {"a": [1, 0.5, True, None, {"b": "words"}]}),
        ({"user_id": "u", "organization": "o", "metadata": {"consumer": "projects/1"}}, {"metadata": {}}),
        ({"stackTrace": ["x"], "headers": {"x": "y"}, "api_key": "k", "max_tokens": 5}, {"max_tokens": 5}),
        (
            {"details": [{"@type": "type.googleapis.com/google.rpc.DebugInfo", "detail": "x"}]},
            {"details": []},
        ),
        ({"a": f"by {OWN}", OWN: "x", "sk-abcdef1234567890": "x"}, {"a": "by ***"}),
        ({"a": "at http://10.0.0.7:8000/v1"}, {"a": "at ***"}),
        ({"a": "two\nlines\x07"}, {"a": "two\nlines "}),
        ({"a": "x" * (MAX_TEXT + 1), "b": 2**53, "odd name": 1, "": 2}, {}),
    ],
)
def test_shows_what_callers_may_read(fields: dict[str, Any], shown: dict[str, Any]) -> None:
    assert shown_fields(fields, [OWN]) == shown


def test_is_bounded() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = {"a": deep}
    assert "x" not in str(shown_fields(deep))
    assert len(str(shown_fields({f"k{n}": ["y"] * 100 for n in range(1000)}))) < 5000
    assert len(str(shown_fields({f"k{n}": "y " * (MAX_TEXT // 2) for n in range(100)}))) < 5 * MAX_TEXT


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
)


@given(st.dictionaries(st.text(max_size=10), VALUES, max_size=5))
def test_any_document_is_shown_as_json(fields: dict[str, Any]) -> None:
    shown = shown_fields(fields_of(fields))
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown


@pytest.mark.parametrize(
    ("status", "kept"), [(400, True), (429, True), (500, True), (401, False), (402, False)]
)
@pytest.mark.parametrize("same", [False, True])
def test_only_callers_of_the_dialect_get_them_and_none_of_our_account(
    status: int, kept: bool, same: bool
) -> None:
    error = upstream_error(status, {}, msgspec.json.encode({"error": {"message": "No", "param": OWN}}))
    conceal(error, [OWN], same_dialect=same)
    assert error.fields == ({"message": "No", "param": "***"} if kept and same else {})
    assert error.document is None
