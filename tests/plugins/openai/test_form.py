"""Frames known by their form: they say exactly what they would say if each was parsed."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from sluice.errors import UpstreamError
from sluice.model.events import StreamEvent, TextDelta, Verbatim
from sluice_plugins.openai import stream as openai_stream
from sluice_plugins.openai.form import SLOTS, learn
from sluice_plugins.openai.stream import ChunkDecoder, _text_of
from tests.wire import cuts

Chunk = dict[str, Any]
COMMON: Chunk = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "system_fingerprint": None,
}
PLAIN = ("Hi", " there", "", "0", "ß", "日本", "🙂", "a,b", "}", "]}", "data: ", '{"content":', "\u2028")
ESCAPED = ('"', "\\", "\n", '\\"', '"content":"x"', '"},"finish_reason":null}]}', "\x7f", "\t\0")


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def chunk(text: str, **more: Any) -> Chunk:
    return {**COMMON, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


def azure(text: str) -> Chunk:
    """Keys in the order of the alphabet, the filter's verdict before the text."""
    choice = {"content_filter_results": {"hate": {"content": "x"}}, "delta": {"content": text}, "index": 0}
    return {"choices": [choice], "created": 1, "id": "c", "model": "m"}


def padded(text: str, padding: str) -> Chunk:
    return chunk(text, usage=None, obfuscation=padding)


def frame(payload: bytes) -> bytes:
    return b"data: %b\n\n" % payload


def outcome(reads: list[bytes], *, verbatim: bool, forms: int = openai_stream.FORMS) -> list[object]:
    """What each read gives, and how it ends."""
    decoder = ChunkDecoder(verbatim=verbatim, new_id=lambda: "made")
    decoder._forms_left = forms
    said: list[object] = []
    try:
        said.extend(map(decoder.feed, reads))  # keeps what came before an error
        said.append(decoder.close())
    except UpstreamError as error:
        said.append((error.kind, str(error)))
    return [*said, decoder.skipped]


