"""How answers end, how often their usage is told, and which calls and characters stand in them: every dialect
and lane."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.backends.protocol import Decoder
from sluice.errors import UpstreamError
from sluice.model.events import Finished, ToolCallStarted, Usage
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.anthropic.stream import MessagesDecoder
from sluice_plugins.ollama.backend import Ollama
from sluice_plugins.ollama.stream import ChatDecoder
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.stream import ChunkDecoder
from tests.plugins.lanes import (
    DONE,
    LANES,
    PASSED_ON,
    TRANSLATED,
    USAGE,
    WHOLE,
    Heard,
    Value,
    call,
    chunk,
    document,
    events,
    heard,
    lines,
    openai,
    sse,
)  # fmt: skip
from tests.wire import cuts

HI = chunk({"content": "Hi"})
CALLED = chunk(call("{}", name="f", index=0, id="a", type="function"))
lanes = pytest.mark.parametrize("name", LANES)
translated = pytest.mark.parametrize("name", TRANSLATED)


def said(text: str, finish: str | None, *calls: tuple[str, str], reasoning: str = "", error: str = "") -> Any:
    return text, reasoning, list(calls), finish, error


# ends: OpenAI

CUT = "truncated"
ENDS: list[tuple[str, bytes, str, str, int]] = [
    ("a reason, then [DONE]", sse(HI, chunk({}, "length"), DONE), "length", "", 0),
    ("a reason, then the body's end", sse(HI, chunk({}, "stop")), "stop", "", 0),
    ("[DONE] alone", sse(HI, DONE), "stop", "", 1),
    ("[DONE] alone, behind a call", sse(CALLED, DONE), "tool_calls", "", 1),
    ("[DONE] alone, behind usage", sse(HI, USAGE, DONE), "stop", "", 1),
    ("an empty reason is none", sse(chunk({"content": "Hi"}, ""), DONE), "stop", "", 1),
    ("a reason of no text is none", sse(chunk({"content": "Hi"}, True), chunk({}, {"x": 1}), DONE), "stop", "", 1),
    ("an empty reason, then one", sse(chunk({"content": "Hi"}, ""), chunk({}, "length"), DONE), "length", "", 0),
    ("stop behind a call", sse(CALLED, chunk({}, "stop"), DONE), "tool_calls", "", 0),
    ("a vendor's stop behind a call", sse(CALLED, chunk({}, "eos"), DONE), "tool_calls", "", 0),
    ("length behind a call", sse(CALLED, chunk({}, "length"), DONE), "length", "", 0),
    ("the last frame's empty line is missing", sse(HI, chunk({}, "stop"))[:-1], "stop", "", 0),
    ("the last frame has no line end", sse(HI, chunk({}, "stop"))[:-2], "stop", "", 0),
    ("the last frame is CRLF", sse(HI, chunk({}, "stop")).replace(b"\n", b"\r\n")[:-2], "stop", "", 0),
    ("[done]", sse(HI) + b"data: [done]\n\n", "stop", "", 1),
    ("[DONE] without a line end", sse(HI, DONE)[:-2], "stop", "", 1),
    ("neither", sse(HI), "", CUT, 0),
    ("usage alone", sse(HI, USAGE), "", CUT, 0),
    ("half a last frame", sse(HI, chunk({}, "stop"))[:-4], "", CUT, 0),
    *((f"the failure {word}", sse(HI, chunk({}, word), USAGE, DONE), "", kind, 0) for word, kind in [
        ("network_error", "stream_error"), ("insufficient_system_resource", "overloaded"), ("abort", "stream_error"),
        ("error", "stream_error"), ("ERROR", "stream_error"), ("timeout", "stream_error"), ("server_error", "stream_error"),
        ("Internal-Error", "stream_error"), ("failed", "stream_error"), ("generation failed", "stream_error"),
        ("request_cancelled", "stream_error"), ("UNEXPECTED_TOOL_CALL", "stream_error"), ("timed_out", "stream_error"),
        ("engine_overloaded", "overloaded"), ("system_busy", "overloaded"), ("SERVICE_UNAVAILABLE", "overloaded"),
    ]),
]  # fmt: skip


@lanes
@pytest.mark.parametrize(
    ("body", "finish", "error", "missing"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS]
)
def test_openais_ends(name: str, body: bytes, finish: str, error: str, missing: int) -> None:
    lane = LANES[name]
    for reads in ([body], *cuts.single(body, 7), cuts.bytewise(body)):
        decoder = OpenAI().decoder(verbatim=lane.verbatim)
        found = heard(lane, decoder, reads)
        assert (found.error, found.finish or "") == (error, finish)
        assert decoder.finish_missing == missing  # type: ignore[attr-defined]
        if not error:
            calls = [("f", "{}")] if b"tool_calls" in body else []
            assert (found.text, found.calls) == ("" if calls else "Hi", calls)


@lanes
def test_a_text_beside_a_failure_is_told(name: str) -> None:
    found = openai(LANES[name], [sse(HI, chunk({"content": "!"}, "network_error"), DONE)])
    assert found.error == "stream_error"
    assert found.text == ("" if LANES[name].read.__name__ == "of_completion" else "Hi!")


@lanes
def test_usage_behind_content_is_an_end_where_an_upstream_is_known_for_it(name: str) -> None:
    assert openai(LANES[name], [sse(HI, USAGE)], usage_is_end=True).said == said("Hi", "stop")
    assert openai(LANES[name], [sse(CALLED, USAGE)], usage_is_end=True).said == said(
        "", "tool_calls", ("f", "{}")
    )
    assert openai(LANES[name], [sse(HI)], usage_is_end=True).error == CUT
    assert openai(LANES[name], [sse(USAGE)], usage_is_end=True).error


@lanes
def test_the_providers_stop_is_kept_where_that_is_wanted(name: str) -> None:
    assert openai(LANES[name], [sse(CALLED, chunk({}, "stop"), DONE)], keep_stop=True).finish == "stop"
    assert openai(LANES[name], [sse(CALLED, DONE)], keep_stop=True).finish == "tool_calls", "it said none"


def whole(message: Value, finish: Any = "stop", usage: Any = None) -> Value:
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


@lanes
@pytest.mark.parametrize("content", ["Hi", [{"type": "text", "text": "Hi"}]])
def test_a_frame_that_is_a_whole_answer_is_one(name: str, content: Any) -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = whole({"role": "assistant", "content": content, "tool_calls": calls}, "tool_calls")
    for body in (sse(answer, DONE), sse(answer), sse(chunk({"role": "assistant"}), answer), sse(answer)[:-1]):
        for reads in ([body], *cuts.single(body, 17)):
            assert openai(LANES[name], reads).said == said("Hi", "tool_calls", ("f", "{}"))


@lanes
def test_a_message_that_repeats_what_was_said_is_no_second_answer(name: str) -> None:
    last = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
    }
    assert openai(LANES[name], [sse(HI, last, DONE)]).said == said("Hi", "stop")


@lanes
def test_chunks_may_be_lines_or_a_list(name: str) -> None:
    chunks = [HI, CALLED, chunk({}, "tool_calls")]
    for body in (
        lines(*chunks),
        lines(*chunks)[:-1],
        json.dumps(chunks).encode(),
        json.dumps(chunks, indent=1).encode(),
    ):
        assert openai(LANES[name], [body]).said == said("Hi", "tool_calls", ("f", "{}"))
    assert openai(LANES[name], [lines(HI, CALLED, chunk({}, "error"))]).error == "stream_error"
    assert openai(LANES[name], [lines(HI, HI)]).error == CUT


@translated
def test_an_event_that_is_a_whole_message_is_one(name: str) -> None:
    message = {
        "type": "message",
        "id": "m",
        "model": "m",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
    }
    for body in (sse(message), events(message), events({"type": "ping"}, message)):
        assert heard(TRANSLATED[name], MessagesDecoder(), [body]).said == said("Hi", "stop")


def test_a_whole_answers_ends() -> None:
    text: Value = {"role": "assistant", "content": "Hi"}
    calls: Value = {
        "content": None,
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}],
    }
    assert document(whole(text, "")).said == document(whole(text, None)).said == said("Hi", "stop")
    assert (
        document(whole(calls, None)).said
        == document(whole(calls, "stop")).said
        == said("", "tool_calls", ("f", "{}"))
    )
    assert document(whole(calls, "stop"), keep_stop=True).finish == "stop"
    assert document(whole(text, "network_error")).error == "stream_error"
    assert document(whole(text, "insufficient_system_resource")).error == "overloaded"
    decoder = OpenAI().whole_decoder()
    decoder.feed(b'{"choices":[{"message":{"content":"Hi"}}]}')
    decoder.close()
    assert decoder.finish_missing == 1  # type: ignore[attr-defined]


# ends: the others

START: Value = {"type": "message_start", "message": {"id": "m", "model": "m", "usage": {"input_tokens": 5}}}
TEXT: Value = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
TOOL: Value = {
    "type": "content_block_start",
    "index": 1,
    "content_block": {"type": "tool_use", "id": "a", "name": "f"},
}
STOP: Value = {"type": "message_stop"}
BLOCK: Value = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}


def ended(reason: str | None) -> Value:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7}}


MESSAGE_ENDS: list[tuple[str, bytes, Any]] = [
    ("a reason", events(START, TEXT, ended("max_tokens"), STOP), said("Hi", "length")),
    ("no message_stop", events(START, TEXT, ended("end_turn")), said("Hi", "stop")),
    ("no reason", events(START, TEXT, STOP), said("Hi", "stop")),
    ("no reason behind a call", events(START, TOOL, STOP), said("", "tool_calls", ("f", "{}"))),
    (
        "end_turn behind a call",
        events(START, TOOL, ended("end_turn"), STOP),
        said("", "tool_calls", ("f", "{}")),
    ),
    ("an empty reason", events(START, TEXT, ended(""), STOP), said("Hi", "stop")),
    ("no empty line", events(START, TEXT, STOP)[:-1], said("Hi", "stop")),
    ("no line end", events(START, TEXT, ended("end_turn"))[:-2], said("Hi", "stop")),
    ("[DONE]", events(START, BLOCK, TEXT) + b"data: [DONE]\n\n", said("Hi", "stop")),
    ("[DONE] behind a call", events(START, TOOL) + b"data: [DONE]\n\n", said("", "tool_calls", ("f", "{}"))),
]


@translated
@pytest.mark.parametrize(
    ("body", "expected"), [row[1:] for row in MESSAGE_ENDS], ids=[row[0] for row in MESSAGE_ENDS]
)
def test_anthropics_ends(name: str, body: bytes, expected: Any) -> None:
    for reads in ([body], cuts.bytewise(body), *cuts.single(body, 11)):
        decoder = Anthropic().decoder()
        assert heard(TRANSLATED[name], decoder, reads).said == expected
        assert decoder.finish_missing == (b'stop_reason": "' not in body.replace(b'""', b""))


@translated
def test_anthropics_cuts_and_failures(name: str) -> None:
    def ends(body: bytes, **options: Any) -> Heard:
        return heard(TRANSLATED[name], Anthropic(**options).decoder(), [body])

    assert ends(events(START, TEXT)).error == CUT
    assert ends(events(START) + b"data: [DONE]\n\n").error == CUT
    assert ends(events(START, TEXT, ended(None))).error == CUT
    assert ends(events(START, TEXT, ended(None)), usage_is_end=True).said == said("Hi", "stop")
    assert ends(events(START, TEXT), usage_is_end=True).error == CUT
    assert ends(events(START, TEXT, ended("error"), STOP)).error == "stream_error"
    assert ends(events(START, TOOL, ended("end_turn"), STOP), keep_stop=True).finish == "stop"


def line(content: str = "", **fields: Any) -> Value:
    return {"model": "m", "message": {"role": "assistant", "content": content}, "done": False, **fields}


TOOLS: Value = line(message={"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]})


@translated
def test_ollamas_ends(name: str) -> None:
    def ends(*found: Value, cut: int = 0, **options: Any) -> Heard:
        body = lines(*found)
        return heard(TRANSLATED[name], Ollama(**options).decoder(), [body[: len(body) - cut]])

    assert ends(line("Hi"), line(done=True, done_reason="length")).said == said("Hi", "length")
    assert ends(line("Hi"), line(done=True), cut=1).said == said("Hi", "stop")
    assert ends(line("Hi"), line(done="true", done_reason=None)).said == said("Hi", "stop")
    assert ends(TOOLS, line(done=True, done_reason="stop")).said == said("", "tool_calls", ("f", "{}"))
    assert ends(TOOLS, line(done=True, done_reason="stop"), keep_stop=True).finish == "stop"
    assert ends(line("Hi")).error == CUT
    assert ends(line("Hi"), line(done=True), cut=3).error == CUT
    assert ends(line("Hi"), line(done=True, done_reason="error")).error == "stream_error"
    decoder = ChatDecoder()
    decoder.feed(lines(line("Hi"), line(done=True)))
    assert decoder.finish_missing == 1


# usage

ON_CHOICE = {
    "prompt_tokens": 5,
    "completion_tokens": 7,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 1},
}
USAGES: list[tuple[str, list[Any]]] = [
    ("on the finish", [HI, chunk({}, "stop", usage=ON_CHOICE)]),
    (
        "on every chunk",
        [
            chunk({"content": "Hi"}, usage={**ON_CHOICE, "completion_tokens": 1}),
            chunk({}, "stop", usage=ON_CHOICE),
        ],
    ),
    ("in a chunk of its own", [HI, chunk({}, "stop"), chunk(choices=[], usage=ON_CHOICE)]),
    ("twice", [HI, chunk({}, "stop", usage=ON_CHOICE), chunk(choices=[], usage=ON_CHOICE)]),
    (
        "and then null",
        [HI, chunk({}, "stop", usage=ON_CHOICE), chunk(choices=[], usage={"prompt_tokens": None})],
    ),
    ("partial", [HI, chunk({}, "stop", usage={"prompt_tokens": 5, "total_tokens": 12})]),
    ("without a total", [HI, chunk({}, "stop", usage={"prompt_tokens": 5, "completion_tokens": 7})]),
    ("in other words", [HI, chunk({}, "stop", usage={"input_tokens": 5, "output_tokens": 7})]),
    (
        "with a vendor's text",
        [
            chunk({"content": "Hi"}, usage={**ON_CHOICE, "note": 'a "}{" b'}),
            chunk({}, "stop", usage=ON_CHOICE),
        ],
    ),
]


@lanes
@pytest.mark.parametrize("chunks", [row[1] for row in USAGES], ids=[row[0] for row in USAGES])
def test_usage_is_told_once_and_only_where_it_was_asked_for(name: str, chunks: list[Any]) -> None:
    body = sse(*chunks, DONE)
    for reads in ([body], [body[:200], body[200:]]):
        found = openai(LANES[name], reads)
        assert found.said == said("Hi", "stop")
        if name in ("frames, unasked", "chunks"):
            continue
        [usage] = found.usages
        assert (
            usage.get("prompt_tokens", 5),
            usage.get("completion_tokens", 7),
            usage.get("total_tokens", 12),
        ) == (5, 7, 12)
    assert openai(LANES["frames, unasked"], [body]).usages == []


def test_a_chunk_without_its_usage_is_the_same_otherwise() -> None:
    decoder = ChunkDecoder(verbatim=True)
    told = decoder.feed(sse(chunk({"content": "Hi"}, usage=ON_CHOICE, extra={"a": [1]})))[-1]
    assert told.data == sse(chunk({"content": "Hi"}, extra={"a": [1]}))  # type: ignore[union-attr]


def test_a_total_is_the_providers_own_word() -> None:
    beside = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 40}
    for name, lane in LANES.items():
        found = openai(lane, [sse(HI, chunk({}, "stop", usage=beside), DONE)])
        assert [usage.get("total_tokens", 40) for usage in found.usages] == (
            [] if name == "frames, unasked" else [40]
        )
    assert document(whole({"content": "Hi"}, usage=beside)).usages == [beside]


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (
            {"prompt_tokens": 5, "completion_tokens": 7},
            {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        ),
        (
            {"completion_tokens": 7, "total_tokens": 12},
            {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
        ),
        ({"prompt_tokens": None, "x": 1}, None),
        ([], None),
        (None, None),
    ],
)
def test_the_usage_of_a_whole_answer_is_completed_or_taken_away(usage: Any, told: Any) -> None:
    assert document(whole({"content": "Hi"}, usage=usage)).usages == ([told] if told else [])


def test_usages_add_up() -> None:
    assert Usage(1, 2, 3, 4).plus(Usage(10, 20, 30, 40)) == Usage(11, 22, 33, 44)
    assert Usage(1, 2, total=9).plus(Usage(10, 20)) == Usage(11, 22, total=39)


# calls

Delta = Value
OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'
TWO = [("w", OSLO), ("w", ROME)]
CALLS: list[tuple[str, list[Delta], list[tuple[str, str]]]] = [
    (
        "one index, no ids",
        [call(OSLO, name="w", index=0, id="", type="function"), call(ROME, name="w", index=0)],
        TWO,
    ),
    (
        "one index, two ids",
        [call(OSLO, name="w", index=0, id="a"), call(ROME, name="w", index=0, id="b")],
        TWO,
    ),
    (
        "one index, one id twice",
        [call(OSLO, name="w", index=0, id="a"), call(ROME, name="w", index=0, id="a")],
        TWO,
    ),
    ("one index, the second nameless", [call(OSLO, name="w", index=0, id="a"), call(ROME, index=0)], TWO),
    (
        "one index, in pieces",
        [
            call("", name="w", index=0),
            call(OSLO[:5], index=0),
            call(OSLO[5:], index=0),
            call("", name="v", index=0, type="function"),
            call(ROME[:1], index=0),
            call(ROME[1:], index=0),
        ],
        [("w", OSLO), ("v", ROME)],
    ),
    (
        "one index, objects",
        [call({"a": 1}, name="w", index=0), call({"a": 2}, name="w", index=0)],
        [("w", '{"a":1}'), ("w", '{"a":2}')],
    ),
    (
        "one index, empty lists",
        [call([], name="w", index=0), call([], name="w", index=0)],
        [("w", "{}"), ("w", "{}")],
    ),
    ("no index, pieces", [call("", name="w", id="a"), call(OSLO[:5]), call(OSLO[5:])], [("w", OSLO)]),
    (
        "no index, new ids",
        [call("", name="w", id="a"), call(OSLO), call("", name="w", id="b"), call(ROME)],
        TWO,
    ),
    (
        "no index, new names",
        [call("", name="w"), call(OSLO), call("", name="v"), call(ROME)],
        [("w", OSLO), ("v", ROME)],
    ),
    (
        "no index, ids in turn",
        [
            call("", name="w", id="a"),
            call("", name="w", id="b"),
            call(OSLO, id="a"),
            call(ROME[:3], id="b"),
            call(ROME[3:]),
        ],
        TWO,
    ),
    ("no index, an id alone", [call("", name="w", id="a"), call(OSLO), call(ROME, id="b")], TWO),
    ("an index only later", [call("", name="w", id="a"), call(OSLO, index=0)], [("w", OSLO)]),
    (
        "a name in pieces",
        [
            call(name="get_", index=0, id="a"),
            call(name="wea", index=0),
            call("", name="ther", index=0),
            call(OSLO, index=0),
        ],
        [("get_weather", OSLO)],
    ),
    (
        "a name in pieces, then arguments with the last",
        [call("", name="get_", index=0, id="a"), call(OSLO, name="weather", index=0)],
        [("get_weather", OSLO)],
    ),
    (
        "a name in pieces, and no arguments",
        [call("", name="get_", index=0, id="a"), call("", name="time", index=0)],
        [("get_time", "")],
    ),
    (
        "a name repeated",
        [
            call("", name="w", index=0, id="a"),
            call(OSLO[:4], name="w", index=0, id="a"),
            call(OSLO[4:], name="w", index=0),
        ],
        [("w", OSLO)],
    ),
    (
        "an id for every piece",
        [
            call("", name="w", index=0, id="a"),
            call(OSLO[:4], index=0, id="b"),
            call(OSLO[4:], index=0, id="c"),
        ],
        [("w", OSLO)],
    ),
    (
        "brackets in texts",
        [call('{"a":"}{\\"', name="w", index=0, id="a"), call('{}"}', index=0)],
        [("w", '{"a":"}{\\"{}"}')],
    ),
    (
        "nested ones",
        [call('{"a":', name="w", index=0, id="a"), call('{"b":1}', index=0), call("}", index=0)],
        [("w", '{"a":{"b":1}}')],
    ),
    (
        "an empty list, then the text",
        [call([], name="w", index=0, id="a"), call(OSLO[:3], index=0), call(OSLO[3:], index=0)],
        [("w", OSLO)],
    ),
    ("arguments of null", [call(None, name="w", index=0, id="a"), call("null", index=0)], [("w", "{}")]),
    (
        "no arguments at all",
        [call(None, name="w", index=0, id="a"), call(None, name="v", index=1, id="b")],
        [("w", "{}"), ("v", "{}")],
    ),
    (
        "an entry that says nothing",
        [{"tool_calls": [{"index": 0}]}, call(OSLO, name="w", index=0, id="a")],
        [("w", OSLO)],
    ),
    (
        "an entry that is empty",
        [{"tool_calls": [{}, call(OSLO, name="w", id="a")["tool_calls"][0], {"index": 7}]}],
        [("w", OSLO)],
    ),
    (
        "in turns",
        [
            call("", name="w", index=0, id="a"),
            call("", name="v", index=1, id="b"),
            call(OSLO, index=0),
            call(ROME, index=1),
        ],
        [("w", OSLO), ("v", ROME)],
    ),
]


@lanes
@pytest.mark.parametrize(("deltas", "calls"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS])
def test_openais_calls_are_told_apart(name: str, deltas: list[Delta], calls: list[tuple[str, str]]) -> None:
    for end in ([chunk({}, "tool_calls"), DONE], [chunk({}, "stop")], [DONE]):
        body = sse(*map(chunk, deltas), *end)
        for reads in ([body], cuts.bytewise(body)):
            found = openai(LANES[name], reads)
            assert found.said == said("", "tool_calls", *calls)
            assert len({*found.ids}) == len(calls)
            assert all(found.ids)


@pytest.mark.parametrize(
    "first",
    [call(OSLO, name="w", id="a"), call(OSLO, name="w", index=3, id="a"), call(OSLO, name="w", index=0)],
)
@pytest.mark.parametrize("type_", ["function", "", None])
def test_a_call_that_is_put_right_has_a_type(first: Delta, type_: str | None) -> None:
    """openai's helper for JavaScript refuses a call without one, once the call has an index."""
    [entry] = first["tool_calls"]
    body = sse(chunk({"tool_calls": [{**entry, **({} if type_ is None else {"type": type_})}]}), DONE)
    for reads in ([body], cuts.bytewise(body)):
        decoder = ChunkDecoder(verbatim=True)
        frames = b"".join(e.data for read in map(decoder.feed, reads) for e in read if hasattr(e, "data"))
        [told] = json.loads(frames.split(b"\n\n")[0][6:])["choices"][0]["delta"]["tool_calls"]
        assert (told["index"], told["type"], told["function"]) == (0, "function", entry["function"])
        assert told["id"]


