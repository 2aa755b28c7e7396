"""Texts that are edited at one place mean what they would mean decoded, changed and written anew, and keep
all other bytes."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.wire.jsonedit import with_known_string, with_member, with_string, without_known_object

KEY = b'"model"'
NEW = b'"a\\"b"'
NAMES = st.sampled_from(
    ["model", "model", "model", "usage", "usage", 'x"model', "x", "\\", '"', "{}", "ä", ""]
)
TEXTS = st.sampled_from(
    ["m", "m", "model", '"model":"m"', '{"model":"m"}', "", "\\", '"', "{", "}", "ä", "\\u0041"]
)
SCALARS = TEXTS | TEXTS | st.sampled_from([None, True, 0, -1.5e-7])


class Pairs(list[tuple[str, Any]]):
    """An object as its members stand in a text: with all that have the same name."""


VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.lists(st.tuples(NAMES, inner), max_size=3).map(Pairs),
    max_leaves=5,
)
OBJECTS = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(Pairs)


class Writer:
    """Writes JSON in any of the ways in which it can be written. `plain`: its names without escapes that need
    not be."""

    def __init__(self, chance: random.Random, *, plain: bool = False) -> None:
        self._chance = chance
        self._odd = chance.random() / 2
        self._plain = plain

    def text(self, value: Any) -> str:
        return self._white() + self._value(value) + self._white()

    def _white(self) -> str:
        chance = self._chance
        return (
            "".join(chance.choices(" \t\r\n", k=chance.randint(1, 3))) if chance.random() < self._odd else ""
        )

    def _value(self, value: Any) -> str:
        match value:
            case Pairs():
                members = [
                    f"{self._white()}{self._string(name, plain=self._plain)}{self._white()}:{self.text(inner)}"
                    for name, inner in value
                ]
                return "{%s}" % (",".join(members) or self._white())
            case list():
                return "[%s]" % (",".join(map(self.text, value)) or self._white())
            case str():
                return self._string(value)
            case _:
                return json.dumps(value)

    def _string(self, text: str, *, plain: bool = False) -> str:
        return '"' + "".join(self._character(c, plain=plain) for c in text) + '"'

    def _character(self, c: str, *, plain: bool) -> str:
        if not plain and self._chance.random() < self._odd / 4:
            return f"\\u{ord(c):04x}"
        return json.dumps(c, ensure_ascii=self._chance.random() < 0.5)[1:-1]


def pairs_of(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=Pairs)


def value_of(text: bytes) -> Any:
    return json.loads(text)


def check_place(text: bytes, edited: bytes) -> None:
    """All bytes before the member and behind its value are as they were."""
    at = text.index(KEY)
    edited_member = KEY + b":" + NEW
    assert edited.startswith(text[:at] + edited_member)
    assert text[at:].endswith(edited[at + len(edited_member) :])


@settings(max_examples=200)
@given(OBJECTS, st.randoms(use_true_random=False))
def test_another_string_is_what_would_be_written(pairs: Pairs, chance: random.Random) -> None:
    text = Writer(chance).text(pairs).encode()
    edited = with_string(text, KEY, NEW)
    if edited is None:
        return
    expected = value_of(text)
    assert type(expected["model"]) is str
    expected["model"] = 'a"b'
    assert value_of(edited) == expected
    changed = [(name, 'a"b' if name == "model" else value) for name, value in pairs_of(text)]
    assert pairs_of(edited) == changed
    check_place(text, edited)


@given(OBJECTS, TEXTS, st.integers(0, 6), st.randoms(use_true_random=False))
def test_a_plain_member_is_always_found(pairs: Pairs, text: str, at: int, chance: random.Random) -> None:
    """Where the name is written plainly and its bytes stand in the text once, as the outermost object's."""
    pairs = Pairs([pair for pair in pairs if pair[0] != "model"])
    pairs.insert(at, ("model", text))
    written = Writer(chance, plain=True).text(pairs).encode()
    known = with_known_string(written, KEY, NEW)
    assert (known is None) == (written.count(KEY) != 1)
    if known is not None:
        assert pairs_of(known) == [
            (name, 'a"b' if name == "model" else value) for name, value in pairs_of(written)
        ]
        if b"\\u00" not in written:
            assert with_string(written, KEY, NEW) == known


