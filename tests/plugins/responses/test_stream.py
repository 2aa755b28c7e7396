"""The grammar of streamed Responses: bytes -> events, whole, under every single cut, byte by byte."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError, UpstreamErrorKind, UpstreamGarbled, UpstreamTruncated
from sluice.frontends import Answer
from sluice.frontends.responses.passed_on import PassedOnWhole
from sluice.model.chat import ChatRequest
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
    Working,
)
from sluice.wire.sse import EventStream
from sluice_plugins.responses.backend import Responses
from sluice_plugins.responses.wire import ResponsesEvent, decode_event
from tests.wire import cuts

USED = {
    "input_tokens": 20, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2}, "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 29,
}  # fmt: skip
USAGE = Usage(20, 9, cached_input=5, reasoning=3, total=29, written_input=2)
CREATED = (
    "response.created",
    {"response": {"id": "resp_1", "model": "m", "status": "in_progress", "output": []}},
)
STARTED = Started("resp_1", "m")


def frame(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


def stream(*events: tuple[str, dict[str, Any]], end: str = "completed", **state: Any) -> bytes:
    """A stream with its beginning and, unless it is "", its end."""
    last = [
        (
            f"response.{end}",
            {"response": {"id": "resp_1", "model": "m", "status": end, "usage": USED, **state}},
        )
    ]
    return b"".join(frame(kind, **fields) for kind, fields in (CREATED, *events, *(last if end else ())))


def added(index: int, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "response.output_item.added", {"output_index": index, "item": item}


def done(index: int, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "response.output_item.done", {"output_index": index, "item": item}


def delta(kind: str, index: int, text: str) -> tuple[str, dict[str, Any]]:
    return f"response.{kind}.delta", {"output_index": index, "delta": text, "obfuscation": "xyz"}


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
REFUSED = {**MESSAGE, "content": [{"type": "refusal", "refusal": "No"}]}
SAID = {**MESSAGE, "content": [{"type": "output_text", "text": "Hello", "annotations": []}]}
THOUGHT = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Hm"}],
    "encrypted_content": "gAA=",
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": ""}
CALLED = {**CALL, "arguments": '{"a":1}'}
PATCH = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "patch", "input": 'a "b"\n'}
SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "q"},
}
SITE = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 1, "end_index": 3}
STOP = Finished("stop", USAGE, "completed")
CALLS = Finished("tool_calls", USAGE, "completed")
BLOCK = ReasoningBlock(0, "Hm", "openai:rs_1:gAA=")

GRAMMAR: dict[str, tuple[bytes, list[StreamEvent]]] = {
    "text": (
        stream(added(0, MESSAGE), delta("output_text", 0, "Hel"), delta("output_text", 0, "lo"), done(0, SAID)),
        [STARTED, TextDelta("Hel"), TextDelta("lo"), STOP],
    ),
    "refusal": (
        stream(added(0, MESSAGE), delta("refusal", 0, "No"), done(0, REFUSED)),
        [STARTED, RefusalDelta("No"), STOP],
    ),
    "only the finished items": (
        stream(done(0, THOUGHT), done(1, SAID), done(2, CALLED), done(3, PATCH)),
        [
            STARTED, ReasoningDelta("Hm"), BLOCK, TextDelta("Hello"), ToolCallStarted(0, "call_1", "f"),
            ToolCallDelta(0, '{"a":1}'), ToolCallStarted(1, "call_2", "patch"), ToolCallDelta(1, '{"input":"a \\"b\\"\\n'),
            ToolCallDelta(1, '"}'), CALLS,
        ],
    ),
    "only the end": (
        stream(output=[THOUGHT, SAID]),
        [STARTED, ReasoningDelta("Hm"), BLOCK, TextDelta("Hello"), STOP],
    ),
    "summary": (
        stream(added(0, {**THOUGHT, "summary": []}), delta("reasoning_summary_text", 0, "H"),
               delta("reasoning_text", 0, "ignored"), delta("reasoning_summary_text", 0, "m"), done(0, THOUGHT)),
        [STARTED, ReasoningDelta("H"), ReasoningDelta("m"), BLOCK, STOP],
    ),
    "call": (
        stream(added(0, CALL), delta("function_call_arguments", 0, '{"a"'), delta("function_call_arguments", 0, ":1}"),
               done(0, CALLED)),
        [STARTED, ToolCallStarted(0, "call_1", "f"), ToolCallDelta(0, '{"a"'), ToolCallDelta(0, ":1}"), CALLS],
    ),
    "call without arguments": (
        stream(added(0, CALL), done(0, CALL)),
        [STARTED, ToolCallStarted(0, "call_1", "f"), ToolCallDelta(0, "{}"), CALLS],
    ),
    "custom call": (
        stream(added(0, {**PATCH, "input": ""}), delta("custom_tool_call_input", 0, 'a "'),
               delta("custom_tool_call_input", 0, 'b"\n'), done(0, PATCH)),
        [STARTED, ToolCallStarted(0, "call_2", "patch"), ToolCallDelta(0, '{"input":"a \\"'), ToolCallDelta(0, 'b\\"\\n'),
         ToolCallDelta(0, '"}'), CALLS],
    ),
    "search": (
        stream(added(0, {**SEARCH, "action": None}), ("response.web_search_call.searching", {"output_index": 0}),
               done(0, SEARCH), added(1, MESSAGE), delta("output_text", 1, "Found"),
               ("response.output_text.annotation.added", {"output_index": 1, "annotation": SITE}), done(1, SAID)),
        [STARTED, ToolCallStarted(0, "ws_1", "web_search", "server"), ToolCallDelta(0, '{"type":"search","query":"q"}'),
         TextDelta("Found"), Cited("https://a.example", "A", 1, 3), STOP],
    ),
    "second message": (
        stream(done(0, SAID), done(1, {**SAID, "content": [{"type": "output_text", "text": "!!!", "annotations": [SITE]}]})),
        [STARTED, TextDelta("Hello"), TextDelta("!!!"), Cited("https://a.example", "A", 6, 8), STOP],
    ),
    "too long": (
        stream(done(0, SAID), end="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        [STARTED, TextDelta("Hello"), Finished("length", USAGE, "max_output_tokens")],
    ),
    "filtered": (
        stream(done(0, SAID), end="incomplete", incomplete_details={"reason": "content_filter"}),
        [STARTED, TextDelta("Hello"), Finished("content_filter", USAGE, "content_filter")],
    ),
    "halves": (
        stream(delta("output_text", 0, "a\ud83d"), delta("output_text", 0, "\ude00b"), delta("output_text", 0, "c\ud83d")),
        [STARTED, TextDelta("a"), TextDelta("\U0001f600b"), TextDelta("c"), TextDelta("\ufffd"), STOP],
    ),
    "without its last empty line": (
        stream(done(0, SAID))[:-2],
        [STARTED, TextDelta("Hello"), STOP],
    ),
    "named by the frame alone": (
        stream(done(0, SAID), end="") + b'event: response.completed\ndata: {"response":{"status":"completed"}}\n\n',
        [STARTED, TextDelta("Hello"), Finished("stop", None, "completed")],
    ),
    "done": (
        stream(done(0, SAID), end="") + b"data: [DONE]\n\n",
        [STARTED, TextDelta("Hello"), Finished("stop", None, "completed")],
    ),
    "document": (
        json.dumps({"id": "resp_1", "model": "m", "status": "completed", "output": [THOUGHT, SAID], "usage": USED}).encode(),
        [STARTED, ReasoningDelta("Hm"), BLOCK, TextDelta("Hello"), STOP],
    ),
    "odd types": (
        stream(("response.output_text.delta", {"output_index": "0", "delta": "Hi", "sequence_number": None, "logprobs": {}}),
               done(0, {**SAID, "id": 5, "content": [{"type": "output_text", "text": "Hi", "annotations": {}}]}), usage=[]),
        [STARTED, TextDelta("Hi"), Finished("stop", None, "completed")],
    ),
}  # fmt: skip


def decoded(reads: list[bytes], *, verbatim: bool = False) -> list[StreamEvent]:
    decoder = Responses().decoder(verbatim=verbatim)
    events = [event for read in reads for event in decoder.feed(read)]
    events += decoder.close()
    return [event for event in events if not isinstance(event, Working)]


@pytest.mark.parametrize("name", GRAMMAR)
def test_a_stream_means_the_same_however_it_is_cut(name: str) -> None:
    body, meant = GRAMMAR[name]
    assert decoded([body]) == meant
    assert decoded(cuts.bytewise(body)) == meant
    for reads in cuts.single(body, 7):
        assert decoded(reads) == meant
    assert decoded([body.replace(b"\n", b"\r\n")]) == meant


def decode_all(frames: bytes) -> list[ResponsesEvent]:
    """The events of frames that need no mending."""
    return [decode_event(event.data) for event in EventStream(limit=1 << 20).feed(frames)]


def without_output(frame: bytes) -> tuple[bytes, Any]:
    """A last frame but for its Response's output, which these streams do not have."""
    head, _, data = frame.rpartition(b"data: ")
    value = json.loads(data)
    value["response"].pop("output", None)
    return head, value


