"""What records have of texts."""

import pytest

from sluice.config.types import Content
from sluice.model.chat import Message, Text
from sluice.sinks.content import full, hashed, redacted, stricter

SECRET = "sk-proj-abcdEFGH1234567890"


def messages(*texts: str) -> tuple[Message, ...]:
    return tuple(Message("user", (Text(text),)) for text in texts)


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((), "none"), ((None, None), "none"), (("full", None), "full"), (("full", "hash"), "hash"), (("hash", "full"), "hash"),
        (("full", "none"), "none"), (("none", "full"), "none"), (("full", "full"), "full"),
    ],
)  # fmt: skip
def test_the_stricter_mode_holds(modes: tuple[Content | None, ...], expected: Content) -> None:
    assert stricter(*modes) == expected


def test_a_full_text_has_no_keys_and_tokens() -> None:
    fields = full(messages(f"my key is {SECRET}, why?"), f"Bearer {SECRET}xyz is wrong", 1000).fields()
    assert SECRET not in str(fields)
    assert fields["prompt"]["messages"][0]["content"].startswith("my key is ***")
    assert fields["answer"]["chars"] == len(f"Bearer {SECRET}xyz is wrong")


@pytest.mark.parametrize("line", ["x" * 70, "some words of a sentence, and then some more", "a=b; c: d"])
@pytest.mark.parametrize("joint", ["\n", "\n\n", " "])
def test_masking_in_pieces_misses_no_key_of_a_long_text(line: str, joint: str) -> None:
    text = joint.join(f"{line}{joint}api_key: {SECRET}{number}" for number in range(500))
    assert SECRET not in redacted(text)
    assert redacted(joint.join([line] * 1000)) == joint.join([line] * 1000)


def test_a_pem_block_that_is_longer_than_a_piece_is_masked() -> None:
    block = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIabc\n" * 2000 + "-----END RSA PRIVATE KEY-----"
    assert redacted(f"before\n{block}\nafter") == "before\n***\nafter"


def test_the_end_of_a_prompt_and_the_beginning_of_an_answer_are_kept() -> None:
    texts = full(messages("a" * 50, "b" * 5), "c" * 50, 10)
    assert texts.prompt == (("user", "a" * 5), ("user", "b" * 5))
    assert (texts.answer, texts.prompt_chars, texts.answer_chars) == ("c" * 10, 55, 50)


def test_digests_are_keyed_and_tell_texts_apart() -> None:
    one, same = hashed(messages("a", "b"), "x", b"key"), hashed(messages("a", "b"), "x", b"key")
    assert one == same
    assert one.fields()["prompt"]["digest"].startswith("hmac-sha256:")
    others = [
        hashed(messages("ab"), "x", b"key"),
        hashed(messages("a", "b"), "x", b"other"),
        hashed(messages("a"), "x", b"key"),
    ]
    assert one.prompt_digest not in {other.prompt_digest for other in others}
    assert "messages" not in one.fields()["prompt"]


def test_half_a_surrogate_pair_is_no_obstacle() -> None:
    hashed(messages("\ud800"), "\udc00", b"key")
    full(messages("\ud800"), "\udc00", 10).fields()
