"""Parts of addresses: hosts, escapes, options. No error quotes anything, for it may be a password."""

import pytest

from sluice.storage.parts import decoded_text, flag_of, host_of, options_in, refuse_characters, seconds_of

KNOWN = {"timeout": seconds_of, "prepared": flag_of}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a", ("a", 1)),
        ("a.b-c_d:2", ("a.b-c_d", 2)),
        ("[::1]", ("::1", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_a_host_has_a_port_or_the_default(text: str, found: tuple[str, int]) -> None:
    assert host_of(text, 1, 0) == found


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "a:0", "a:65536", "a:1:2", "::1", "[::1", "a b", "canary!", "a:can"]
)
def test_what_is_no_host_is_refused_at_its_character(text: str) -> None:
    with pytest.raises(ValueError, match=r"^character \d+: ") as refused:
        host_of(text, 1, 8)
    assert "can" not in str(refused.value)


def test_options_are_read_by_their_names() -> None:
    assert options_in("", 0, KNOWN) == {}
    assert options_in("timeout=250ms&prepared=TRUE", 0, KNOWN) == {"timeout": 0.25, "prepared": True}
    assert options_in("timeout=0.5", 0, KNOWN) == {"timeout": 0.5}


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("other=1", 11),
        ("timeout", 11),
        ("timeout=1&timeout=2", 21),
        ("timeout=1&prepared=canary", 30),
        ("timeout=61", 19),
        ("timeout=0", 19),
        ("prepared=%zz", 20),
        ("prepared=%ff", 20),
    ],
)
def test_a_wrong_option_is_named_by_its_place(query: str, place: int) -> None:
    with pytest.raises(ValueError, match=f"^character {place}:") as refused:
        options_in(query, 10, KNOWN)
    assert "canary" not in str(refused.value)


def test_escapes_are_utf_8() -> None:
    assert decoded_text("p%C3%A4%20%25", 0) == "p\xe4 %"
    with pytest.raises(ValueError, match=r'^character 4: "%" must be written as %25'):
        decoded_text("a%", 2)


@pytest.mark.parametrize("text", ["a b", "a\n", "\x7f", "a\u200b", "\x00"])
def test_white_space_and_control_characters_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="white space or a control character"):
        refuse_characters(text)
