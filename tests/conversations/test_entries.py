"""Turns as stores keep them, and the ids of conversations."""

import pytest

from sluice.conversations import ConversationsFailed, Turn
from sluice.conversations.entries import (
    Entries,
    Unstored,
    digest_in,
    digest_of,
    letters,
    number_of,
    read,
    written,
)
from sluice.storage.sealing import Seals

TURN = Turn("user", "hello \U0001f600", 1.5)


def sealed(*keys: bytes, unsealed: bool = True) -> Entries:
    seals = Seals()
    seals.use(keys, unsealed=unsealed)
    return Entries(seals)


def test_a_turn_comes_back_as_it_was() -> None:
    assert read(written(TURN)) == TURN


def test_text_that_is_no_unicode_is_refused_when_it_is_written() -> None:
    with pytest.raises(OSError):
        written(Turn("user", "\ud800", 0.0))


@pytest.mark.parametrize("data", [b"", b"\x00", b"{}", b"\x80", b"\x93\x01\x02\x03"])
def test_what_is_no_turn_is_a_failure_of_the_store(data: bytes) -> None:
    with pytest.raises(ConversationsFailed) as failed:
        sealed().read(data, b"d" * 16)
    assert failed.value.reason == "reply"


def test_a_sealed_turn_opens_in_its_own_conversation_only() -> None:
    entries = sealed(b"k" * 32)
    stored = entries.written(TURN, b"a" * 16)
    assert b"hello" not in stored
    assert entries.read(stored, b"a" * 16) == TURN
    for other in (entries, sealed(b"x" * 32), sealed()):
        with pytest.raises(ConversationsFailed) as failed:
            other.read(stored, b"b" * 16)
        assert failed.value.reason == "key"


def test_turns_are_sealed_again_unless_they_are_so_or_cannot_be_opened() -> None:
    old, digest = sealed(b"o" * 32), b"a" * 16
    both = sealed(b"n" * 32, b"o" * 32)
    stored = [
        old.written(TURN, digest), both.written(TURN, digest), written(TURN), sealed(b"?" * 32).written(TURN, digest)
    ]  # fmt: skip
    found, unreadable = both.resealed(stored, digest)
    assert [data is None for data in found] == [False, True, False, True]
    assert unreadable == 1
    assert all(sealed(b"n" * 32).read(data, digest) == TURN for data in found if data is not None)


def test_tenant_and_session_are_told_apart() -> None:
    assert len({digest_of("a", "bc"), digest_of("ab", "c"), digest_of("", "abc"), digest_of("abc", "")}) == 4


def test_an_id_leads_to_its_session_and_nothing_else_does() -> None:
    ids, digest = Unstored(), digest_of("tenant", "session")
    id = ids.of(digest)
    assert ids.of(digest) == id
    assert digest_in(id) == digest
    assert letters(digest) in id
    for text in ("", "x", "." * 30, "\xe9" * 22, id[:-1], id + "x"):
        assert digest_in(text) != digest


def test_ids_without_a_turn_are_bounded() -> None:
    ids = Unstored(2)
    first = ids.of(b"1")
    ids.of(b"2")
    ids.of(b"3")
    assert ids.of(b"1") != first


@pytest.mark.parametrize("after", ["-1", "x", "1.5", "\u0663", "9" * 19, " 1"])
def test_a_place_that_no_page_gave_is_refused(after: str) -> None:
    with pytest.raises(ValueError):
        number_of(after)
    assert (number_of(""), number_of("17")) == (0, 17)
