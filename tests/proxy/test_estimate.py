"""The estimated tokens of an answer whose provider reports none."""

import pytest

from sluice.proxy.estimate import estimated_output


@pytest.mark.parametrize(
    ("text", "pieces", "tokens"),
    [
        ("", 0, 0),
        ("one two three four", 4, 4),  # a word a piece: pieces are tokens
        ("one two three four five six", 2, 6),  # three words a piece: a quarter of the bytes
        ("x" * 400, 1, 100),
        ("\u4f60\u597d" * 10, 20, 20),  # a character a piece, three bytes each
        ("\u4f60\u597d" * 200, 1, 300),
        ("a b", 9, 9),  # never fewer than one a piece
    ],
)
def test_pieces_count_as_tokens_where_they_look_like_tokens(text: str, pieces: int, tokens: int) -> None:
    assert estimated_output(text, len(text), pieces) == tokens


def test_reasoning_counts_though_it_is_not_in_the_text() -> None:
    assert estimated_output("", 4000, 2) == 1000