@pytest.mark.parametrize("name", [name for name in GRAMMAR if name not in ("document", "done")])
def test_frames_are_passed_on_whatever_they_mean(name: str) -> None:
    body, meant = GRAMMAR[name]
    for reads in ([body], cuts.bytewise(body)):
        events = decoded(reads, verbatim=True)
        passed = b"".join(event.data for event in events if isinstance(event, Verbatim))
        if name in ("halves", "odd types"):  # written anew, so that clients can read it
            assert decode_all(passed)
            lost = TextDelta("\ufffd")  # half a pair at an item's end: a Response's end has all of its text
            assert [one for one in decoded([passed]) if one != lost] == [one for one in meant if one != lost]
        else:
            got, came = passed.split(b"\n\n"), (body.rstrip(b"\n") + b"\n\n").split(b"\n\n")
            assert got[:-2] == came[:-2]
            assert got[-1] == b""
            assert without_output(got[-2]) == without_output(came[-2])
        assert [event for event in events if not isinstance(event, Verbatim)] == meant


@pytest.mark.parametrize(
    "odd",
    [{}, {"output_index": None}, {"output_index": "x"}, {"output_index": {"a": 1}}, {"output_index": []}],
)
@pytest.mark.parametrize("named", [True, False], ids=["by the item's id", "by their order"])
def test_items_without_a_place_are_told_apart(odd: dict[str, Any], named: bool) -> None:
    def event(kind: str, place: int, **fields: Any) -> bytes:
        if named and "item" not in fields:
            fields["item_id"] = f"i_{place}"
        return frame(f"response.{kind}", **odd, **fields)

    def call(place: int, arguments: str) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"i_{place}",
            "call_id": f"c_{place}",
            "name": "f",
            "arguments": arguments,
        }

    pieces = [
        event("output_item.added", 0, item=call(0, "")),
        event("function_call_arguments.delta", 0, delta='{"a":'),
        event("function_call_arguments.delta", 0, delta=" 1}"),
        event("output_item.done", 0, item=call(0, '{"a": 1}')),
        event("output_item.added", 1, item=call(1, "")),
        event("function_call_arguments.delta", 1, delta='{"b": 2}'),
        event("output_item.done", 1, item=call(1, '{"b": 2}')),
    ]
    body = (
        stream(end="")
        + b"".join(pieces)
        + frame("response.completed", response={"id": "resp_1", "status": "completed"})
    )
    for verbatim in (False, True):
        events = decoded([body], verbatim=verbatim)
        told = ["", ""]
        for event_ in events:
            if isinstance(event_, ToolCallDelta):
                told[event_.index] += event_.arguments
        assert told == ['{"a": 1}', '{"b": 2}']
    passed = b"".join(event_.data for event_ in events if isinstance(event_, Verbatim))
    places = [json.loads(one.data).get("output_index") for one in EventStream().feed(passed)]
    assert places == [None, 0, 0, 0, 0, 1, 1, 1, None]