@lanes
def test_a_text_behind_a_name_comes_behind_its_call(name: str) -> None:
    body = sse(chunk(call("", name="f", index=0, id="a")), HI, HI, HI, chunk({}, "stop"), DONE)
    assert openai(LANES[name], [body]).said == said("HiHiHi", "tool_calls", ("f", ""))
    decoder = ChunkDecoder(verbatim=True)
    decoder.feed(sse(chunk(call("", name="f", index=0, id="a"))))
    kinds = [type(event) for event in decoder.feed(sse(HI))]
    assert kinds.index(ToolCallStarted) == 0


def test_frames_in_the_standards_form_are_passed_on_to_the_byte() -> None:
    deltas = [
        call("", name="w", index=0, id="a", type="function"),
        call(OSLO[:5], index=0),
        call(OSLO[5:], index=0),
    ]
    deltas += [call("", name="v", index=1, id="b", type="function"), call("{}", index=1)]
    body = sse(*map(chunk, deltas), chunk({}, "tool_calls"))
    for reads in ([body], cuts.bytewise(body)):
        decoder = ChunkDecoder(verbatim=True)
        frames = [
            e.data
            for read in [*map(decoder.feed, reads), decoder.close()]
            for e in read
            if hasattr(e, "data")
        ]
        assert b"".join(frames) == body


