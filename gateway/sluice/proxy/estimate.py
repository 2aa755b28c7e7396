"""About how many tokens an answer has, where its provider does not report it."""

LONGEST_TOKEN = 16
"""Bytes that tokens do not exceed on the average."""
WORDS_PER_TOKEN = 1.25
SAMPLE = 64 << 10
"""Characters of an answer that are looked at."""


def estimated_output(text: str, characters: int, pieces: int) -> int:
    """Tokens of an answer of so many `characters`, `text` among them (the others are reasoning and tool
    calls), that came in so many `pieces`: most providers send a token at a time.

    A token per piece where pieces look like tokens: hardly any has more than one word in it (two in three
    tokens of a text begin a word), and they are no longer than tokens are. Else a token per four bytes of
    UTF-8.
    """
    if not characters:  # vectors, and the like
        return 0
    size = characters + (0 if text.isascii() else len(text.encode("utf-8", "replace")) - len(text))
    if size <= LONGEST_TOKEN * pieces and _is_token_by_token(text[:SAMPLE], characters, pieces):
        return pieces
    return max(pieces, size // 4)


def _is_token_by_token(sample: str, characters: int, pieces: int) -> bool:
    """Whether so many pieces make up so many words. `sample`: the text's beginning, or all of it."""
    share = pieces * len(sample) / characters if characters else 0.0
    return len(sample.split()) <= WORDS_PER_TOKEN * share + 1