@given(OBJECTS, st.randoms(use_true_random=False))
def test_a_member_more_is_what_would_be_written(pairs: Pairs, chance: random.Random) -> None:
    pairs = Pairs([("first", 1), *pairs])
    text = Writer(chance).text(pairs).encode()
    edited = with_member(text, b'"stream_options":{"x":[1]}')
    assert pairs_of(edited) == [*pairs_of(text), ("stream_options", Pairs([("x", [1])]))]
    assert edited.startswith(text[: text.rindex(b"}")])


@given(OBJECTS, OBJECTS, st.integers(0, 6), st.randoms(use_true_random=False))
def test_a_member_less_is_what_would_be_written(
    pairs: Pairs, usage: Pairs, at: int, chance: random.Random
) -> None:
    pairs = Pairs([pair for pair in pairs if pair[0] != "usage"])
    pairs.insert(at, ("usage", usage))
    text = Writer(chance).text(pairs).encode()
    edited = without_known_object(text, b'"usage"')
    if edited is not None:
        assert pairs_of(edited) == [pair for pair in pairs_of(text) if pair[0] != "usage"]


Edit = Callable[[bytes, bytes, bytes], bytes | None]
PLAIN = [
    (b'{"model":"m"}', b'{"model":"N"}'),
    (b'{"id":"c","model":"m","choices":[{"x":1}]}', b'{"id":"c","model":"N","choices":[{"x":1}]}'),
    (b' {"a":[{"b":{}}],"model" :\n"m\\"{" ,"x":1.50} \n', b' {"a":[{"b":{}}],"model":"N" ,"x":1.50} \n'),
    (b'{"a":"{{","b":"\\"}}","model":"m"}', b'{"a":"{{","b":"\\"}}","model":"N"}'),
    (b'{"a":"\\"model\\":\\"m\\"","model":"m"}', b'{"a":"\\"model\\":\\"m\\"","model":"N"}'),
    (b'{"a":"\\\\","model":"m\\\\"}', b'{"a":"\\\\","model":"N"}'),
    (b'{"a":"\\u00e9","model":"\\u4f60"}', b'{"a":"\\u00e9","model":"N"}'),
]


@pytest.mark.parametrize(("text", "expected"), PLAIN)
@pytest.mark.parametrize("edit", [with_string, with_known_string])
def test_what_is_plain_is_edited(edit: Edit, text: bytes, expected: bytes) -> None:
    assert edit(text, KEY, b'"N"') == expected


@pytest.mark.parametrize(
    "text",
    [
        b'{"x":"m"}',
        b'{"x":{"model":"m"}}',
        b'{"x":[{"model":"m"}]}',
        b'{"x":[1,{"y":{},"model":"m"}],"z":{}}',
        b'[{"model":"m"}]',
        b'"model"',
        b'["model"]',
        b'{"role":"model","x":"m"}',
        b'{"model":"m","model":"n"}',
        b'{"model":"m","x":{"model":"n"}}',
        b'{"role":"model","model":"m"}',
        b'{"model":null}',
        b'{"model":{"a":"b"}}',
        b'{"x\\"model":"m"}',
        b'{"x":"\\"model","y":"m"}',
        b'{"model":"m","mo\\u0064el":"n"}',
        b'{"x":{"model":"m"},"\\u006dodel":"n"}',
        b"",
    ],
)
def test_what_is_not_plain_is_left_to_others(text: bytes) -> None:
    assert with_string(text, KEY, NEW) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"id":"c","usage":{"a":1}}', b'{"id":"c"}'),
        (b'{"id":"c" , "usage" : {"a":{"b":"}"},"c":[1]} ,"x":1}', b'{"id":"c"  ,"x":1}'),
        (b'{"id":"c","usage":{}}', b'{"id":"c"}'),
        (b'{"usage":{"a":1},"id":"c"}', None),
        (b'{"id":"c","usage":null}', None),
        (b'{"id":"c","usage":{"a":{"b":{}}}}', None),
        (b'{"id":"c","usage":{},"x":{"usage":{}}}', None),
        (b'{"id":"c","\\u0075sage":{},"x":{"a":1,"usage":{}}}', None),
    ],
)
def test_an_object_is_left_out_where_that_is_plain(text: bytes, expected: bytes | None) -> None:
    assert without_known_object(text, b'"usage"') == expected