def test_an_answer_with_several_choices_has_calls_in_each() -> None:
    both = [chunk({}), chunk({})]
    for place, part in enumerate(both):
        part["choices"] = [
            {"index": n, "delta": call(OSLO if place == 0 else ROME, name="w", index=0, id="")} for n in range(2)
        ]  # fmt: skip
    decoder = ChunkDecoder(verbatim=True)
    frames = b"".join(e.data for e in decoder.feed(sse(*both, DONE)) if hasattr(e, "data"))
    indexes = [
        (choice["index"], entry["index"], choice.get("finish_reason"))
        for data in frames.decode().split("\n\n")[:-1]
        for choice in json.loads(data[6:])["choices"]
        for entry in choice["delta"].get("tool_calls", [{"index": None}])
    ]
    assert indexes == [
        (0, 0, None), (1, 0, None), (0, 1, None), (1, 1, None), (0, None, "tool_calls"), (1, None, "tool_calls"),
    ]  # fmt: skip


ID_LESS: dict[str, Callable[[], tuple[Decoder, bytes]]] = {
    "openai": lambda: (ChunkDecoder(), sse(chunk(call("{}", name="f", index=0)), DONE)),
    "anthropic": lambda: (
        MessagesDecoder(),
        events(START, {**TOOL, "content_block": {"type": "tool_use", "name": "f"}}, STOP),
    ),
    "ollama": lambda: (ChatDecoder(), lines(TOOLS, line(done=True))),
}


