"""Header fields: which may be set, and how a simple head is read."""

import pytest

from sluice.wire.fields import FRAMING_FIELDS, by_name, check_fields, joined, simple_head


@pytest.mark.parametrize("name", sorted(FRAMING_FIELDS))
def test_what_frames_a_message_is_not_for_others_to_set(name: str) -> None:
    with pytest.raises(ValueError, match="not for others"):
        check_fields([(name.title(), "x")])


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "\x00", "\x7f", "\u2026"])
def test_a_value_that_could_end_its_line_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match="x-mine") as caught:
        check_fields([("x-mine", value)])
    assert value not in str(caught.value).replace("(\u2026)", "")


@pytest.mark.parametrize("name", ["", "a b", "a:b", "\xe9", "a\r\nb"])
def test_what_is_no_token_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="not a header name"):
        check_fields([(name, "x")])


def test_a_simple_head_is_its_first_line_and_its_fields() -> None:
    assert simple_head(b"GET / HTTP/1.1\r\nHost: a\r\nX-Odd_Name:  b ") == (
        "GET / HTTP/1.1",
        {"host": "a", "x-odd_name": "b"},
    )


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: a\r\nhost: b",  # twice
        b"Host : a",
        b" Host: a",
        b"Host: a\r\n b",  # folded
        b"Host: a\nX: b",
        b"Host: a\rX: b",
        b"Host: a\x85X: b",
        b"Host:\ta",
        b"Host: \xe9",
        b"Host: \x00",
        b"Host",
        b": a",
    ],
)
def test_what_parsers_may_read_differently_is_left_to_llhttp(lines: bytes) -> None:
    assert simple_head(b"GET / HTTP/1.1\r\n" + lines) is None


def test_repeated_fields_are_joined_in_their_order() -> None:
    assert by_name([(b"Accept", b"a"), (b"X", b"1"), (b"accept", b"b")]) == {"accept": "a, b", "x": "1"}
    assert joined([("a", "1"), ("a", "2")]) == {"a": "1, 2"}