def odd_frames(dice: random.Random) -> Iterator[bytes]:
    """What may stand between frames of one form, most of it rarely."""
    text = dice.choice(PLAIN + ESCAPED)
    yield frame(json.dumps(chunk(text)).encode())
    yield frame(compact(azure(text)))
    yield frame(compact(chunk(text, created=2)))
    yield frame(compact(chunk(text, usage={"prompt_tokens": 1, "completion_tokens": dice.randrange(9)})))
    yield frame(compact({**COMMON, "choices": [{"index": 1, "delta": {"content": text}}]}))
    yield frame(compact({**COMMON, "choices": [{"delta": {"content": text, "reasoning_content": "Hm"}}]}))
    yield frame(
        compact({**COMMON, "choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]})
    )
    yield b": a comment\n\n"
    yield b"event: error\ndata: {}\n\n" if dice.random() < 0.05 else b"id: 7\n\n"
    yield frame(compact(chunk(text))).replace(b"\n", b"\r\n")
    yield frame(b"[DONE]") if dice.random() < 0.05 else frame(b"{")


def spoilt(data: bytes, dice: random.Random) -> bytes:
    """One frame with one thing wrong in it."""
    at = dice.randrange(len(data))
    byte = dice.choice(b'"\\\n\r\0,:}{ a\xff\xe6')
    return dice.choice(
        (
            data[:at] + data[at + 1 :],
            data[:at] + bytes([byte]) + data[at + 1 :],
            data[:at] + bytes([byte]) + data[at:],
        )
    )


def stream(dice: random.Random) -> list[bytes]:
    """An answer in frames, most of them of one form."""
    form = dice.choice((chunk, azure, lambda text: padded(text, "aB3" * dice.randrange(4))))
    dumps = dice.choice((compact, lambda value: json.dumps(value).encode()))
    frames = [frame(compact({**COMMON, "choices": [{"delta": {"role": "assistant", "content": ""}}]}))]
    for _ in range(dice.randrange(3, 20)):
        good = frame(dumps(form(dice.choice(PLAIN if dice.random() < 0.8 else ESCAPED))))
        what = dice.random()
        frames.append(
            good if what < 0.85 else spoilt(good, dice) if what < 0.93 else dice.choice([*odd_frames(dice)])
        )
    frames.append(frame(compact({**COMMON, "choices": [{"delta": {}, "finish_reason": "stop"}]})))
    return [*frames, frame(b"[DONE]")]


def reads_of(frames: list[bytes], dice: random.Random) -> list[bytes]:
    """Frame by frame, several in a read, or cut anywhere."""
    if dice.random() < 0.2:
        body = b"".join(frames)
        at = sorted(dice.randrange(1, len(body)) for _ in range(dice.randrange(1, 12)))
        return [
            part for start, end in zip([0, *at], [*at, len(body)], strict=True) if (part := body[start:end])
        ]
    reads, several = [], dice.choice((1, 4))
    while frames:
        count = dice.randrange(several) + 1
        reads.append(b"".join(frames[:count]))
        frames = frames[count:]
    return reads


@pytest.mark.parametrize("verbatim", [False, True])
def test_whatever_comes_the_form_says_what_the_parser_would_have_said(verbatim: bool) -> None:
    for seed in range(1500):
        dice = random.Random(seed)
        reads = reads_of(stream(dice), dice)
        assert outcome(reads, verbatim=verbatim) == outcome(reads, verbatim=verbatim, forms=0), (seed, reads)


@pytest.mark.parametrize("verbatim", [False, True])
def test_a_stream_of_one_form_is_said_in_any_cut(verbatim: bool) -> None:
    frames = [
        frame(compact(padded(text, "x" * at))) for at, text in enumerate(("a", '"', "c", "d\\", "", "日"))
    ]
    rest = b"".join(
        [*frames, frame(compact({"choices": [{"delta": {}, "finish_reason": "stop"}]})), frame(b"[DONE]")]
    )
    for cut in cuts.exhaustive(rest):
        reads = [*frames[:3], *cut]
        assert outcome(reads, verbatim=verbatim) == outcome(reads, verbatim=verbatim, forms=0)


@pytest.mark.parametrize(
    "form", [chunk, azure, lambda text: padded(text, "abc"), lambda text: padded(text, "")]
)
@pytest.mark.parametrize("several", [1, 5])
def test_what_has_the_known_form_is_not_parsed(
    form: Any, several: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    decode = openai_stream._decode

    def counted(payload: bytes) -> Any:
        parsed.append(payload)
        return decode(payload)

    monkeypatch.setattr(openai_stream, "_decode", counted)
    decoder = ChunkDecoder(verbatim=True)
    frames = [frame(compact(form(f"{n} "))) for n in range(100)]
    text, raw = "", b""
    for at in range(0, 100, several):
        events = decoder.feed(b"".join(frames[at : at + several]))
        text += "".join(event.text for event in events if isinstance(event, TextDelta))
        raw += b"".join(event.data for event in events if isinstance(event, Verbatim))
    assert text == "".join(f"{n} " for n in range(100))
    assert raw == b"".join(frames)
    assert len(parsed) <= 2 * several + 2, "two reads, and a probe or two"


def test_forms_are_not_learnt_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[bytes] = []

    def counted(payload: bytes, *rest: Any, **more: Any) -> Any:
        learnt.append(payload)
        return learn(payload, *rest, **more)

    monkeypatch.setattr(openai_stream, "learn", counted)
    decoder = ChunkDecoder()
    for number in range(1000):
        assert decoder.feed(frame(compact(chunk("Hi", id=str(number)))))[-1] == TextDelta("Hi")
    assert len(learnt) == openai_stream.FORMS


@pytest.mark.parametrize(
    "value",
    [
        chunk("Hi", usage={"prompt_tokens": 1, "completion_tokens": 1}),
        chunk("Hi", error={"message": "no"}),
        {"choices": [{"delta": {"content": "Hi", "reasoning": "Hm"}}]},
        {"choices": [{"delta": {"content": "Hi", "refusal": "No"}}]},
        {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]},
        {
            "choices": [
                {
                    "delta": {
                        "content": "Hi",
                        "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}],
                    }
                }
            ]
        },
        {"choices": [{"index": 1, "delta": {"content": "Hi"}}]},
        {"choices": [{"delta": {"content": [{"type": "text", "text": "Hi"}]}}]},
        {"choices": [], "content": "Hi"},
        {"content": "Hi", "choices": [{"delta": {}}]},
        {"choices": [{"delta": {"content": "Hi"}}], "odd\\": 1},
    ],
)
def test_a_chunk_that_says_more_than_a_text_has_no_form(value: Chunk) -> None:
    assert learn(compact(value), _text_of, verbatim=False) is None


def test_of_two_keys_that_look_alike_the_text_is_the_one_that_the_parser_takes() -> None:
    payload = compact(
        {"meta": {"content": "not this"}, "choices": [{"index": 0, "delta": {"content": "this"}}]}
    )
    form = learn(payload, _text_of, verbatim=False)
    assert form is not None
    assert form.events(frame(payload)) == [TextDelta("this")]
    other: list[StreamEvent] | None = form.events(frame(payload.replace(b"not this", b"neither")))
    assert other is None


@pytest.mark.parametrize(
    "slots",
    [
        [b'a","b', b"c"],
        [b'a","b', b"x\\"],
        [b"x\\", b'a","b'],
        [b"x\\", b"y"],
        [b"x\\", b',"b'],
        [b"x", b"y\\"],
        [b'"', b'"'],
        [b"\\n", b'\\"'],
        [b"a\nb", b"c"],
        [b"a\n\nb", b"c"],
    ],
)
def test_texts_that_are_no_strings_alone_are_none_together(slots: list[bytes]) -> None:
    around = compact(chunk("TEXT")).split(b"TEXT")
    good = frame(compact(chunk("Hi")))
    spoilt_read = b"".join(frame(slot.join(around)) for slot in slots)
    reads = [good, good, good, spoilt_read, good]
    assert outcome(reads, verbatim=True) == outcome(reads, verbatim=True, forms=0)


def test_a_chunk_of_several_lines_has_no_form() -> None:
    lines = b'data: {"choices":[{"delta":\ndata: {"content":"Hi"}}]}\n\n'
    bare = b'data: {"choices":[{"delta":\n{"content":"Hi"}}]}\n\n'
    reads = [lines, lines, lines, bare]
    assert outcome(reads, verbatim=True) == outcome(reads, verbatim=True, forms=0)


def test_chunks_of_many_slots_are_not_all_tried() -> None:
    tried: list[bytes] = []

    def text_of(payload: bytes) -> str:
        tried.append(payload)
        return ""

    assert learn(compact({"found": [{"content": "x"}] * 100}), text_of, verbatim=False) is None
    assert len(tried) == SLOTS
    assert learn(compact({"found": [{"content": "x"}] * 1000}), text_of, verbatim=False) is None
    assert len(tried) == SLOTS, "it is too long"


def test_a_text_beside_a_tool_call_has_no_form() -> None:
    """The call's place is remembered by the parser, though it says nothing yet."""
    both = frame(compact({"choices": [{"delta": {"content": "1", "tool_calls": [{"index": 0, "id": "A"}]}}]}))
    started = {"index": 1, "id": "B", "function": {"name": "f"}}
    other = frame(compact({"choices": [{"delta": {"tool_calls": [started]}}]}))
    more = frame(compact({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]}))
    reads = [both, both, other, both, more]
    assert outcome(reads, verbatim=True) == outcome(reads, verbatim=True, forms=0)