@translated
@pytest.mark.parametrize("dialect", ID_LESS)
def test_calls_without_an_id_are_given_one_that_no_other_answer_has(name: str, dialect: str) -> None:
    found = []
    for _ in range(3):
        decoder, body = ID_LESS[dialect]()
        found += heard(TRANSLATED[name], decoder, [body]).ids
    assert len({*found}) == 3
    assert all(found)


def test_frames_and_whole_answers_without_ids_are_given_some() -> None:
    body = sse(chunk(call("{}", name="f", index=0)), chunk(call("{}", name="g", index=1)), DONE)
    answer = whole(
        {
            "tool_calls": [
                {"function": {"name": "f", "arguments": "{}"}},
                {"id": "", "function": {"name": "g"}},
            ]
        }
    )
    found = [
        id_
        for lane, _ in itertools.product(PASSED_ON.values(), range(2))
        for id_ in openai(lane, [body]).ids + document(answer).ids
    ]
    assert len({*found}) == len(found)
    assert all(found)


# ids that the conversation has already

TAKEN = frozenset({"call_0", "call_1"})
COUNTED: dict[str, list[Any]] = {
    "in order": [
        chunk(call('{"a":', name="f", index=0, id="call_0", type="function")),
        chunk(call("1}", index=0)),
        chunk(call("{}", name="g", index=1, id="call_7", type="function")),
    ],
    "ids on every piece": [
        chunk(call('{"a":', name="f", index=0, id="call_0")),
        chunk(call("1}", index=0, id="call_0")),
        chunk(call("{}", name="g", index=1, id="call_7")),
    ],
    "no indexes": [
        chunk(call('{"a":', name="f", id="call_0")),
        chunk(call("", name="g", id="call_7")),
        chunk(call("1}", id="call_0")),
        chunk(call("{}", id="call_7")),
    ],
    "a name in pieces": [
        chunk(call("", name="f", index=0, id="call_0")),
        chunk(call('{"a":1}', index=0, id="call_0")),
        chunk(call("{}", name="g", index=1, id="call_7")),
    ],
}