@pytest.mark.parametrize("output", ["[]", "null", "absent"])
def test_a_response_without_its_output_gets_the_items_that_came_before(output: str) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
    last: dict[str, Any] = {"id": "resp_1", "status": "completed", "usage": USED}
    if output != "absent":
        last["output"] = json.loads(output)
    body = stream(done(1, call), done(0, SAID), end="") + frame("response.completed", response=last)
    for reads in ([body], cuts.bytewise(body)):
        passed = b"".join(
            event.data for event in decoded(reads, verbatim=True) if isinstance(event, Verbatim)
        )
        assert passed.startswith(stream(done(1, call), done(0, SAID), end=""))
        head, _, data = passed.rstrip().rpartition(b"\ndata: ")
        assert head.endswith(b"event: response.completed")
        assert json.loads(data)["response"] == {**last, "output": [SAID, call]}


@pytest.mark.parametrize(("deltas", "told"), [
    (["The", " sum"], "The sum is 4."),
    (["Their", " sum"], "Their sum"),
    (["The sum", "."], "The sum."),
    ([], "The sum is 4."),
])  # fmt: skip
def test_an_item_that_was_corrected_at_its_end_is_not_told_twice(deltas: list[str], told: str) -> None:
    whole = {"type": "message", "content": [{"type": "output_text", "text": "The sum is 4."}]}
    body = stream(*(delta("output_text", 0, piece) for piece in deltas), done(0, whole))
    assert "".join(event.text for event in decoded([body]) if isinstance(event, TextDelta)) == told


