"""Encryption of entries: what opens what, and what does not."""

import itertools

import pytest

from sluice.config.units import DataKeys, SessionKey
from sluice.storage.sealing import NOTHING, Seals, Unreadable, is_sealed

OLD, NEW = b"o" * 31 + b"1", b"n" * 31 + b"1"
OWNER, OTHER = b"a" * 16, b"b" * 16


def seals(*keys: bytes, plain: bool = True) -> Seals:
    made = Seals()
    made.use(keys, unsealed=plain)
    return made


@pytest.mark.parametrize("data", [b"", b"x", b"x" * 100_000, bytes(range(256))])
def test_what_is_sealed_opens_again_and_is_never_alike(data: bytes) -> None:
    ours = seals(NEW)
    one, two = ours.seal(data, OWNER, b"turn"), ours.seal(data, OWNER, b"turn")
    assert one != two
    assert is_sealed(one)
    assert len(one) == len(data) + 38
    assert data == b"" or len(data) < 2 or data not in one
    assert ours.open(one, OWNER, b"turn") == data


def test_it_belongs_to_its_owner_and_its_kind() -> None:
    ours = seals(NEW)
    sealed = ours.seal(b"text", OWNER, b"turn")
    for owner, kind in ((OTHER, b"turn"), (OWNER, b"preview"), (OWNER, b"")):
        with pytest.raises(Unreadable):
            ours.open(sealed, owner, kind)


def test_every_changed_bit_and_every_cut_is_noticed() -> None:
    ours = seals(NEW, plain=False)
    sealed = ours.seal(b"text", OWNER, b"turn")
    for at, bit in itertools.product(range(len(sealed)), range(8)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << bit
        with pytest.raises(Unreadable):
            ours.open(bytes(changed), OWNER, b"turn")
    for length in range(len(sealed)):
        with pytest.raises(Unreadable):
            ours.open(sealed[:length], OWNER, b"turn")


def test_the_first_key_seals_and_all_open() -> None:
    before = seals(OLD).seal(b"text", OWNER, b"turn")
    both = seals(NEW, OLD)
    after = both.seal(b"text", OWNER, b"turn")
    assert both.open(before, OWNER, b"turn") == both.open(after, OWNER, b"turn") == b"text"
    assert seals(NEW).open(after, OWNER, b"turn") == b"text"
    assert not both.is_current(before)
    assert both.is_current(after)
    for ours in (seals(NEW), NOTHING):
        with pytest.raises(Unreadable):
            ours.open(before, OWNER, b"turn")


def test_what_was_stored_before_is_read_unless_that_is_refused() -> None:
    assert seals(NEW).open(b"text", OWNER, b"turn") == b"text"
    assert not seals(NEW).is_current(b"text")
    with pytest.raises(Unreadable):
        seals(NEW, plain=False).open(b"text", OWNER, b"turn")
    assert NOTHING.seal(b"text", OWNER, b"turn") == b"text"
    assert NOTHING.is_current(b"text")
    assert not NOTHING.is_current(seals(NEW).seal(b"", OWNER, b""))


BASE64 = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="
HEXADECIMAL = "00112233445566778899aabbccddeeff" * 2


@pytest.mark.parametrize(
    "text",
    [f"{BASE64}\n{HEXADECIMAL}", f" {BASE64},{HEXADECIMAL}\r\n", f"{BASE64[:-1]} {HEXADECIMAL.upper()}"],
)
def test_keys_stand_in_lines_or_between_commas(text: str) -> None:
    first, second = DataKeys.parse(text).keys()
    assert (len(first), second.hex()) == (32, HEXADECIMAL)
    assert BASE64 not in repr(DataKeys.parse(text))


def test_sessions_have_one_key() -> None:
    assert len(SessionKey.parse(f"{BASE64}\n").keys()) == 1
    with pytest.raises(ValueError, match="holds 2 keys; expected one"):
        SessionKey.parse(f"{BASE64} {HEXADECIMAL}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one key"),
        (" \n", "at least one key"),
        ("secret", "key 1 of 1: expected 32 random bytes"),
        (f"{BASE64} {BASE64[:40]}", "key 2 of 2"),
        ("A" * 43 + "=", "key 1 of 1"),
        (f"{BASE64} {BASE64[:-1]}", "the same key twice"),
        (" ".join([BASE64] * 65), "64 are the most"),
        ("$KEY", "placeholder"),
    ],
)
def test_what_is_no_key_is_said_without_telling_it(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        DataKeys.parse(text)
    assert BASE64 not in str(error.value)
