"""Streamed chat completions: what the SDKs read, from events or from the upstream's own frames."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    ModelNotFound,
    NoCapacity,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
    UpstreamTruncated,
)
from sluice.frontends import Answer, Encoder
from sluice.frontends.openai.dialect import OpenAI
from sluice.model.chat import ChatRequest
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
    Verbatim,
)
from sluice_plugins.openai.stream import ChunkDecoder
from tests import corpus
from tests.wire import cuts

ANSWER = Answer("req-1", "assistant", 1790000000)
HEAD = (
    '{"id":"chatcmpl-req-1","object":"chat.completion.chunk","created":1790000000,"model":"gpt-x","choices":['
)


def encoder(*, include_usage: bool = False, verbatim: bool = False, answer: Answer = ANSWER) -> Encoder:
    chat = ChatRequest("openai", "assistant", (), stream=True, include_usage=include_usage)
    return OpenAI().encoder(chat, answer, verbatim=verbatim)


def chunks(out: bytes) -> list[Any]:
    """The data of each event, and nothing but such events."""
    *frames, rest = out.split(b"\n\n")
    assert rest == b""
    assert all(frame.startswith(b"data: ") and b"\n" not in frame for frame in frames)
    return [frame[6:] if frame == b"data: [DONE]" else json.loads(frame[6:]) for frame in frames]


def deltas(out: bytes) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(out) if chunk != b"[DONE]" and chunk["choices"]]


def test_a_stream_in_its_exact_bytes() -> None:
    stream = encoder()
    out = stream.start()
    out += stream.encode([Started("up-1", "gpt-x"), TextDelta("Hi"), TextDelta(""), TextDelta(' "you"\n\n')])
    out += stream.encode([TextDelta("!")])
    out += stream.encode([Finished("stop", Usage(1, 2))])
    assert out.decode() == (
        f'data: {HEAD}{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}{{"index":0,"delta":{{"content":"Hi"}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}{{"index":0,"delta":{{"content":" \\"you\\"\\n\\n"}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}{{"index":0,"delta":{{"content":"!"}},"finish_reason":null}}]}}\n\n'
        f'data: {HEAD}{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
        "data: [DONE]\n\n"
    )
    assert stream.content_type == "text/event-stream; charset=utf-8"


def test_usage_is_a_chunk_of_its_own_and_null_before() -> None:
    stream = encoder(include_usage=True)
    *before, usage, done = chunks(
        stream.encode([Started(), TextDelta("a"), Finished("length", Usage(10, 20, 3, 4))])
    )
    assert [chunk["usage"] for chunk in before] == [None, None, None]
    assert before[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    assert done == b"[DONE]"


def test_usage_that_nobody_asked_for_or_reported_is_not_sent() -> None:
    for include_usage, usage in ((False, Usage(1, 1)), (True, None)):
        out = encoder(include_usage=include_usage).encode([Started(), Finished("stop", usage)])
        assert all(chunk == b"[DONE]" or chunk["choices"] for chunk in chunks(out))


def test_the_targets_name_is_shown_unless_it_is_hidden_or_unknown() -> None:
    hidden = Answer("req-1", "assistant", 1, reveal=False)
    assert chunks(encoder().encode([Started("", "gpt-x")]))[0]["model"] == "gpt-x"
    assert chunks(encoder().encode([Started("", "")]))[0]["model"] == "assistant"
    assert (
        chunks(encoder(answer=hidden).encode([Started("", "gpt-x"), TextDelta("a")]))[1]["model"]
        == "assistant"
    )


def test_reasoning_goes_by_its_common_name() -> None:
    out = encoder().encode([Started(), ReasoningDelta("hm"), ReasoningDelta(""), TextDelta("a")])
    assert deltas(out) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "hm"},
        {"content": "a"},
    ]


def test_sources_are_annotations() -> None:
    cited = [Cited("https://a", "A", 0, 1), Cited("", "a document"), Cited("https://b")]
    out = encoder().encode([Started(), TextDelta("a"), *cited, Finished("stop")])
    told = [delta["annotations"] for delta in deltas(out) if "annotations" in delta]
    assert told == [
        [
            {
                "type": "url_citation",
                "url_citation": {"start_index": 0, "end_index": 1, "title": "A", "url": "https://a"},
            }
        ],
        [
            {
                "type": "url_citation",
                "url_citation": {"start_index": 0, "end_index": 0, "title": "", "url": "https://b"},
            }
        ],
    ]


def test_tool_calls_are_numbered_without_the_ones_the_provider_ran() -> None:
    out = encoder().encode(
        [
            Started(),
            ToolCallStarted(0, "s", "web_search", "server"),
            ToolCallDelta(0, '{"q":1}'),
            ToolCallStarted(1, "c1", "f"),
            ToolCallDelta(1, '{"a"'),
            ToolCallDelta(1, ""),
            ToolCallStarted(2, "", "g"),
            ToolCallDelta(1, ":1}"),
            ToolCallDelta(2, "{}"),
            Finished("tool_calls"),
        ]
    )
    pieces = [delta["tool_calls"][0] for delta in deltas(out)[1:-1]]
    made = pieces[2]["id"]
    assert re.fullmatch(r"call_[0-9a-f]{24}", made)
    assert pieces == [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 1, "id": made, "type": "function", "function": {"name": "g", "arguments": ""}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1, "function": {"arguments": "{}"}},
    ]
    assert chunks(out)[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_text_that_comes_before_the_start_opens_the_stream_all_the_same() -> None:
    assert deltas(encoder().encode([TextDelta("a")])) == [
        {"role": "assistant", "content": ""},
        {"content": "a"},
    ]


def test_a_failed_stream_ends_in_an_error_and_no_terminator() -> None:
    assert encoder().fail(UpstreamTruncated()) == (
        b'data: {"error":{"message":"The upstream\'s answer was cut short","type":"api_error",'
        b'"param":null,"code":"truncated"}}\n\n'
    )
    assert encoder(verbatim=True).fail(UpstreamTruncated()) == encoder().fail(UpstreamTruncated())


def test_nothing_is_said_before_the_model_is_and_a_heartbeat_is_a_comment() -> None:
    for stream in (encoder(), encoder(verbatim=True)):
        assert stream.start() == stream.restart() == stream.encode([]) == b""
        assert stream.heartbeat() == b": keep-alive\n\n"


# frames passed on


def test_the_upstreams_frames_are_passed_on_as_they_came() -> None:
    stream = encoder(verbatim=True)
    assert (
        stream.encode([Started("up-1", "gpt-x"), TextDelta("a"), Verbatim(b"data: 1\n\n")]) == b"data: 1\n\n"
    )
    assert stream.encode([TextDelta("b"), Verbatim(b"data: 2\n\ndata: 3\n\n")]) == b"data: 2\n\ndata: 3\n\n"
    assert stream.encode([ReasoningDelta("c")]) == b""
    assert stream.encode([Verbatim(b"data: 4\n\n"), Verbatim(b"data: 5\n\n")]) == b"data: 4\n\ndata: 5\n\n"
    assert stream.encode([Finished("stop", Usage(1, 1))]) == b"data: [DONE]\n\n"


def test_frames_that_stand_behind_the_finish_in_their_batch_come_before_the_end() -> None:
    stream = encoder(verbatim=True, include_usage=True)
    events: list[StreamEvent] = [
        Started("up-1", "gpt-x"),
        Finished("stop", Usage(1, 2)),
        Verbatim(b'data: {"choices":[1]}\n\n'),
    ]
    frame, usage, done = chunks(stream.encode(events))
    assert frame == {"choices": [1]}
    assert (usage["id"], usage["model"], usage["created"], usage["choices"]) == (
        "up-1",
        "gpt-x",
        1790000000,
        [],
    )
    assert usage["usage"]["total_tokens"] == 3
    assert done == b"[DONE]"


# what comes out can be read again

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
some_events = st.lists(st.builds(TextDelta, texts) | st.builds(ReasoningDelta, texts), max_size=12)


@given(st.lists(some_events, max_size=4))
def test_a_decoder_reads_the_same_events_from_the_chunks(batches: list[list[StreamEvent]]) -> None:
    stream = encoder(include_usage=True)
    out = stream.encode([Started("", "m")]) + b"".join(map(stream.encode, batches))
    out += stream.encode([Finished("stop", Usage(1, 2, 0, 1), "stop")])
    said = [event for batch in batches for event in batch if getattr(event, "text", "")]
    assert ChunkDecoder().feed(out) == [
        Started("chatcmpl-req-1", "m"),
        *said,
        Finished("stop", Usage(1, 2, 0, 1), "stop"),
    ]


GOOD = ("ok", "ok_truncated_by_length", "ok_tool_calls", "refusal")


@pytest.mark.parametrize("recorded", corpus.params("openai-chat", where=lambda entry: entry.outcome in GOOD))
@pytest.mark.parametrize("verbatim", [False, True], ids=["events", "verbatim"])
def test_recorded_streams_say_the_same_on_the_other_side(recorded: corpus.Recorded, verbatim: bool) -> None:
    """Whatever the lane, a second decoder behind the gateway hears what a first one hears of the provider
    itself."""
    direct = _heard(ChunkDecoder(), recorded.body)
    decoder = ChunkDecoder(verbatim=verbatim)
    stream = encoder(include_usage=True, verbatim=verbatim)
    out = b"".join(stream.encode(decoder.feed(read)) for read in cuts.random(recorded.body, seed=1))
    out += stream.encode(decoder.close())
    assert out.endswith(b"data: [DONE]\n\n")
    assert out.count(b"data: [DONE]") == 1
    assert _heard(ChunkDecoder(strict=True), out) == direct


def _heard(decoder: ChunkDecoder, body: bytes) -> list[Any]:
    """What is said, in pieces put together; server tools and native words do not cross the events lane."""
    events = decoder.feed(body) + decoder.close()
    calls = {event.index: [event.name, ""] for event in events if isinstance(event, ToolCallStarted)}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls[event.index][1] += event.arguments
    finished = events[-1]
    assert isinstance(finished, Finished)
    return [
        "".join(event.text for event in events if isinstance(event, TextDelta)),
        "".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        calls,
        finished.reason,
        finished.usage,
    ]


# errors

ERRORS: list[tuple[GatewayError, str, str]] = [
    (BadRequest("x", param="n"), "invalid_request_error", "invalid_request"),
    (Unauthorized("unknown_key"), "authentication_error", "invalid_api_key"),
    (Forbidden("x"), "permission_error", "forbidden"),
    (ModelNotFound("x", param="model"), "invalid_request_error", "model_not_found"),
    (RateLimited(1.0, scope="key", resource="requests"), "rate_limit_error", "rate_limit_exceeded"),
    (Unavailable("x"), "server_error", "unavailable"),
    (GatewayError("x"), "server_error", "internal_error"),
    (UpstreamError("bad_request", "x"), "invalid_request_error", "bad_request"),
    (UpstreamError("context_length", "x"), "invalid_request_error", "context_length_exceeded"),
    (UpstreamError("content_policy", "x"), "invalid_request_error", "content_policy_violation"),
    (UpstreamError("rate_limited", "x"), "rate_limit_error", "rate_limit_exceeded"),
    (UpstreamError("billing", "x"), "insufficient_quota", "insufficient_quota"),
    (UpstreamError("bad_credentials", "x"), "api_error", "bad_credentials"),
    (UpstreamError("first_token_timeout", "x"), "api_error", "first_token_timeout"),
    (UpstreamTruncated(), "api_error", "truncated"),
]


@pytest.mark.parametrize(
    ("error", "kind", "code"), ERRORS, ids=[f"{type(row[0]).__name__} {row[2]}" for row in ERRORS]
)
def test_errors_have_openais_shape(error: GatewayError, kind: str, code: str) -> None:
    told = OpenAI().error(error, "req-1")["error"]
    assert told.pop("retry_after", None) == (1.0 if type(error) is RateLimited else None)
    assert told == {"message": error.message, "type": kind, "param": error.param, "code": code}


def test_an_error_says_when_to_come_back_where_that_is_known() -> None:
    assert (
        OpenAI().error(UpstreamError("rate_limited", "x", retry_after=7200.0004), "r")["error"]["retry_after"]
        == 7200.001
    )
    assert "retry_after" not in OpenAI().error(NoCapacity(float("inf"), "requests"), "r")["error"]
