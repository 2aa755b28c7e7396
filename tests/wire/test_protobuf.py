"""The wire format of Protocol Buffers."""

import pytest

from sluice.wire import protobuf
from sluice.wire.protobuf import (
    MAX_FIELDS,
    BadProtobuf,
    data,
    double,
    fields,
    fixed,
    number,
    text,
    varint,
    zigzag,
)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),  # the example of the specification
        (16383, "ff7f"),
        (16384, "808001"),
        (2**63, "80808080808080808001"),
        (-1, "ffffffffffffffffff01"),
    ],
)
def test_varints_have_the_bytes_of_the_specification(value: int, encoded: str) -> None:
    assert varint(value).hex() == encoded
    [(field, read)] = fields(number(3, value))
    assert (field, read) == (3, value & (1 << 64) - 1)


def test_signed_numbers_are_small_on_both_sides() -> None:
    assert [zigzag(value) for value in (0, -1, 1, -2, 2**31)] == [0, 1, 2, 3, 2**32]


def test_fields_come_in_their_order_with_their_numbers() -> None:
    message = number(1, 7) + text(2, "hé") + double(3, 1.0) + fixed(4, 5) + data(500, b"")
    assert [*fields(message)] == [
        (1, 7),
        (2, "hé".encode()),
        (3, bytes.fromhex("000000000000f03f")),
        (4, (5).to_bytes(8, "little")),
        (500, b""),
    ]


def test_an_empty_text_is_not_written() -> None:
    assert text(1, "") == b""
    assert text(1, "\ud800") == data(1, b"?")


@pytest.mark.parametrize(
    "cut", [b"\x08", b"\x0a\x05abcd", b"\x09\x00", b"\x0d\x00", b"\x00\x00"[:1], b"\x0b", b"\x80" * 11]
)
def test_what_is_no_message_is_refused(cut: bytes) -> None:
    with pytest.raises(BadProtobuf):
        list(fields(cut))


def test_the_number_of_fields_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 3)
    assert len([*fields(number(1, 1) * 3)]) == 3
    with pytest.raises(BadProtobuf, match="more than 3"):
        list(fields(number(1, 1) * 4))
    assert MAX_FIELDS == 10_000
