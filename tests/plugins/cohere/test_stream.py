"""Cohere's stream: tables of (bytes, events), whole, under every single cut and byte by byte."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from sluice_plugins.cohere.backend import Cohere
from tests.wire import cuts

Value = dict[str, Any]
USAGE = {
    "billed_units": {"input_tokens": 5, "output_tokens": 7},
    "tokens": {"input_tokens": 50, "output_tokens": 9, "reasoning_tokens": 2},
    "cached_tokens": 40,
}
USED = Usage(50, 9, 40, 2)


def sse(*events: Value | str) -> bytes:
    return b"".join(
        b"data: %b\n\n" % e.encode()
        if isinstance(e, str)
        else b"event: %b\ndata: %b\n\n" % (e["type"].encode(), dumped(e))
        for e in events
    )


def dumped(value: Value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def say(kind: str, index: int | None = None, **message: Any) -> Value:
    return {"type": kind, "delta": {"message": message}} | ({"index": index} if index is not None else {})


def text(words: str, index: int = 0) -> Value:
    return say("content-delta", index, content={"text": words})


def end(reason: str | None = "COMPLETE", **delta: Any) -> Value:
    return {"type": "message-end", "delta": {"finish_reason": reason, "usage": USAGE, **delta}}


START: Value = {
    "type": "message-start", "id": "m-1",
    "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}},
}  # fmt: skip
CALL = {"id": "f_1", "type": "function", "function": {"name": "f", "arguments": ""}}
SOURCE = {
    "type": "document",
    "id": "doc:0",
    "document": {"title": "T", "url": "https://e.com/", "text": "said there"},
}
TOOL_SOURCE = {"type": "tool", "id": "f_1:0", "tool_output": {"a": 1}}


def cite(start: int, stop: int, index: int, *sources: Value, **fields: Any) -> Value:
    citation = {
        "start": start,
        "end": stop,
        "text": "x",
        "sources": list(sources),
        "content_index": index,
        **fields,
    }
    return say("citation-start", 0, citations=citation)


BEGUN = Started("m-1")
GRAMMAR: dict[str, tuple[bytes, list[StreamEvent]]] = {
    "text": (
        sse(START, say("content-start", 0, content={"type": "text", "text": ""}), text("Hi "), text("\u00e4\U0001f600"),
            {"type": "content-end", "index": 0}, end(), "[DONE]"),
        [BEGUN, TextDelta("Hi "), TextDelta("\u00e4\U0001f600"), Finished("stop", USED, "COMPLETE")],
    ),
    "thinking, then text with citations": (
        sse(START, say("content-start", 0, content={"type": "thinking", "thinking": "Hm"}),
            say("content-delta", 0, content={"thinking": "."}), text("ab", 1), text("cd", 2),
            cite(1, 2, 2, SOURCE, TOOL_SOURCE, type="TEXT_CONTENT"), {"type": "citation-end", "index": 0},
            cite(0, 2, 0, SOURCE, type="THINKING_CONTENT"), cite(5, 2, 1), end()),
        [
            BEGUN, ReasoningDelta("Hm"), ReasoningDelta("."), TextDelta("ab"), TextDelta("cd"),
            Cited("https://e.com/", "T", 3, 4, "said there"), Cited("", "f_1:0", 3, 4),
            Cited("https://e.com/", "T", -1, -1, "said there"), Cited(), Finished("stop", USED, "COMPLETE"),
        ],
    ),
    "a plan and calls": (
        sse(START, say("tool-plan-delta", tool_plan="I will"), say("tool-call-start", 0, tool_calls=CALL),
            say("tool-call-delta", 0, tool_calls={"function": {"arguments": '{"a"'}}),
            say("tool-call-delta", 0, tool_calls={"function": {"arguments": ":1}"}}), {"type": "tool-call-end", "index": 0},
            say("tool-call-start", 1, tool_calls={**CALL, "id": "f_2"}), {"type": "tool-call-end", "index": 1},
            end("TOOL_CALL")),
        [
            BEGUN, ReasoningDelta("I will"), ToolCallStarted(0, "f_1", "f"), ToolCallDelta(0, '{"a"'), ToolCallDelta(0, ":1}"),
            ToolCallStarted(1, "f_2", "f"), ToolCallDelta(1, "{}"), Finished("tool_calls", USED, "TOOL_CALL"),
        ],
    ),
    "COMPLETE though tools were called, arguments as JSON": (
        sse(START, say("tool-call-start", 0, tool_calls={"id": "x", "function": {"name": "f", "arguments": {"a": 1}}}), end()),
        [BEGUN, ToolCallStarted(0, "x", "f"), ToolCallDelta(0, '{"a":1}'), Finished("tool_calls", USED, "COMPLETE")],
    ),
    "fields of other types": (
        sse({**START, "id": 7}, {"type": "content-delta", "index": "0", "delta": {"message": {"content": {"text": 5}}}},
            {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": "5"}}}}),
        [Started("7"), TextDelta("5"), Finished("stop", Usage(5, 0), "COMPLETE")],
    ),
    "a pair of surrogates in two deltas, and half a one": (
        sse(START).replace(b"X", b"") + sse(text("X")).replace(b"X", b"\\ud83d") + sse(text("X")).replace(b"X", b"\\ude00")
        + sse(text("X")).replace(b"X", b"a\\ud83d") + sse({"type": "content-end", "index": 0}, end()),
        [BEGUN, TextDelta("\U0001f600"), TextDelta("a"), TextDelta("\ufffd"), Finished("stop", USED, "COMPLETE")],
    ),
}  # fmt: skip


def told(reads: list[bytes], **options: Any) -> list[StreamEvent]:
    decoder = Cohere(**options).decoder()
    return [event for read in reads for event in decoder.feed(read)] + decoder.close()


@pytest.mark.parametrize("name", GRAMMAR)
def test_a_stream_is_told_however_its_bytes_are_cut(name: str) -> None:
    body, expected = GRAMMAR[name]
    for reads in cuts.exhaustive(body):
        assert told(reads) == expected


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        ("COMPLETE", "stop"), ("STOP_SEQUENCE", "stop"), ("MAX_TOKENS", "length"), ("TOOL_CALL", "tool_calls"),
        ("ERROR_LIMIT", "length"), ("ERROR_TOXIC", "content_filter"), ("NEW", "stop"), (None, "stop"),
    ],
)  # fmt: skip
def test_every_finish_reason_has_its_word(native: str | None, reason: Any) -> None:
    assert told([sse(START, text("a"), end(native))])[-1] == Finished(reason, USED, native or "")


def test_a_missing_reason_is_counted_and_keep_stop_passes_one_on() -> None:
    decoder = Cohere().decoder()
    decoder.feed(sse(START, end(None)))
    assert decoder.finish_missing == 1
    calling = sse(START, say("tool-call-start", 0, tool_calls=CALL), end())
    assert told([calling], keep_stop=True)[-1] == Finished("stop", USED, "COMPLETE")
    assert told([sse(START, end())], billed=True)[-1] == Finished("stop", Usage(5, 7, 5, 2), "COMPLETE")


FAILED: list[tuple[bytes, UpstreamErrorKind]] = [
    (sse(end("ERROR")), "stream_error"),
    (sse(end("TIMEOUT")), "stream_error"),
    (
        sse(end("ERROR", error="blocked output: this generation may be a duplicate of a training text")),
        "content_policy",
    ),
    (sse('{"message":"too many requests","id":"x"}'), "rate_limited"),
    (sse({"type": "error", "error": {"message": "Overloaded"}}), "overloaded"),
    (b"", "truncated"),
    (b'event: message-end\ndata: {"type":"message-e', "truncated"),
]


@pytest.mark.parametrize("odd", [{}, {"index": None}, {"index": "x"}, {"index": []}])
def test_calls_without_an_index_are_told_apart(odd: Value) -> None:
    def without(event: Value) -> Value:
        return {name: value for name, value in event.items() if name != "index"} | odd

    pieces = [
        without(say("content-start", 0, content={"type": "text", "text": "a"})),
        *(
            without(event)
            for n, letter in enumerate("bc")
            for event in (
                say("tool-call-start", n, tool_calls={**CALL, "id": f"f_{n}"}),
                say("tool-call-delta", n, tool_calls={"function": {"arguments": '{"'}}),
                say("tool-call-delta", n, tool_calls={"function": {"arguments": letter + '": 1}'}}),
                {"type": "tool-call-end", "index": n},
            )
        ),
    ]
    decoder = Cohere().decoder()
    events = decoder.feed(sse(START, *pieces, end("TOOL_CALL")))
    told = ["", ""]
    for event in events:
        if isinstance(event, ToolCallDelta):
            told[event.index] += event.arguments
    assert told == ['{"b": 1}', '{"c": 1}']


@pytest.mark.parametrize(("failure", "kind"), FAILED)
def test_a_failure_comes_behind_what_was_said(failure: bytes, kind: UpstreamErrorKind) -> None:
    body = sse(START, text("a")) + failure
    for reads in ([body], cuts.bytewise(body)):
        decoder = Cohere().decoder()
        found: list[StreamEvent] = []
        with pytest.raises(UpstreamError) as failed:  # noqa: PT012
            for read in reads:
                found += decoder.feed(read)
            decoder.close()
        assert failed.value.kind == kind
        assert found == [BEGUN, TextDelta("a")]


def test_what_is_unknown_is_skipped_and_counted() -> None:
    body = sse(
        START,
        say("something-new", 0),
        "no JSON",
        say("tool-call-delta", 9, tool_calls=CALL),
        text("a"),
        end(),
    )
    decoder = Cohere().decoder()
    assert decoder.feed(body) == [BEGUN, TextDelta("a"), Finished("stop", USED, "COMPLETE")]
    assert decoder.skipped == 2
    with pytest.raises(UpstreamError):
        told([body], strict=True)


def test_ids_stay_unique_and_a_last_event_needs_no_empty_line() -> None:
    decoder = Cohere().decoder()
    decoder.distinguish(frozenset({"f_1"}))
    assert decoder.feed(sse(START, say("tool-call-start", 0, tool_calls=CALL)))[1] == ToolCallStarted(
        0, "", "f"
    )
    decoder.feed(sse(end("TOOL_CALL"))[:-1])
    assert decoder.close()[-1] == Finished("tool_calls", USED, "TOOL_CALL")


WHOLE = {
    "id": "m-1", "finish_reason": "TOOL_CALL", "usage": USAGE,
    "message": {
        "role": "assistant", "tool_plan": "I will",
        "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}],
        "tool_calls": [{"id": "f_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
        "citations": [{"start": 0, "end": 2, "text": "Hi", "content_index": 1, "sources": [SOURCE]}],
    },
}  # fmt: skip


def test_a_whole_answer_in_place_of_a_stream_is_the_answer() -> None:
    body = json.dumps(WHOLE).encode()
    for reads in ([body], cuts.bytewise(body)):
        assert told(reads) == [
            BEGUN, ReasoningDelta("Hm"), TextDelta("Hi"), ReasoningDelta("I will"), ToolCallStarted(0, "f_1", "f"),
            ToolCallDelta(0, '{"a":1}'), Cited("https://e.com/", "T", 0, 2, "said there"),
            Finished("tool_calls", USED, "TOOL_CALL"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"message":"invalid api token"}', "bad_credentials"),
        (b'{"a":1}', "garbled"),
        (b'{"message":{', "truncated"),
    ],
)
def test_other_documents_in_place_of_a_stream(body: bytes, kind: UpstreamErrorKind) -> None:
    with pytest.raises(UpstreamError) as failed:
        told([body])
    assert failed.value.kind == kind


HTTP: list[tuple[int, bytes, UpstreamErrorKind]] = [
    (400, b'{"id":"x","message":"invalid request: message must be at least 1 token long"}', "bad_request"),
    (400, b'{"message":"too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292."}',
     "context_length"),
    (400, b'{"message":"too many tokens: max tokens must be less than or equal to 4096, the maximum output for this model"}',
     "bad_request"),
    (401, b'{"message":"invalid api token"}', "bad_credentials"),
    (402, b'{"message":"Please add or update your payment method at https://dashboard.cohere.com/billing"}', "billing"),
    (404, b'{"message":"model \'x\' not found, make sure the correct model ID was used"}', "not_found"),
    (429, b'{"message":"You are using a Trial key, which is limited to 20 API calls / minute."}', "rate_limited"),
    (498, b'{"message":"blocked input: please remove certain words and try again."}', "content_policy"),
    (500, b'{"message":"internal server error, this has been reported to our developers."}', "server_error"),
    (503, b"", "overloaded"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind"), HTTP)
def test_http_errors_have_their_kinds(status: int, body: bytes, kind: UpstreamErrorKind) -> None:
    assert Cohere().error(status, {}, body).kind == kind


@pytest.mark.parametrize("odd", [None, [], {}, 0, ""])
def test_no_error_in_a_whole_answer_is_none(odd: Any) -> None:
    body = json.dumps({**WHOLE, "error": odd}).encode()
    assert told([body]) == told([json.dumps(WHOLE).encode()])


@pytest.mark.parametrize("odd", [5, 2.5, True, "x", {"a": 1}])
def test_citations_of_another_type_cost_a_whole_answer_nothing_else(odd: Any) -> None:
    message = {"role": "assistant", "content": [{"type": "text", "text": "a"}], "citations": odd}
    body = json.dumps({"id": "c", "finish_reason": "COMPLETE", "message": message}).encode()
    assert told([body]) == [Started("c"), TextDelta("a"), Finished("stop", None, "COMPLETE")]


def test_a_pair_of_surrogates_in_two_pieces_of_arguments_is_one_character() -> None:
    start = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces = ['{"x":"X', 'Y"}']
    body = (
        sse(
            START,
            say("tool-call-start", 0, tool_calls=start),
            *[say("tool-call-delta", 0, tool_calls={"function": {"arguments": piece}}) for piece in pieces],
            say("tool-call-end", 0),
            end("TOOL_CALL"),
        )
        .replace(b"X", b"\\ud83d")
        .replace(b"Y", b"\\ude00")
    )
    written = "".join([event.arguments for event in told([body]) if isinstance(event, ToolCallDelta)])
    assert json.loads(written) == {"x": "\U0001f600"}
