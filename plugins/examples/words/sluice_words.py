"""An interceptor and a stage. Each is a frozen Struct: its fields are its options, checked by `sluice
check`."""

import re

import msgspec

from sluice.model.events import Finished, Started, StreamEvent, TextDelta
from sluice.proxy.interceptors import Interceptor, Next
from sluice.proxy.run import CallRun


class FixedAnswer(msgspec.Struct, frozen=True):
    """Answers one prompt from memory; all others go on to the targets."""

    prompt: str  # the caller's last message, to the letter
    answer: str  # what it is answered with

    def interceptor(self) -> Interceptor:
        async def intercept(run: CallRun, next: Next) -> None:
            messages = run.call.chat.messages
            if messages and messages[-1].text == self.prompt:
                run.reply([Started(model="memory"), TextDelta(self.answer), Finished("stop")])
            else:
                await next(run)

        return intercept


class WordMask(msgspec.Struct, frozen=True):
    """Replaces words in the text of answers, wherever they are cut into pieces."""

    words: tuple[str, ...]  # the words, in any case
    mask: str = "***"  # what stands in their place

    def __post_init__(self) -> None:
        if not self.words or not all(self.words):
            raise ValueError("words: at least one, and none of them empty")

    def stage(self) -> "Masking":
        return Masking(self.words, self.mask)


class Masking:
    """Holds back the end of the text as far as a word may begin there."""

    def __init__(self, words: tuple[str, ...], mask: str) -> None:
        longest_first = sorted(words, key=len, reverse=True)
        self._words = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)
        self._longest = len(longest_first[0])
        self._beginnings = {word[:size].lower() for word in words for size in range(1, len(word))}
        self._mask = mask
        self._held = ""

    def feed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        passed: list[StreamEvent] = []
        for event in events:
            if isinstance(event, TextDelta):
                passed += self._text(event.text)
            else:
                passed += [*self.close(), event]  # what was said before it goes before it
        return passed

    def close(self) -> list[StreamEvent]:
        held, self._held = self._held, ""
        return [TextDelta(held)] if held else []

    def _text(self, text: str) -> list[StreamEvent]:
        text = self._words.sub(lambda _: self._mask, self._held + text)
        sizes = range(min(self._longest - 1, len(text)), 0, -1)
        held = next((size for size in sizes if text[-size:].lower() in self._beginnings), 0)
        self._held = text[len(text) - held :]
        text = text[: len(text) - held]
        return [TextDelta(text)] if text else []
