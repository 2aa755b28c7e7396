"""Reads of texts alone, known by what stands around the first: they say exactly what they would say if each frame was
parsed."""

import json
import random
from collections.abc import Iterator

import pytest

from sluice.model.events import StreamEvent, TextDelta, Verbatim
from sluice_plugins.anthropic.passing import PassingDecoder
from sluice_plugins.anthropic.stream import MessagesDecoder
from tests.wire import cuts

TEXTS = (
    "Hi", " there", "", "0", "ß", "日本", "🙂", "a,b", "}}", "data: ", "event: content_block_start", '"', "\\", "\n",
    '\\"', '"}}', "\x7f", "\t\0",
)  # fmt: skip


def frame(kind: str, *, spaced: bool = False, **fields: object) -> bytes:
    separators = (", ", ": ") if spaced else (",", ":")
    payload = json.dumps({"type": kind, **fields}, separators=separators, ensure_ascii=False)
    return f"event: {kind}\ndata: {payload}\n\n".encode()


def delta(index: int, text: str, *, spaced: bool = False) -> bytes:
    given = {"type": "text_delta", "text": text}
    return frame("content_block_delta", spaced=spaced, index=index, delta=given)


def reads(chance: random.Random) -> Iterator[bytes]:
    """A message of several blocks of text, each read one or more whole frames."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    yield frame("message_start", message={"id": "msg_1", "model": "m", "content": [], "usage": usage})
    for index in range(chance.randint(1, 3)):
        yield frame("content_block_start", index=index, content_block={"type": "text", "text": ""})
        spaced = chance.random() < 0.3
        for _ in range(chance.randint(0, 9)):
            texts = chance.choices(TEXTS, k=chance.choice([1, 1, 1, 4]))
            yield b"".join([delta(index, text, spaced=spaced or chance.random() < 0.1) for text in texts])
        yield frame("content_block_stop", index=index)
    yield frame("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    yield frame("message_stop")


def said(kind: type[MessagesDecoder], parts: list[bytes]) -> tuple[list[StreamEvent], str, bytes]:
    """The events but for the texts and frames, those joined."""
    decoder = kind()
    events = [event for part in parts for event in decoder.feed(part)]
    text = "".join([event.text for event in events if type(event) is TextDelta])
    frames = b"".join([event.data for event in events if type(event) is Verbatim])
    return [event for event in events if type(event) not in (TextDelta, Verbatim)], text, frames


@pytest.mark.parametrize("kind", [MessagesDecoder, PassingDecoder])
def test_texts_that_are_known_by_their_form_are_those_of_parsed_frames(kind: type[MessagesDecoder]) -> None:
    class Parsing(kind):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def _texts(self, data: bytes) -> None:
            return None

    for seed in range(60):
        chance = random.Random(seed)
        parts = list(reads(chance))
        whole = b"".join(parts)
        parsed = said(Parsing, parts)
        assert said(kind, parts) == parsed, seed
        assert said(kind, list(cuts.random(whole, seed, 60))) == parsed, seed
        if kind is PassingDecoder:
            assert parsed[2] == whole


def test_a_text_of_an_earlier_block_is_not_taken_for_one_of_the_newest() -> None:
    decoder = MessagesDecoder()
    for part in (
        frame("message_start", message={}),
        frame("content_block_start", index=0, content_block={"type": "text"}),
    ):
        decoder.feed(part)
    for _ in range(3):
        assert decoder.feed(delta(0, "a")) == [TextDelta("a")]
    assert decoder._form is not None
    decoder.feed(
        frame("content_block_start", index=1, content_block={"type": "tool_use", "id": "c", "name": "f"})
    )
    assert decoder._form is None
    assert decoder.feed(delta(0, "b")) == [TextDelta("b")]
    assert decoder._form is None