@lanes
@pytest.mark.parametrize("deltas", COUNTED.values(), ids=COUNTED)
def test_an_id_of_an_earlier_call_is_given_to_no_other(name: str, deltas: list[Any]) -> None:
    body = sse(*deltas, chunk({}, "tool_calls"), DONE)
    for reads in ([body], cuts.bytewise(body)):
        decoder = OpenAI().decoder(verbatim=LANES[name].verbatim)
        decoder.distinguish(TAKEN)
        found = heard(LANES[name], decoder, reads)
        assert found.said == said("", "tool_calls", ("f", '{"a":1}'), ("g", "{}"))
        assert found.ids[1] == "call_7"
        assert found.ids[0]
        assert found.ids[0] not in TAKEN


def test_an_id_of_an_earlier_call_is_none_in_whole_answers_and_other_dialects() -> None:
    answer = whole(
        {"tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    )
    counted = line(message={"tool_calls": [{"id": "call_0", "function": {"name": "f", "arguments": {}}}]})
    block = {**TOOL, "content_block": {"type": "tool_use", "id": "call_0", "name": "f"}}
    for lane, decoder, body in [
        (WHOLE, OpenAI().whole_decoder(), json.dumps(answer).encode()),
        *((lane, MessagesDecoder(), events(START, block, STOP)) for lane in TRANSLATED.values()),
        *((lane, ChatDecoder(), lines(counted, line(done=True))) for lane in TRANSLATED.values()),
    ]:
        decoder.distinguish(TAKEN)
        found = heard(lane, decoder, [body])
        assert found.calls == [("f", "{}")]
        assert found.ids[0]
        assert found.ids[0] not in TAKEN


# surrogates

FACE = "\N{GRINNING FACE}"
units = st.lists(
    st.sampled_from(["\ud83d", "\ude00", "a", "\N{GREEK SMALL LETTER ALPHA}", FACE, '"', "\\"]), max_size=4
).map("".join)
pieces = st.lists(units, min_size=1, max_size=5)


def whole_text(found: list[str]) -> str:
    return "".join(found).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@given(pieces, st.sampled_from(sorted(LANES)), st.booleans())
@settings(deadline=None)
def test_openais_halves_are_joined(found: list[str], name: str, done_alone: bool) -> None:
    end = [DONE] if done_alone else [chunk({}, "stop"), DONE]
    texts = [chunk({"content": piece}, vendor={"\ud83d": ["\ude00"]}) for piece in ["<", *found]]
    thoughts = [chunk({"reasoning_content": piece}) for piece in found]
    called = [
        chunk(call("", name="f", index=0, id="a")),
        *(chunk(call(piece, index=0)) for piece in ["[", *found]),
    ]
    assert openai(LANES[name], [sse(*thoughts, *texts, *called, *end)]).said == said(
        "<" + whole_text(found), "tool_calls", ("f", "[" + whole_text(found)), reasoning=whole_text(found)
    )


@given(pieces, st.sampled_from(sorted(TRANSLATED)))
@settings(deadline=None)
def test_anthropics_and_ollamas_halves_are_joined(found: list[str], name: str) -> None:
    deltas = [{**TEXT, "delta": {"type": "text_delta", "text": piece}} for piece in ["<", *found]]
    thoughts = [
        {**TEXT, "index": 1, "delta": {"type": "thinking_delta", "thinking": piece}} for piece in found
    ]
    body = events(
        START,
        *thoughts,
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_stop", "index": 1},
        STOP,
    )
    expected = said("<" + whole_text(found), "stop", reasoning=whole_text(found))
    assert heard(TRANSLATED[name], MessagesDecoder(), [body]).said == expected
    thinking = [line(message={"thinking": piece}) for piece in found]
    body = lines(*thinking, *map(line, ["<", *found]), line(done=True))
    assert heard(TRANSLATED[name], ChatDecoder(), [body]).said == expected


def test_halves_in_names_ids_and_models_are_no_trouble() -> None:
    odd = chunk(
        call("{}", name="f\ud83d", index=0, id="\ude00", type="function"), model="\ud83d", id="\ude00"
    )
    for lane in LANES.values():
        assert openai(lane, [sse(odd, DONE)]).calls == [("f\N{REPLACEMENT CHARACTER}", "{}")]
    for decoder, body in (
        (MessagesDecoder(), events({**START, "message": {"id": "\ud83d", "model": "\ude00"}}, TEXT, STOP)),
        (ChatDecoder(), lines(line("Hi", model="\ud83d"), line(done=True))),
    ):
        assert heard(TRANSLATED["chunks"], decoder, [body]).said == said("Hi", "stop")


def test_entries_of_a_whole_answer_that_say_nothing_are_no_calls() -> None:
    entries: list[Value] = [{}, {"id": "a", "function": {"name": "f", "arguments": []}}, {"index": 3}]
    assert document(whole({"content": "Hi", "tool_calls": entries}, "stop")).said == said(
        "Hi", "tool_calls", ("f", "{}")
    )
    assert document(whole({"content": "Hi", "tool_calls": [{}]}, "stop")).said == said("Hi", "stop")


def test_halves_in_a_whole_answer() -> None:
    answer = whole({"content": "a\ud83d", "vendor": ["\ude00"], "reasoning_content": "\ud83d\ude00"})
    assert document(answer).said == said("a\N{REPLACEMENT CHARACTER}", "stop", reasoning=FACE)


# large events

IMAGE = "A" * (2 << 20)


def test_an_event_of_some_mebibytes_is_passed_on_and_bounded_by_the_upstreams_option() -> None:
    body = sse(HI, chunk({"images": [{"image_url": {"url": IMAGE}}]}), chunk({}, "stop"), DONE)
    reads = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    assert openai(LANES["frames"], reads).said == said("Hi", "stop")
    assert openai(LANES["ndjson"], reads).said == said("Hi", "stop")
    assert openai(LANES["put together"], reads).said == said("Hi", "stop")
    assert openai(LANES["frames"], reads, max_event=1 << 20).error == "garbled"


def test_the_other_dialects_have_the_same_bound() -> None:
    tool = {**TOOL, "content_block": {**TOOL["content_block"], "input": {"x": IMAGE}}}
    lane = TRANSLATED["whole"]
    assert len(heard(lane, Anthropic().decoder(), [events(START, tool, STOP)]).calls[0][1]) > len(IMAGE)
    assert heard(lane, Anthropic(max_event=1 << 20).decoder(), [events(START, tool, STOP)]).error == "garbled"
    assert heard(lane, Ollama().decoder(), [lines(line(IMAGE), line(done=True))]).text == IMAGE
    assert (
        heard(lane, Ollama(max_event=1 << 20).decoder(), [lines(line(IMAGE), line(done=True))]).error
        == "garbled"
    )


def test_a_finish_that_fails_beside_content_is_an_error_behind_it() -> None:
    decoder = ChunkDecoder()
    assert not any(isinstance(event, Finished) for event in decoder.feed(sse(HI, chunk({}, "abort"))))
    with pytest.raises(UpstreamError):
        decoder.feed(b"")


def test_usage_is_known_of_an_answer_that_does_not_come_to_its_end() -> None:
    halves = {
        "openai": (ChunkDecoder(), sse(HI, chunk({"content": "!"}, usage=ON_CHOICE))),
        "anthropic": (MessagesDecoder(), events(START, TEXT)),
        "ollama": (ChatDecoder(), lines(line("Hi"))),
    }
    for name, (decoder, body) in halves.items():
        assert decoder.reported is None
        decoder.feed(body)
        told = decoder.reported
        assert (told and (told.input, told.output)) == {
            "openai": (5, 7),
            "anthropic": (5, 0),
            "ollama": None,
        }[name]
