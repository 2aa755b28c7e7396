"""Text, reasoning, tool calls and finish do not depend on the type of any other field, in any dialect and
lane."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.backends.protocol import Decoder
from sluice_plugins.anthropic.stream import MessagesDecoder
from sluice_plugins.ollama.stream import ChatDecoder
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.stream import ChunkDecoder
from tests.plugins.lanes import (
    DONE,
    LANES,
    TRANSLATED,
    USAGE,
    Heard,
    Lane,
    call,
    chunk,
    document,
    events,
    heard,
    lines,
    openai,
    sse,
)  # fmt: skip

Path = tuple[str | int, ...]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text("ab{1", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), inner, max_size=2)
    ),
    max_leaves=4,
)
no_numbers = json_values.filter(lambda value: type(value) not in (int, float, str))
"""In place of an index: another number is another index."""


def with_field(value: Any, path: Path, odd: Any) -> Any:
    changed = copy.deepcopy(value)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = odd
    return changed


# OpenAI

CHUNKS: list[Any] = [
    chunk({"role": "assistant", "content": ""}, service_tier="x", system_fingerprint="f"),
    chunk({"reasoning_content": "Hm. "}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk(call("", name="f", index=0, id="a", type="function")),
    chunk(call('{"x":', index=0)),
    chunk(call("1}", index=0)),
    chunk(call("{}", name="g", index=1, id="b", type="function")),
    chunk({}, "tool_calls"),
    USAGE,
]
SAID = ("Hello", "Hm. ", [("f", '{"x":1}'), ("g", "{}")], "tool_calls", "")
TOP: list[Path] = [
    (name,)
    for name in ("id", "object", "created", "model", "system_fingerprint", "x_groq", "obfuscation", "usage")
]
FIELDS: list[tuple[int, Path]] = [
    *((at, path) for at in range(len(CHUNKS)) for path in TOP),
    *(
        (at, ("choices", 0, name))
        for at in range(9)
        for name in ("logprobs", "content_filter_results", "usage", "stop_reason")
    ),
    *(
        (at, ("choices", 0, "delta", name))
        for at in range(9)
        for name in ("role", "annotations", "images", "reasoning_details")
    ),
    *((at, ("choices", 0, "delta", "function_call")) for at in (2, 3)),
    *((at, ("choices", 0, "delta", "tool_calls")) for at in (2, 3)),
    *((at, ("choices", 0, "delta", "reasoning")) for at in (1,)),
    *((at, ("choices", 0, "delta", "tool_calls", 0, name)) for at in (4, 7) for name in ("id", "type")),
]
INDEXES: list[tuple[int, Path]] = [
    *((at, ("choices", 0, "index")) for at in range(9)),
    *((at, ("choices", 0, "delta", "tool_calls", 0, "index")) for at in (4, 5, 6, 7)),
]


@given(st.sampled_from(FIELDS), json_values, st.sampled_from(sorted(LANES)))
@settings(max_examples=400, deadline=None)
def test_openai_says_the_same_whatever_stands_in_another_field(
    where: tuple[int, Path], odd: Any, name: str
) -> None:
    at, path = where
    body = sse(*CHUNKS[:at], with_field(CHUNKS[at], path, odd), *CHUNKS[at + 1 :], DONE)
    assert openai(LANES[name], [body]).said == SAID


@given(st.sampled_from(INDEXES), no_numbers, st.sampled_from(sorted(LANES)))
@settings(max_examples=200, deadline=None)
def test_openai_says_the_same_whatever_stands_for_an_index(
    where: tuple[int, Path], odd: Any, name: str
) -> None:
    at, path = where
    body = sse(*CHUNKS[:at], with_field(CHUNKS[at], path, odd), *CHUNKS[at + 1 :], DONE)
    assert openai(LANES[name], [body]).said == SAID


TEXTS: list[tuple[Any, str]] = [
    ("5", "5"),
    (5, "5"),
    (2.5, "2.5"),
    (["a", "b"], "ab"),
    ([{"type": "text", "text": "a"}, {"type": "text", "text": 7}], "a7"),
    ([{"type": "text", "text": None}, {"text": "b"}], "b"),
    ([{"type": "output_text", "text": "a", "annotations": []}, "b"], "ab"),
    ([], ""),
    (None, ""),
    (True, ""),
]


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize(("odd", "text"), TEXTS)
def test_openai_texts_are_read_for_what_they_are(name: str, odd: Any, text: str) -> None:
    body = sse(chunk({"content": "<"}), chunk({"content": odd}), chunk({"content": ">"}, "stop"), USAGE, DONE)
    assert openai(LANES[name], [body]).said == (f"<{text}>", "", [], "stop", "")
    body = sse(chunk({"reasoning_content": odd}), chunk({"content": "Hi"}, "stop"), DONE)
    assert openai(LANES[name], [body]).said == ("Hi", text, [], "stop", "")


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize("field", ["index", "id", "created"])
def test_openai_numbers_may_be_floats(name: str, field: str) -> None:
    parts = [with_field(part, (field,), 7.0) if field != "index" else part for part in CHUNKS]
    parts = [with_field(part, ("choices", 0, "index"), 0.0) for part in parts[:-1]] + parts[-1:]
    floats = {"prompt_tokens": 5.0, "completion_tokens": "7", "total_tokens": 12.5}
    parts[-1] = with_field(parts[-1], ("usage",), floats)
    found = openai(LANES[name], [sse(*parts, DONE)])
    assert found.said == SAID
    for usage in found.usages:
        assert usage.get("prompt_tokens", usage.get("inputTokens")) == 5
        assert usage.get("completion_tokens", usage.get("outputTokens")) == 7


@pytest.mark.parametrize("name", LANES)
def test_openai_choices_and_calls_that_stand_alone_are_lists_of_one(name: str) -> None:
    alone = chunk({"content": "Hi"})
    alone["choices"] = alone["choices"][0]
    called = chunk({"tool_calls": {"index": 0, "id": "a", "function": {"name": "f", "arguments": {"x": 1}}}})
    body = sse(alone, called, chunk({}, "tool_calls"), DONE)
    assert openai(LANES[name], [body]).said == ("Hi", "", [("f", '{"x":1}')], "tool_calls", "")


def test_a_frame_is_lost_only_where_it_is_no_json() -> None:
    decoder = ChunkDecoder()
    body = sse(
        *CHUNKS[:3],
        '{"choices":[{"delta":{"content":"l',
        with_field(CHUNKS[3], ("id",), [float("nan")]),
        *CHUNKS[4:],
        DONE,
    )
    assert heard(LANES["chunks"], decoder, [body]).said == SAID
    assert (decoder.skipped, decoder.skipped_fields) == (1, 1)


def test_fields_of_another_type_are_counted() -> None:
    decoder = ChunkDecoder()
    decoder.feed(sse(chunk({"content": 5, "tool_calls": {}}, id=7, usage=[]), chunk({"content": "x"})))
    assert (decoder.skipped, decoder.skipped_fields) == (0, 4)


# a whole answer

ANSWER: dict[str, Any] = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 7,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello",
                "reasoning_content": "Hm. ",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}
ANSWER_FIELDS: list[Path] = [
    *TOP,
    *(("choices", 0, name) for name in ("logprobs", "content_filter_results", "usage")),
    *(("choices", 0, "message", name) for name in ("role", "annotations", "reasoning", "function_call")),
    *(("choices", 0, "message", "tool_calls", 0, name) for name in ("id", "type", "index")),
]


@given(st.sampled_from(ANSWER_FIELDS), json_values)
@settings(max_examples=200, deadline=None)
def test_a_whole_answer_says_the_same_whatever_stands_in_another_field(path: Path, odd: Any) -> None:
    assert document(with_field(ANSWER, path, odd)).said == SAID


@pytest.mark.parametrize("index", [None, "0", "x", 1, "1", -1, 2.5, [], True])
def test_the_one_choice_of_a_whole_answer_is_the_first_whatever_its_index_is(index: Any) -> None:
    odd = with_field(ANSWER, ("choices", 0, "index"), index)
    plain = with_field(odd, ("choices", 0, "message"), {"role": "assistant", "content": "Hello"})
    for answer, said in ((odd, SAID), (plain, ("Hello", "", [], "tool_calls", ""))):
        assert document(answer).said == said
        for lane in LANES.values():
            assert openai(lane, [json.dumps(answer).encode()]).said == said


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
@pytest.mark.parametrize("odd", ["5", 5.0, "x", -1, 10**12, 10**400, None, [], True])
def test_the_usage_of_a_whole_answer_is_told_in_whole_numbers_or_not_at_all(name: str, odd: Any) -> None:
    for usage in document(with_field(ANSWER, ("usage", name), odd)).usages:
        assert all(
            0 <= usage[count] <= 10**9 and int(usage[count]) == usage[count] for count in ANSWER["usage"]
        )
        assert not any(isinstance(usage[count], bool) for count in ANSWER["usage"])


@pytest.mark.parametrize(("odd", "text"), TEXTS)
def test_the_text_of_a_whole_answer_is_read_for_what_it_is(odd: Any, text: str) -> None:
    assert document(with_field(ANSWER, ("choices", 0, "message", "content"), odd)).said == (text, *SAID[1:])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [([], "{}"), (None, "{}"), ({}, "{}"), ({"x": [1]}, '{"x":[1]}'), ("", ""), (5, "{}"), ("null", "{}")],
)
def test_a_call_of_a_whole_answer_is_a_call_whatever_its_arguments_are(arguments: Any, told: str) -> None:
    odd = with_field(ANSWER, ("choices", 0, "message", "tool_calls", 0, "function", "arguments"), arguments)
    assert document(odd).calls == [("f", told), ("g", "{}")]


# Anthropic

MESSAGE: list[Any] = [
    {
        "type": "message_start",
        "message": {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "usage": {"input_tokens": 5},
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm. "}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "text", "text": "", "citations": None},
    },
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"x":'},
    },
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "b", "name": "g", "input": {}},
    },
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    },
    {"type": "message_stop"},
]
MESSAGE_FIELDS: list[tuple[int, Path]] = [
    *(
        (0, ("message", name))
        for name in ("id", "type", "role", "model", "usage", "content", "stop_reason", "container")
    ),
    (0, ("message",)),
    *(
        (0, ("message", "usage", name))
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "server_tool_use")
    ),
    *((at, ("index",)) for at in range(1, 14)),
    *(
        (at, ("content_block", name))
        for at in (1, 4)
        for name in ("signature", "citations", "id", "name", "input", "cache")
    ),
    *((at, ("content_block", "id")) for at in (8, 12)),
    *(
        (14, path)
        for path in [
            ("usage",),
            ("usage", "output_tokens"),
            ("usage", "input_tokens"),
            ("delta", "stop_sequence"),
        ]
    ),
    *((at, ("vendor",)) for at in range(16)),
    *((at, ("message",)) for at in range(1, 16)),
    *((at, ("usage",)) for at in (3, 7, 15)),
]


def anthropic(lane: Lane, *found: Any) -> Heard:
    return heard(lane, MessagesDecoder(), [events(*found)])


@given(st.sampled_from(MESSAGE_FIELDS), json_values, st.sampled_from(sorted(TRANSLATED)))
@settings(max_examples=300, deadline=None)
def test_anthropic_says_the_same_whatever_stands_in_another_field(
    where: tuple[int, Path], odd: Any, name: str
) -> None:
    at, path = where
    if path[-1] == "index" and type(odd) in (int, float, str):
        odd = [odd]  # another number is another block
    changed = [*MESSAGE[:at], with_field(MESSAGE[at], path, odd), *MESSAGE[at + 1 :]]
    assert anthropic(TRANSLATED[name], *changed).said == SAID


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize("at", [8, 9, 10])
@pytest.mark.parametrize("odd", [None, "", "2", "9", 0, 1, 9, -1, 2.0])
def test_anthropics_arguments_are_the_calls_that_is_under_way_whatever_their_index_is(
    name: str, at: int, odd: Any
) -> None:
    changed = [*MESSAGE[:at], {**MESSAGE[at], "index": odd}, *MESSAGE[at + 1 :]]
    assert anthropic(TRANSLATED[name], *changed).said == SAID


@pytest.mark.parametrize("name", TRANSLATED)
def test_anthropics_blocks_need_no_index(name: str) -> None:
    bare = [{key: value for key, value in event.items() if key != "index"} for event in MESSAGE]
    assert anthropic(TRANSLATED[name], *bare).said == SAID
    same = [{**event, "index": 0} if "index" in event else event for event in MESSAGE]
    assert anthropic(TRANSLATED[name], *same).said == SAID


@pytest.mark.parametrize("name", TRANSLATED)
def test_anthropics_stream_may_begin_with_anything_that_says_something(name: str) -> None:
    assert anthropic(TRANSLATED[name], *MESSAGE[1:]).said == SAID
    assert anthropic(TRANSLATED[name], {"type": "ping"}, *MESSAGE[1:]).said == SAID
    assert anthropic(TRANSLATED[name], *MESSAGE[5:]).text == "Hello"


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize(("given", "arguments"), [({"a": {"b": 1}}, '{"a":{"b":1}}'), ([1], "[1]")])
def test_anthropics_input_may_be_itself_in_place_of_its_text(name: str, given: Any, arguments: str) -> None:
    delta = {
        "type": "content_block_delta",
        "index": 3,
        "delta": {"type": "input_json_delta", "partial_json": given},
    }
    found = anthropic(TRANSLATED[name], *MESSAGE[:13], delta, *MESSAGE[13:])
    assert found.calls[-1] == ("g", arguments)


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize(("odd", "text"), TEXTS)
def test_anthropics_texts_are_read_for_what_they_are(name: str, odd: Any, text: str) -> None:
    changed = [*MESSAGE[:6], with_field(MESSAGE[6], ("delta", "text"), odd), *MESSAGE[7:]]
    assert anthropic(TRANSLATED[name], *changed).said == (f"Hel{text}", *SAID[1:])
    untyped = [
        with_field(part, ("delta", "type"), odd) if at in (2, 5, 6, 9, 10) else part
        for at, part in enumerate(MESSAGE)
    ]
    if not text:
        assert anthropic(TRANSLATED[name], *untyped).said == SAID


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize("empty", [{}, [], None, "", "null"])
def test_a_call_of_anthropics_without_an_input_has_an_empty_one(name: str, empty: Any) -> None:
    changed = [*MESSAGE[:12], with_field(MESSAGE[12], ("content_block", "input"), empty), *MESSAGE[13:]]
    assert anthropic(TRANSLATED[name], *changed).said == SAID


# Ollama

LINES: list[Any] = [
    {
        "model": "m",
        "created_at": "2026",
        "message": {"role": "assistant", "content": "", "thinking": "Hm. "},
        "done": False,
    },
    {"model": "m", "created_at": "2026", "message": {"role": "assistant", "content": "Hel"}, "done": False},
    {"model": "m", "created_at": "2026", "message": {"role": "assistant", "content": "lo"}, "done": False},
    {
        "model": "m",
        "message": {
            "content": "",
            "tool_calls": [
                {"function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
                {"function": {"name": "g"}},
            ],
        },
        "done": False,
    },
    {
        "model": "m",
        "message": {"content": ""},
        "done": True,
        "done_reason": "stop",
        "total_duration": 1,
        "prompt_eval_count": 5,
        "eval_count": 7,
    },
]
LINE_FIELDS: list[tuple[int, Path]] = [
    *((at, (name,)) for at in range(5) for name in ("model", "created_at", "total_duration", "logprobs")),
    *((at, (name,)) for at in range(5) for name in ("prompt_eval_count", "eval_count")),
    *((at, ("message", name)) for at in range(5) for name in ("role", "images", "tool_name")),
    *((at, ("message", "tool_calls")) for at in (0, 1, 2, 4)),
    (4, ("message",)),
    *((3, ("message", "tool_calls", 0, name)) for name in ("id", "type", "index")),
    (3, ("message", "tool_calls", 0, "function", "index")),
]


def ollama(lane: Lane, *found: Any) -> Heard:
    return heard(lane, ChatDecoder(), [lines(*found)])


@given(st.sampled_from(LINE_FIELDS), json_values, st.sampled_from(sorted(TRANSLATED)))
@settings(max_examples=300, deadline=None)
def test_ollama_says_the_same_whatever_stands_in_another_field(
    where: tuple[int, Path], odd: Any, name: str
) -> None:
    at, path = where
    changed = [*LINES[:at], with_field(LINES[at], path, odd), *LINES[at + 1 :]]
    assert ollama(TRANSLATED[name], *changed).said == SAID


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize(("odd", "text"), TEXTS)
def test_ollamas_texts_are_read_for_what_they_are(name: str, odd: Any, text: str) -> None:
    changed = [*LINES[:2], with_field(LINES[2], ("message", "content"), odd), *LINES[3:]]
    assert ollama(TRANSLATED[name], *changed).said == (f"Hel{text}", *SAID[1:])


@pytest.mark.parametrize("name", TRANSLATED)
@pytest.mark.parametrize("empty", [{}, [], None, "", "null", "{}", 5])
def test_a_call_of_ollamas_without_arguments_has_empty_ones(name: str, empty: Any) -> None:
    changed = [
        *LINES[:3],
        with_field(LINES[3], ("message", "tool_calls", 1, "function", "arguments"), empty),
        *LINES[4:],
    ]
    assert ollama(TRANSLATED[name], *changed).said == SAID


DECODERS: dict[str, tuple[Callable[[], Decoder], bytes, Sequence[int]]] = {
    "openai": (OpenAI().decoder, sse(with_field(CHUNKS[2], ("id",), 7), *CHUNKS[3:], DONE), [1]),
    "anthropic": (MessagesDecoder, events(with_field(MESSAGE[0], ("message", "id"), 7), *MESSAGE[1:]), [1]),
    "ollama": (ChatDecoder, lines(with_field(LINES[0], ("model",), 7), *LINES[1:]), [1]),
}


@pytest.mark.parametrize("dialect", DECODERS)
def test_every_dialect_counts_its_odd_fields(dialect: str) -> None:
    make, body, counted = DECODERS[dialect]
    decoder: Any = make()
    decoder.feed(body)
    assert [decoder.skipped_fields, decoder.skipped] == [*counted, 0]
    assert json.dumps(body.decode())
