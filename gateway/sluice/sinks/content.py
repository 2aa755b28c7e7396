"""The texts of a call as its record has them: not at all, as a keyed digest, or in full with keys and tokens
masked. Pure."""

import hmac
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sluice.config.types import Content
from sluice.model.chat import Message
from sluice.wire.masking import MASK, masked

_STRICT: Mapping[Content, int] = {"none": 0, "hash": 1, "full": 2}

_PIECE, _LONGEST = 4096, 16384
"""Maximum characters that are masked at a time: a regular expression blocks the interpreter, and so the event
loop, until its end."""
_LINE_END = re.compile(r"(?<![:=\s\"'`>])\n")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL)


def stricter(*modes: Content | None) -> Content:
    """Returns the strictest of the given settings."""
    return min((mode for mode in modes if mode is not None), key=_STRICT.__getitem__, default="none")


class Texts(msgspec.Struct, frozen=True):
    """The texts of a call, up to a number of characters. `prompt`: role and text of each message. `digest`:
    of all texts of both."""

    prompt: tuple[tuple[str, str], ...] = ()
    answer: str = ""
    prompt_chars: int = 0
    answer_chars: int = 0
    prompt_digest: str = ""
    answer_digest: str = ""

    __repr__ = object.__repr__  # it holds the model's text

    @property
    def size(self) -> int:
        return len(self.answer) + sum(len(text) for _, text in self.prompt)

    @property
    def held(self) -> int:
        """Returns the bytes that the texts take in memory, with 64 for each message."""
        return sys.getsizeof(self.answer) + sum([64 + sys.getsizeof(text) for _, text in self.prompt])

    def fields(self) -> dict[str, Any]:
        """Returns the fields of the record. Masking takes about a millisecond per thousand characters."""
        if self.prompt_digest:
            return {
                "prompt": {"digest": self.prompt_digest, "chars": self.prompt_chars},
                "answer": {"digest": self.answer_digest, "chars": self.answer_chars},
            }
        messages = [{"role": role, "content": redacted(text)} for role, text in self.prompt]
        return {
            "prompt": {"messages": messages, "chars": self.prompt_chars},
            "answer": {"text": redacted(self.answer), "chars": self.answer_chars},
        }


def full(messages: tuple[Message, ...], answer: str, most: int) -> Texts:
    """Returns the first `most` characters of the answer, and the last ones of the prompt, because the
    question is at its end."""
    kept: list[tuple[str, str]] = []
    chars = 0
    for message in reversed(messages):
        text = message.text
        rest = most - chars
        chars += len(text)
        if rest > 0:
            kept.append((message.role, text[-rest:]))
    return Texts(tuple(reversed(kept)), answer[:most], chars, len(answer))


def hashed(messages: tuple[Message, ...], answer: str, key: bytes) -> Texts:
    """Returns digests under `key`: equal texts have equal digests, and without the key texts cannot be tried
    out."""
    digest = hmac.new(key, digestmod="sha256")
    chars = 0
    for message in messages:
        text = message.text
        chars += len(text)
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{message.role} {len(data)}\n".encode() + data)
    of_answer = hmac.digest(key, answer.encode("utf-8", "surrogatepass"), "sha256").hex()
    return Texts((), "", chars, len(answer), f"hmac-sha256:{digest.hexdigest()}", f"hmac-sha256:{of_answer}")


def redacted(text: str) -> str:
    """Returns the text with keys, tokens and passwords masked as in providers' error messages
    (`sluice.wire.masking`)."""
    if "-----BEGIN" in text:
        text = _PEM.sub(MASK, text)
    return "".join([masked(piece) for piece in _pieces(text)])


def _pieces(text: str) -> Iterator[str]:
    """Yields parts that end with a line after which no secret continues; those of a long line end with a
    word."""
    at = 0
    while len(text) - at > _LONGEST:
        found = _LINE_END.search(text, at + _PIECE, at + _LONGEST)
        end = found.end() if found else text.rfind(" ", at + _PIECE, at + _LONGEST) + 1
        if end <= 0:
            end = at + _LONGEST
        yield text[at:end]
        at = end
    while len(text) - at > _PIECE and (found := _LINE_END.search(text, at + _PIECE)):
        yield text[at : found.end()]
        at = found.end()
    yield text[at:]
