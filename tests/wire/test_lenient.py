"""The second way of reading JSON: each field for what it can be, and surrogate pairs that come in halves."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.wire.jsontext import MAX_DEPTH
from sluice.wire.lenient import (
    Halves,
    encoded,
    fit,
    is_object,
    parse,
    read,
    text_of,
    truth_of,
    whole_characters,
    whole_number,
)

HIGH, LOW, BOTH, LOST = "\ud83d", "\ude00", "\N{GRINNING FACE}", "\N{REPLACEMENT CHARACTER}"


class Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class Inner(msgspec.Struct):
    count: int | None = None


class Outer(msgspec.Struct):
    name: str | None = None
    count: int | None = 0
    ready: bool = False
    inner: Inner | None = None
    inners: list[Inner] | None = None
    said: str | list[Part] | None = None
    anything: Any = None
    raw: msgspec.Raw = msgspec.Raw(b"null")


FITTED: list[tuple[dict[str, Any], dict[str, Any], int]] = [
    ({"name": "a", "count": 1, "other": [1]}, {"name": "a", "count": 1, "other": [1]}, 0),
    ({"name": None, "count": None, "inner": None}, {"name": None, "count": None, "inner": None}, 0),
    ({"name": 7, "count": "7"}, {"name": "7", "count": 7}, 2),
    ({"name": 1.5, "count": 7.0}, {"name": "1.5", "count": 7}, 2),
    ({"name": True, "count": True}, {}, 2),
    ({"name": {"text": "a"}, "count": {}}, {"name": "a"}, 2),
    ({"name": ["a", {"text": "b"}, 3, None], "count": [1]}, {"name": "ab3"}, 2),
    ({"name": [], "count": 1e400}, {}, 2),
    ({"count": 10**400}, {}, 1),
    ({"ready": None}, {}, 1),
    ({"ready": "TRUE"}, {"ready": True}, 1),
    ({"ready": 1}, {"ready": True}, 1),
    ({"inner": []}, {}, 1),
    ({"inner": "x", "inners": "x"}, {}, 2),
    ({"inner": {"count": "x", "more": 1}}, {"inner": {"more": 1}}, 1),
    ({"inners": {}}, {}, 1),
    ({"inners": {"count": 1}}, {"inners": [{"count": 1}]}, 1),
    ({"inners": [1, {"count": 1.0}, None]}, {"inners": [{"count": 1}]}, 3),
    ({"said": 5}, {"said": "5"}, 1),
    ({"said": ["a", {"text": 1}]}, {"said": [{"type": "text", "text": "a"}, {"text": "1"}]}, 1),
    ({"name": {"text": 1}}, {"name": "1"}, 1),
    ({"said": {"text": "a"}}, {"said": [{"text": "a"}]}, 1),
    ({"anything": [1, {"x": None}]}, {"anything": [1, {"x": None}]}, 0),
]


@pytest.mark.parametrize(("value", "fitted", "odd"), FITTED)
def test_each_field_is_what_its_type_asks_for_or_not_there(
    value: dict[str, Any], fitted: dict[str, Any], odd: int
) -> None:
    assert fit(value, Outer) == (fitted, odd)
    assert msgspec.convert(fitted, Outer) == read(json.dumps(value).encode(), Outer)[0]


def test_json_that_a_field_only_hands_on_is_kept_as_text() -> None:
    struct, odd = read(b'{"raw": {"x": [1, "\\ud83d"]}}', Outer)
    assert (bytes(struct.raw), odd) == ('{"x":[1,"\N{REPLACEMENT CHARACTER}"]}'.encode(), 0)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "count", "type", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Outer.__struct_fields__, "other"]), anything))
@settings(deadline=None)
def test_whatever_stands_in_the_fields_the_struct_can_be_made(value: dict[str, Any]) -> None:
    fitted, odd = fit(value, Outer)
    msgspec.convert(fitted, Outer)
    assert fitted.get("other") == value.get("other") or value.get("other") != value.get("other")
    assert fit({k: v for k, v in fitted.items() if k != "raw"}, Outer)[1] == 0, "what was made fits"
    assert odd >= len(value) - len(fitted)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'\xef\xbb\xbf {"a": 1}\r\n', {"a": 1}),
        (b'{"a": "\xff"}', {"a": LOST}),
        (b'{"a": "x\ny"}', {"a": "x\ny"}),
        (b'{"a": Infinity}', {"a": float("inf")}),
        (b'{"a": 1' + b"0" * 400 + b"}", {"a": float("inf")}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": BOTH}),
        (b'{"a": "\\ude00"}', {"a": LOW}),
    ],
)
def test_what_nearly_is_json_is_read(data: bytes, value: Any) -> None:
    assert parse(data) == value


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a"', b"{}{}", b"data: {}", b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)]
)
def test_what_is_no_json_or_too_much_of_it_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(data)
    assert not is_object(data)


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="object"):
        read(data, Outer)
    assert not is_object(data)


def test_values_stand_for_texts_numbers_and_truths() -> None:
    assert [text_of(value) for value in ("a", 1, 1.5, True, None, {}, {"content": "c"}, [], ["a", ["b"]])] == [
        "a", "1", "1.5", None, None, None, "c", None, "ab",
    ]  # fmt: skip
    assert [whole_number(value) for value in (1, 1.9, "2", "x", True, None, [], float("nan"), "9" * 999)] == [
        1, 1, 2, None, None, None, None, None, None,
    ]  # fmt: skip
    assert [truth_of(value) for value in (True, 0, "False", "no", 2, None, [])] == [
        True,
        False,
        False,
        None,
        None,
        None,
        None,
    ]


# surrogates

units = st.lists(st.sampled_from([HIGH, LOW, "a", "\N{GREEK SMALL LETTER ALPHA}", BOTH]), max_size=8).map(
    "".join
)


def in_whole_characters(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(st.lists(units, max_size=6))
@settings(deadline=None)
def test_halves_are_joined_over_pieces_and_lone_ones_replaced(pieces: list[str]) -> None:
    halves = Halves()
    joined = "".join(halves.join(("a",), piece) for piece in pieces) + LOST * len(halves.pending)
    assert joined == in_whole_characters("".join(pieces))


def test_texts_are_joined_apart() -> None:
    halves = Halves()
    assert [halves.join(("a",), "x" + HIGH), halves.join(("b",), LOW), halves.join(("a",), LOW)] == [
        "x",
        LOST,
        BOTH,
    ]


@given(st.dictionaries(units, st.lists(units | st.integers() | st.floats(), max_size=2), max_size=3))
@settings(deadline=None)
def test_what_is_written_is_utf_8_whatever_was_read(value: dict[str, Any]) -> None:
    whole = whole_characters(value)
    assert all(key == in_whole_characters(key) for key in whole)
    msgspec.json.decode(encoded(value))
    msgspec.json.decode(encoded({"big": 10**30, "nan": float("nan"), **value}))
