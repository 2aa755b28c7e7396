"""Prefixes of prompts: how much of a prompt each server of an upstream has probably cached. Pure.

A prompt is cut into blocks of characters. The digest of each block covers all text up to the block's end, so
equal digests mean equal beginnings. vLLM and SGLang cache by blocks of tokens; characters are enough for a
guess, and need no tokenizer.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from sluice.model.chat import ChatRequest, Image, Message, Other, Text

BLOCK = 256
"""Characters of a block: some 64 tokens."""
BLOCKS = 512
"""Maximum blocks of a prompt: what follows after 131,072 characters does not matter for the choice."""
SEEN = 16_384
"""Maximum blocks that are remembered of each server: some four million characters, in about 2 MB."""


class SeenPrefixes:
    """The blocks that were sent to one server; those that have not been used for the longest time are
    forgotten first."""

    __slots__ = ("_blocks", "_most")

    def __init__(self, most: int = SEEN) -> None:
        self._blocks: dict[bytes, None] = {}  # oldest first
        self._most = most

    def __len__(self) -> int:
        return len(self._blocks)

    def matched(self, blocks: list[bytes]) -> int:
        """Returns the number of a prompt's leading blocks that the server has seen.

        A server that has seen a block has also seen those before it: `add` never makes these older than it,
        and the oldest are forgotten first. So the blocks need not be looked up one by one.
        """
        seen = self._blocks
        return bisect_left(blocks, True, key=lambda block: block not in seen)

    def add(self, blocks: list[bytes]) -> None:
        """Remembers a prompt. Its beginning is marked as used last, because a block is of no use without
        those before it."""
        seen = self._blocks
        for block in reversed(blocks):
            seen.pop(block, None)
            seen[block] = None
        while len(seen) > self._most:
            del seen[next(iter(seen))]


def blocks_of(chat: ChatRequest, model: str) -> list[bytes]:
    """Returns the digests of a prompt's whole blocks; for a shorter prompt one digest of all of it."""
    digest = hashlib.blake2b(model.encode("utf-8", "replace"), digest_size=8)
    found = list[bytes]()
    rest = ""
    for text in _texts(chat):
        rest = rest + text if rest else text
        at = 0
        while len(rest) - at >= BLOCK:
            digest.update(rest[at : at + BLOCK].encode("utf-8", "replace"))
            found.append(digest.digest())
            at += BLOCK
            if len(found) == BLOCKS:
                return found
        rest = rest[at:]
    if not found:
        digest.update(rest.encode("utf-8", "replace"))
        found.append(digest.digest())
    return found


def root_of(chat: ChatRequest, model: str) -> bytes:
    """Returns the digest of a prompt up to its first message of a user: it is the same for all turns of a
    conversation."""
    digest = hashlib.blake2b(model.encode("utf-8", "replace"), digest_size=8)
    for text in _texts(chat, to_first_user=True):
        digest.update(text[: BLOCK * BLOCKS].encode("utf-8", "replace"))
    return digest.digest()


def _texts(chat: ChatRequest, *, to_first_user: bool = False) -> Iterator[str]:
    """Yields the prompt's texts in the order of chat templates: tools, then messages."""
    for tool in chat.tools:
        yield f"\0tool\0{tool.name}\0{tool.description}"
    for message in chat.messages:
        yield f"\0{message.role}\0"
        yield from _parts(message)
        if to_first_user and message.role == "user":
            return


def _parts(message: Message) -> Iterable[str]:
    for part in message.parts:
        match part:
            case Text():
                yield part.text
            case Image():
                yield part.url
            case Other():
                yield part.type
    for call in message.tool_calls:
        yield f"{call.name}\0{call.arguments}"