def test_a_search_that_xai_has_run_is_no_call_of_the_callers() -> None:
    call = {
        "type": "custom_tool_call",
        "id": "ctc_1",
        "call_id": "xs_call_1",
        "name": "x_keyword_search",
        "input": '{"q": 1}',
    }
    events = decoded([stream(done(0, call), done(1, SAID))])
    assert [event.kind for event in events if isinstance(event, ToolCallStarted)] == ["server"]
    assert [event.reason for event in events if isinstance(event, Finished)] == ["stop"]


def test_items_are_not_kept_without_a_bound() -> None:
    picture = {"type": "image_generation_call", "id": "ig_1", "result": "A" * (5 << 20)}
    body = stream(done(0, SAID), done(1, picture), end="completed")
    passed = b"".join(event.data for event in decoded([body], verbatim=True) if isinstance(event, Verbatim))
    assert passed == body


def test_a_whole_answer_has_the_items_of_the_stream_that_came_in_its_place() -> None:
    body = stream(done(0, SAID), output=[])
    decoder = Responses().whole_decoder()
    events = decoder.feed(body)
    assert json.loads(
        PassedOnWhole(ChatRequest("responses", "chat", ()), Answer("req", "chat", 1)).encode(events)
    )["output"] == [SAID]


CALLED = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": ""}
EARLY: dict[str, tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]] = {
    "finished items": (
        [done(1, {**CALLED, "arguments": "{}"}), done(0, SAID)],
        [SAID, {**CALLED, "arguments": "{}"}],
    ),
    "text without its end": (
        [added(0, MESSAGE), delta("output_text", 0, "Hel"), delta("output_text", 0, "lo")],
        [{**SAID, "status": "completed"}],
    ),
    "a refusal without its end": (
        [added(0, MESSAGE), delta("refusal", 0, "N"), delta("refusal", 0, "o")],
        [{**REFUSED, "status": "completed"}],
    ),
    "deltas alone": (
        [delta("output_text", 0, "Hello")],
        [{**SAID, "id": "item_0", "status": "completed"}],
    ),
    "a thought and a call without their ends": (
        [
            added(0, {"type": "reasoning", "id": "rs_1", "summary": []}),
            delta("reasoning_summary_text", 0, "Hm"),
            added(1, {**CALLED, "vendor": [1]}),
            delta("function_call_arguments", 1, '{"a":'),
            delta("function_call_arguments", 1, '"\ud83d\ude00"}'),
            added(2, {"type": "custom_tool_call", "id": "ct_1", "call_id": "d", "name": "g", "input": ""}),
            delta("custom_tool_call_input", 2, 'x "y"'),
        ],
        [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}], "status": "completed"},
            {**CALLED, "vendor": [1], "arguments": '{"a":"\U0001f600"}', "status": "completed"},
            {"type": "custom_tool_call", "id": "ct_1", "call_id": "d", "name": "g", "input": 'x "y"', "status": "completed"},
        ],
    ),
    "a raw thought, and a call of nothing": (
        [
            added(0, {"type": "reasoning", "id": "rs_1"}),
            delta("reasoning_text", 0, "Hm"),
            added(1, CALLED),
            added(2, {"type": "web_search_call", "id": "ws_1", "status": "in_progress"}),
        ],
        [
            {"type": "reasoning", "id": "rs_1", "summary": [], "status": "completed",
             "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {**CALLED, "arguments": "{}", "status": "completed"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EARLY)
@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE]", b"data: [DONE]\r\n\r\n"])
def test_an_answer_that_only_done_ends_gets_its_response(name: str, end: bytes) -> None:
    pieces, output = EARLY[name]
    begun = stream(*pieces, end="")
    for reads in ([begun + end], cuts.bytewise(begun + end), *cuts.single(begun + end, 11)):
        events = decoded(reads, verbatim=True)
        passed = b"".join(event.data for event in events if isinstance(event, Verbatim))
        assert passed.startswith(begun)
        [last, marker] = EventStream().feed(passed[len(begun) :])
        assert last.event == "response.completed"
        assert marker.data == b"[DONE]"
        assert json.loads(last.data) == {
            "type": "response.completed",
            "response": {
                **CREATED[1]["response"], "object": "response", "created_at": 0, "error": None, "status": "completed",
                "output": output,
            },
        }  # fmt: skip
        whole = PassedOnWhole(ChatRequest("responses", "chat", ()), Answer("req", "chat", 1))
        assert json.loads(whole.encode(events[-2:]))["output"] == output


def test_a_response_that_is_made_goes_on_with_the_numbers_and_the_usage_of_its_stream() -> None:
    begun = {"id": "resp_1", "model": "m", "status": "in_progress", "usage": USED, "metadata": {"a": "b"}}
    body = (
        frame("response.in_progress", response=begun, sequence_number=3)
        + frame("response.output_item.done", output_index=0, item=SAID, sequence_number=4)
        + b"data: [DONE]\n\n"
    )
    events = decoded([body], verbatim=True)
    passed = b"".join(event.data for event in events if isinstance(event, Verbatim))
    last = json.loads(EventStream().feed(passed)[-2].data)
    assert last["sequence_number"] == 5
    assert last["response"]["usage"] == USED
    assert last["response"]["metadata"] == {"a": "b"}
    assert Finished("stop", USAGE, "completed") in events


def test_a_last_event_without_its_response_gets_it() -> None:
    body = stream(*EARLY["text without its end"][0], end="") + frame("response.completed", sequence_number=9)
    for reads in ([body], cuts.bytewise(body)):
        events = decoded(reads, verbatim=True)
        passed = b"".join(event.data for event in events if isinstance(event, Verbatim))
        last = json.loads(EventStream().feed(passed)[-1].data)
        assert (last["sequence_number"], last["response"]["id"]) == (9, "resp_1")
        assert last["response"]["output"] == EARLY["text without its end"][1]


def test_an_answer_that_is_too_long_to_make_a_response_of_is_cut_for_who_waits_for_one() -> None:
    picture = {"type": "image_generation_call", "id": "ig_1", "result": "A" * (5 << 20)}
    text = [delta("output_text", 0, "a" * (1 << 20)) for _ in range(5)]
    for pieces in ([done(0, picture)], text):
        body = stream(done(1, SAID), *pieces, end="") + b"data: [DONE]\n\n"
        assert Finished("stop", None, "completed") in decoded([body])
        with pytest.raises(UpstreamTruncated):
            decoded([body], verbatim=True)


FAILURES: list[tuple[bytes, UpstreamErrorKind, str]] = [
    (stream(end="failed", error={"code": "rate_limit_exceeded", "message": "Slow down"}), "rate_limited", "Slow down"),
    (stream(end="failed", error={"code": "server_error", "message": "Oops"}), "server_error", "Oops"),
    (stream(end="failed", error={"code": "context_length_exceeded", "message": "Too long"}), "context_length", "Too long"),
    (stream(end="failed"), "stream_error", "The upstream's answer failed"),
    (stream(end="cancelled"), "stream_error", "The upstream's answer failed"),
    (stream(end="") + frame("error", code="rate_limit_exceeded", message="Slow down", param=None), "rate_limited", "Slow down"),
    (stream(end="") + frame("error", error={"type": "server_error", "code": "server_error", "message": "Oops"}),
     "server_error", "Oops"),
    (b'data: {"error": {"message": "Oops", "type": "server_error"}}\n\n', "server_error", "Oops"),
    (stream(end=""), "truncated", ""),
    (stream(done(0, SAID), end=""), "truncated", ""),
    (stream(end="") + b"data: [DONE]\n\n", "truncated", ""),
    (stream(usage=None), "truncated", ""),
    (stream(output=[], usage=None), "truncated", ""),
    (b'{"object": "response", "status": "completed", "output": [], "usage": null}', "truncated", ""),
    (b'{"status": "failed", "error": {"code": "server_error", "message": "Oops"}}', "server_error", "Oops"),
    (b'{"status": "queued"}', "garbled", ""),
    (b"[]", "garbled", ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "message"), FAILURES)
def test_what_fails_says_why_and_never_looks_complete(
    body: bytes, kind: UpstreamErrorKind, message: str
) -> None:
    for reads in ([body], cuts.bytewise(body)):
        with pytest.raises(UpstreamError) as failure:
            decoded(reads)
        assert failure.value.kind == kind
        assert message in failure.value.message


def test_an_error_behind_content_comes_after_it() -> None:
    decoder = Responses().decoder()
    events = decoder.feed(stream(done(0, SAID), end="failed"))
    assert TextDelta("Hello") in events
    with pytest.raises(UpstreamError):
        decoder.close()


def test_what_is_no_event_is_skipped_and_counted_unless_strict() -> None:
    body = b"data: hello\n\n" + GRAMMAR["text"][0]
    decoder = Responses().decoder()
    assert decoder.feed(body)[0] == STARTED
    assert decoder.skipped == 1
    with pytest.raises(UpstreamGarbled):
        Responses(strict=True).decoder().feed(body)


def test_a_call_whose_id_is_taken_gets_another_one() -> None:
    decoder = Responses().decoder()
    decoder.distinguish(frozenset({"call_1"}))
    [call] = [event for event in decoder.feed(GRAMMAR["call"][0]) if isinstance(event, ToolCallStarted)]
    assert call.id == ""


def call_item(
    id: str | None, call_id: Any = None, kind: str = "function_call", **fields: Any
) -> dict[str, Any]:
    """An item of a call, without the ids that are None."""
    ids = {name: value for name, value in (("id", id), ("call_id", call_id)) if value is not None}
    said = {"arguments": '{"x":1}'} if kind == "function_call" else {"input": "x"}
    return {"type": kind, **ids, "name": "f", **said, **fields}


def call_ids(body: bytes) -> tuple[list[list[Any]], list[str]]:
    """The `call_id`s of a stream's items, those of each place in the order in which they were told, and those of
    the events."""
    events = decoded([body], verbatim=True)
    passed = b"".join([event.data for event in events if isinstance(event, Verbatim)])
    told: dict[int, list[Any]] = {}
    for data in [json.loads(part.partition(b"data: ")[2]) for part in passed.split(b"\n\n")[:-1]]:
        if "item" in data:
            told.setdefault(data["output_index"], []).append(data["item"].get("call_id"))
        for index, item in enumerate(data.get("response", {}).get("output", ())):
            told.setdefault(index, []).append(item.get("call_id"))
    return list(told.values()), [event.id for event in events if isinstance(event, ToolCallStarted)]


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_a_call_without_a_call_id_is_passed_on_with_its_items_id(kind: str, empty: Any) -> None:
    items = [call_item("fc_1", empty, kind), call_item("fc_2", empty, kind)]
    events = [event for n, item in enumerate(items) for event in (added(n, item), done(n, item))]
    for output in (items, []):
        assert call_ids(stream(*events, output=output)) == ([["fc_1"] * 3, ["fc_2"] * 3], ["fc_1", "fc_2"])


def test_a_call_without_any_id_is_passed_on_with_a_new_one() -> None:
    item = call_item(None)
    body = stream(added(0, item), done(0, item), added(1, item), done(1, item), output=[item, item])
    told, started = call_ids(body)
    assert [len(set(ids)) for ids in told] == [1, 1]
    assert [ids[0] for ids in told] == started
    assert len({*started} - {""}) == 2


def test_a_call_keeps_the_call_id_that_it_began_with() -> None:
    begun, ended = call_item("fc_1", "call_1"), call_item("fc_1")
    assert call_ids(stream(added(0, begun), done(0, ended), output=[ended])) == ([["call_1"] * 3], ["call_1"])
    body = stream(added(0, begun), done(0, begun), output=[{"type": "reasoning", "summary": []}, ended])
    assert call_ids(body)[0][1] == ["call_1"]


def test_a_whole_answer_is_passed_on_with_a_call_id_for_each_call() -> None:
    output = [
        call_item("fc_1"),
        call_item(None),
        call_item("fc_3", "call_3"),
        {"type": "message", "content": []},
    ]
    body = json.dumps({"id": "r", "status": "completed", "output": output}).encode()
    events = decoded([body], verbatim=True)
    [passed] = [event.data for event in events if isinstance(event, Verbatim)]
    ids = [item.get("call_id") for item in json.loads(passed)["output"]]
    assert (ids[0], ids[2:]) == ("fc_1", ["call_3", None])
    assert ids[1]
    assert [event.id for event in events if isinstance(event, ToolCallStarted)] == ids[:3]
