"""Estimates the number of tokens of an answer whose provider does not report it."""

LONGEST_TOKEN = 16
"""Bytes per token at most, on average."""
WORDS_PER_TOKEN = 1.25
SAMPLE = 64 << 10
"""Characters of an answer that are examined."""


def estimated_output(text: str, characters: int, pieces: int) -> int:
    """Estimates the tokens of an answer of `characters` that arrived in `pieces`; `text` is its visible part
    (the rest is reasoning and tool calls).

    Most providers send one token at a time. So a piece counts as a token if pieces look like tokens: they are
    no longer than tokens are, and hardly any has more than one word (two in three tokens of a text begin a
    word). Otherwise four bytes of UTF-8 count as a token.
    """
    if not characters:  # vectors, and the like
        return 0
    size = characters + (0 if text.isascii() else len(text.encode("utf-8", "replace")) - len(text))
    if size <= LONGEST_TOKEN * pieces and _is_token_by_token(text[:SAMPLE], characters, pieces):
        return pieces
    return max(pieces, size // 4)


def _is_token_by_token(sample: str, characters: int, pieces: int) -> bool:
    """Returns whether the pieces look like single tokens of these words. `sample`: the beginning of the text,
    or all of it.
    """
    share = pieces * len(sample) / characters if characters else 0.0
    return len(sample.split()) <= WORDS_PER_TOKEN * share + 1
