"""The OpenAI backend: its requests, its streams in any cut, what it makes of odd vendors, and its errors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import Backend, with_rules
from sluice.config.types import Secret
from sluice.errors import BadRequest, UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.frontends.openai.request import chat_of
from sluice.model.chat import ChatRequest, Image, Message, Other, Sampling, Text, Tool, ToolCall
from sluice.model.events import (
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
)
from sluice.model.rules import ModelRules
from sluice.wire.sse import EventStream
from sluice_plugins.openai import calls as openai_calls
from sluice_plugins.openai import stream as openai_stream
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.stream import ChunkDecoder
from tests.wire import cuts

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "openai"
DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **top: Any) -> bytes:
    """One frame of a stream whose id and model are "c" and "m"."""
    choices = (
        []
        if delta is None and finish is None
        else [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    )
    return b"data: " + msgspec.json.encode({"id": "c", "model": "m", "choices": choices, **top}) + b"\n\n"


def read(reads: Iterable[bytes], **options: Any) -> list[StreamEvent]:
    decoder = ChunkDecoder(**options)
    events = [event for data in reads for event in decoder.feed(data)]
    return events + decoder.close()


def calls(*deltas: dict[str, Any]) -> bytes:
    return b"".join(chunk({"tool_calls": [delta]}) for delta in deltas) + chunk(finish="tool_calls") + DONE


def function(name: str | None = None, arguments: Any = None, **rest: Any) -> dict[str, Any]:
    return {**rest, "function": {"name": name, "arguments": arguments}}


START, HI, STOP = Started("c", "m"), TextDelta("Hi"), Finished("stop", None, "stop")
HI_FRAMES = chunk({"content": "Hi"}) + chunk(finish="stop")
BOTH = [
    ToolCallStarted(0, "a", "f"),
    ToolCallDelta(0, "{}"),
    ToolCallStarted(1, "b", "g"),
    ToolCallDelta(1, "{}"),
]

STREAMS: list[tuple[str, bytes, list[StreamEvent]]] = [
    ("text", HI_FRAMES + DONE, [START, HI, STOP]),
    ("no terminator but a finish reason", HI_FRAMES, [START, HI, STOP]),
    ("terminator without its empty line", HI_FRAMES + b"data: [DONE]", [START, HI, STOP]),
    ("no space behind the colon", (HI_FRAMES + DONE).replace(b"data: ", b"data:"), [START, HI, STOP]),
    ("carriage returns", (HI_FRAMES + DONE).replace(b"\n", b"\r\n"), [START, HI, STOP]),
    (
        "comments and empty frames",
        b": hi\n\n" + chunk({"content": "Hi"}) + b"data: \n\n:\n\n" + chunk(finish="stop"),
        [START, HI, STOP],
    ),
    ("named events", b"event: message\n" + HI_FRAMES + DONE, [START, HI, STOP]),
    (
        "an object over several lines",
        b'data: {"id":"c","model":"m",\ndata: "choices":[{"delta":{"content":"Hi"}}]}\n\n'
        + chunk(finish="stop"),
        [START, HI, STOP],
    ),
    ("after the terminator", HI_FRAMES + DONE + chunk({"content": "more"}), [START, HI, STOP]),
    ("empty finish reasons", chunk({"content": "Hi"}, "") + chunk({}, "stop"), [START, HI, STOP]),
    (
        "other choices",
        HI_FRAMES + b'data: {"choices":[{"index":1,"delta":{"content":"No"},"finish_reason":"length"}]}\n\n',
        [START, HI, STOP],
    ),
    (
        "a finish reason of the vendor's own",
        chunk({"content": "Hi"}, "eos"),
        [START, HI, Finished("stop", None, "eos")],
    ),
    ("length", chunk({"content": "Hi"}, "max_tokens"), [START, HI, Finished("length", None, "max_tokens")]),
    (
        "a full context",
        chunk({"content": "Hi"}, "model_context_window_exceeded"),
        [START, HI, Finished("length", None, "model_context_window_exceeded")],
    ),
    (
        "filtered",
        chunk({"content": "Hi"}, "content_filter"),
        [START, HI, Finished("content_filter", None, "content_filter")],
    ),
    (
        "a refusal is one",
        chunk({"content": None, "refusal": "Hi"}, "stop"),
        [START, RefusalDelta("Hi"), STOP],
    ),
    (
        "not UTF-8",
        HI_FRAMES.replace(b"Hi", b"\xffHi"),
        [START, TextDelta("\N{REPLACEMENT CHARACTER}Hi"), STOP],
    ),
    (
        "reasoning under either name",
        chunk({"reasoning": "a"}) + chunk({"reasoning_content": "b", "reasoning": "b"}) + HI_FRAMES,
        [START, ReasoningDelta("a"), ReasoningDelta("b"), HI, STOP],
    ),
    (
        "reasoning as parts",
        chunk(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                    {"type": "text", "text": "Hi"},
                ]
            },
            "stop",
        ),
        [START, ReasoningDelta("a"), HI, STOP],
    ),
    (
        "usage behind the finish",
        HI_FRAMES + chunk(usage={"prompt_tokens": 3, "completion_tokens": 2}) + DONE,
        [START, HI, Finished("stop", Usage(3, 2), "stop")],
    ),
    (
        "usage on every chunk, the last counts",
        chunk({"content": "Hi"}, usage={"prompt_tokens": 3, "completion_tokens": 9})
        + chunk({}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 2}),
        [START, HI, Finished("stop", Usage(3, 2), "stop")],
    ),
    (
        "usage that is null at last",
        chunk({"content": "Hi"}, usage={"prompt_tokens": 3, "completion_tokens": 2})
        + chunk({}, "stop", usage=None),
        [START, HI, Finished("stop", Usage(3, 2), "stop")],
    ),
    (
        "usage in Groq's place",
        chunk({"content": "Hi"}, "stop", x_groq={"usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
        [START, HI, Finished("stop", Usage(3, 2), "stop")],
    ),
    (
        "usage in a choice",
        b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop",'
        b'"usage":{"prompt_tokens":3,"completion_tokens":2,"cached_tokens":1}}]}\n\n',
        [START, HI, Finished("stop", Usage(3, 2, 1), "stop")],
    ),
    (
        "usage without choices",
        HI_FRAMES
        + b'data: {"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_cache_hit_tokens":1}}\n\n',
        [START, HI, Finished("stop", Usage(3, 2, 1), "stop")],
    ),
    (
        "calls without an index",
        calls(function("f", "{}", id="a"), function("g", "{}", id="b")),
        [START, *BOTH],
    ),
    (
        "calls that share an index",
        calls(function("f", "{}", id="a", index=0), function("g", "{}", id="b", index=0)),
        [START, *BOTH],
    ),
    (
        "calls that start at one",
        calls(function("f", "{}", id="a", index=1), function("g", "{}", id="b", index=2)),
        [START, *BOTH],
    ),
    (
        "calls in turns",
        calls(
            function("f", "", id="a", index=0),
            function("g", "", id="b", index=1),
            function(None, "1", index=0),
            function(None, "2", index=1),
        ),
        [
            START,
            ToolCallStarted(0, "a", "f"),
            ToolCallStarted(1, "b", "g"),
            ToolCallDelta(0, "1"),
            ToolCallDelta(1, "2"),
        ],
    ),
    (
        "neither index nor id",
        calls(function("f", "{"), function(None, "}"), function("g", "{}")),
        [
            START,
            ToolCallStarted(0, "", "f"),
            ToolCallDelta(0, "{"),
            ToolCallDelta(0, "}"),
            ToolCallStarted(1, "", "g"),
            ToolCallDelta(1, "{}"),
        ],
    ),
    (
        "the name said again",
        calls(function("f", "{", id="a", index=0), function("f", "}", id="a", index=0)),
        [START, ToolCallStarted(0, "a", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}")],
    ),
    (
        "a new id on every delta",
        calls(function("f", "{", id="a", index=0), function(None, "}", id="b", index=0)),
        [START, ToolCallStarted(0, "a", "f"), ToolCallDelta(0, "{"), ToolCallDelta(0, "}")],
    ),
    (
        "a call goes on under a new index",
        calls(
            function("f", '{"a"', id="a", index=0),
            function(None, ":1}", index=1),
            function("g", "{}", id="b", index=1),
        ),
        [
            START,
            ToolCallStarted(0, "a", "f"),
            ToolCallDelta(0, '{"a"'),
            ToolCallDelta(0, ":1}"),
            ToolCallStarted(1, "b", "g"),
            ToolCallDelta(1, "{}"),
        ],
    ),
    (
        "a name with special tokens",
        calls(function("f<|channel|>commentary", "{}", id="a", index=0)),
        [START, *BOTH[:2]],
    ),
    (
        "the name after the id",
        calls(function(None, "", id="a", index=0), function("f", None, index=0)),
        [START, ToolCallStarted(0, "a", "f")],
    ),
    (
        "arguments as an object",
        calls(function("f", {"x": [1, None]}, id="a", index=0)),
        [START, ToolCallStarted(0, "a", "f"), ToolCallDelta(0, '{"x":[1,null]}')],
    ),
    (
        "function_call",
        chunk({"function_call": {"name": "f", "arguments": "{"}})
        + chunk({"function_call": {"arguments": "}"}}, "function_call"),
        [
            START,
            ToolCallStarted(0, "", "f"),
            ToolCallDelta(0, "{"),
            ToolCallDelta(0, "}"),
            Finished("tool_calls", None, "function_call"),
        ],
    ),
    (
        "a whole completion",
        b' {"id":"c","model":"m","choices":[{"index":0,"message":{"content":"Hi","tool_calls":['
        b'{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","function":{"name":"g","arguments":"{}"}}]},'
        b'"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n',
        [START, HI, *BOTH, Finished("tool_calls", Usage(3, 2), "tool_calls")],
    ),
]


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_reads_streams_in_any_cut(body: bytes, expected: list[StreamEvent]) -> None:
    if not isinstance(expected[-1], Finished):
        expected = [*expected, Finished("tool_calls", None, "tool_calls")]
    for reads in cuts.exhaustive(body):
        assert read(reads) == expected, reads


ERROR_FRAME = b'data: {"error":{"message":"Boom","type":"server_error"}}\n\n'
BROKEN: list[tuple[str, bytes, list[StreamEvent], str]] = [
    ("no end", chunk({"content": "Hi"}), [START, HI], "truncated"),
    ("half a frame", chunk({"content": "Hi"}) + b'data: {"choices":[{"fin', [START, HI], "truncated"),
    (
        "a terminator, but neither content nor a finish reason",
        chunk({"role": "assistant"}) + DONE,
        [START],
        "truncated",
    ),
    ("nothing", b"", [], "truncated"),
    ("comments only", b": hi\n\n", [], "truncated"),
    ("an error", chunk({"content": "Hi"}) + ERROR_FRAME, [START, HI], "server_error"),
    ("an error first", ERROR_FRAME, [], "server_error"),
    ("an error behind the finish", HI_FRAMES + ERROR_FRAME + DONE, [START, HI], "server_error"),
    ("an error as text", b'data: {"error":"Boom"}\n\n', [], "stream_error"),
    ("an error event", b'event: error\ndata: {"message":"Boom"}\n\n', [], "stream_error"),
    ("an error event in words", b"event: error\ndata: Boom\n\n", [], "stream_error"),
    ("an error with a status", b'data: {"error":{"message":"Boom","code":429}}\n\n', [], "rate_limited"),
    ("finish reason error", chunk({"content": "Hi"}, "error"), [START, HI], "stream_error"),
    (
        "an end that was a failure of the model behind",
        b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop",'
        b'"native_finish_reason":"error"}]}\n\n',
        [START, HI],
        "stream_error",
    ),
    ("a page", b" <!DOCTYPE html><html><body>Bad gateway", [], "garbled"),
    ("words", b"upstream connect error", [], "garbled"),
    (
        "another dialect",
        b'event: message_start\ndata: {"type":"message_start","message":{}}\n\n',
        [],
        "garbled",
    ),
    ("another document", b'{"type":"message","content":[]}', [], "garbled"),
    ("half a document", b'{"choices":[', [], "garbled"),
    ("an error document", b'{"error":{"message":"Boom"}}', [], "stream_error"),
    ("a list of errors", b'[{"error":{"message":"Boom"}}]', [], "stream_error"),
    ("lines of JSON", b'{"message":{"content":"Hi"}}\n{"done":true}\n', [], "garbled"),
]


@pytest.mark.parametrize(
    ("body", "expected", "kind"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN]
)
def test_gives_what_it_has_and_then_says_what_broke_in_any_cut(
    body: bytes, expected: list[StreamEvent], kind: str
) -> None:
    for reads in cuts.exhaustive(body):
        decoder = ChunkDecoder()
        events: list[StreamEvent] = []

        def run(
            reads: list[bytes] = reads, decoder: ChunkDecoder = decoder, events: list[StreamEvent] = events
        ) -> None:
            for data in reads:
                events.extend(decoder.feed(data))
            events.extend(decoder.close())

        with pytest.raises(UpstreamError) as caught:
            run()
        assert caught.value.kind == kind
        assert [event for event in events if not isinstance(event, Finished)] == expected
        assert (
            kind in ("truncated", "garbled")
            or "Boom" in caught.value.message
            or "ended" in caught.value.message
        )


def test_a_malformed_event_is_skipped_and_counted() -> None:
    body = (
        chunk({"content": "Hi"})
        + b'data: {"choices":[{"delta"\n\ndata: {"choices":7}\n\n'
        + chunk(finish="stop")
    )
    decoder = ChunkDecoder(verbatim=True)
    events = decoder.feed(body)
    assert events == [START, HI, Verbatim(HI_FRAMES)]
    assert decoder.skipped == 2
    assert decoder.close() == [STOP]


def test_a_malformed_event_is_an_error_where_strict() -> None:
    decoder = OpenAI(strict=True).decoder()
    assert decoder.feed(chunk({"content": "Hi"}) + b"data: {oops\n\n" + chunk(finish="stop")) == [START, HI]
    with pytest.raises(UpstreamGarbled):
        decoder.feed(DONE)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UpstreamGarbled):
        read([b"data: " + b"x" * (1 << 20)] * 17)
    with pytest.raises(UpstreamGarbled):
        read([b"data: " + b"x" * 100] * 2, stream=EventStream(150))
    monkeypatch.setattr(openai_stream, "MAX_DOCUMENT", 100)
    with pytest.raises(UpstreamGarbled):
        read([b'{"choices":'] + [b" " * 50] * 2)
    monkeypatch.setattr(openai_calls, "MAX_CALLS", 2)
    with pytest.raises(UpstreamGarbled):
        read([calls(*(function("f", "{}", id=str(index), index=index) for index in range(3)))])


USAGE_FRAME = chunk(usage={"prompt_tokens": 3, "completion_tokens": 2})


@pytest.mark.parametrize(
    ("body", "forwarded"),
    [
        (HI_FRAMES + DONE, HI_FRAMES),
        (HI_FRAMES + USAGE_FRAME + DONE, HI_FRAMES),
        (b": hi\n\nevent: x\n" + HI_FRAMES + b"data: \n\n" + DONE, HI_FRAMES),
        (HI_FRAMES.replace(b"\n", b"\r\n"), HI_FRAMES),
        (HI_FRAMES + ERROR_FRAME + chunk({"content": "lost"}), HI_FRAMES),
        (chunk(prompt_filter_results=[]) + HI_FRAMES, chunk(prompt_filter_results=[]) + HI_FRAMES),
        (
            chunk({"content": "Hi"}, "stop", citations=["x"]),
            chunk({"content": "Hi"}, "stop", citations=["x"]),
        ),
        (b'data: {"choices":\ndata: []}\n\n', b'data: {"choices":\ndata: []}\n\n'),
        (DONE, b""),
        (USAGE_FRAME, b""),
    ],
)
def test_verbatim_forwards_all_frames_but_those_of_the_encoder_in_any_cut(
    body: bytes, forwarded: bytes
) -> None:
    for reads in cuts.exhaustive(body):
        decoder = ChunkDecoder(verbatim=True)
        raw = b""
        for data in reads:
            try:
                batch = decoder.feed(data)
            except UpstreamError:
                break
            assert not any(isinstance(event, Verbatim) for event in batch[:-1])
            raw += b"".join(event.data for event in batch if isinstance(event, Verbatim))
        assert raw == forwarded


def test_verbatim_hands_a_plain_read_on_without_a_copy() -> None:
    decoder = ChunkDecoder(verbatim=True)
    batch = decoder.feed(HI_FRAMES)
    assert isinstance(batch[-1], Verbatim)
    assert batch[-1].data is HI_FRAMES


def test_verbatim_turns_a_whole_completion_into_a_chunk() -> None:
    body = b'{"id":"c","model":"m","object":"x","choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}'
    *events, raw = [event for event in read([body], verbatim=True) if not isinstance(event, Finished)]
    assert events == [START, HI]
    assert isinstance(raw, Verbatim)
    said = msgspec.json.decode(raw.data.removeprefix(b"data: "))
    assert (said["object"], said["choices"][0]["delta"]) == ("chat.completion.chunk", {"content": "Hi"})


GOLDENS: dict[str, list[StreamEvent]] = {
    "tools.sse": [
        Started("chatcmpl-g1", "golden-1"),
        ReasoningDelta("Two cities, "),
        ReasoningDelta("two calls."),
        TextDelta("Grüße 🌍"),
        ToolCallStarted(0, "call_a", "weather"),
        ToolCallDelta(0, '{"city":'),
        ToolCallDelta(0, '"Ulm"}'),
        ToolCallStarted(1, "call_b", "weather"),
        ToolCallDelta(1, '{"city":"Bern"}'),
        Finished("tool_calls", Usage(input=30, output=20, cached_input=16, reasoning=7), "tool_calls"),
    ],
    "filtered.sse": [
        Started("chatcmpl-g2", "golden-2"),
        TextDelta("First"),
        Finished("content_filter", None, "content_filter"),
    ],
}


@pytest.mark.parametrize("name", GOLDENS)
def test_reads_the_golden_streams_in_any_cut(name: str) -> None:
    body = (GOLDEN / name).read_bytes()
    for reads in (
        [body],
        *cuts.single(body, 3),
        cuts.bytewise(body),
        *(cuts.random(body, seed) for seed in range(10)),
    ):
        assert read(reads) == GOLDENS[name]


# requests


def body_of(backend: OpenAI, chat: ChatRequest, model: str = "gpt") -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(backend.request(chat, model).body)
    return decoded


HELLO = (Message("user", (Text("Hello"),)),)


def test_a_request_of_the_same_dialect_passes_through() -> None:
    wire = {
        "model": "alias",
        "messages": [{"role": "user", "content": "Hello"}],
        "logit_bias": {"1": 2},
        "stream_options": {"x": 1},
    }
    chat = ChatRequest("openai", "alias", HELLO, stream=False, wire=wire)
    assert body_of(OpenAI(), chat) == {
        **wire,
        "model": "gpt",
        "stream": True,
        "stream_options": {"x": 1, "include_usage": True},
    }
    assert wire["model"] == "alias"
    assert wire["stream_options"] == {"x": 1}


@pytest.mark.parametrize("options", [None, "x", {"include_usage": False}])
def test_usage_is_asked_for_whatever_the_caller_said(options: Any) -> None:
    chat = ChatRequest("openai", None, HELLO, wire={"messages": [], "stream_options": options})
    assert body_of(OpenAI(), chat)["stream_options"] == {"include_usage": True}
    assert body_of(OpenAI(include_usage=False), chat)["stream_options"] == options


def test_the_limit_is_called_what_the_model_knows() -> None:
    newer = OpenAI(max_tokens_field="max_completion_tokens")
    translated = body_of(newer, ChatRequest("widget", None, HELLO, sampling=Sampling(max_tokens=5)))
    assert (translated["max_completion_tokens"], "max_tokens" in translated) == (5, False)


def test_a_request_is_built_from_the_vocabulary() -> None:
    call = ToolCall("call_1", "weather", '{"city":"Ulm"}')
    chat = ChatRequest(
        "anthropic",
        "alias",
        (
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("What is it?"), Image("https://example.com/a.png"))),
            Message("assistant", (), tool_calls=(call,)),
            Message("tool", (Text("sunny"),), tool_call_id="call_1"),
            Message("assistant", ()),
        ),
        sampling=Sampling(max_tokens=9, temperature=0.0, top_p=0.5, stop=("END",), seed=7),
        tools=(Tool("weather", "Tells it", {"type": "object"}), Tool("ping")),
        tool_choice=("function", "weather"),
        parallel_tool_calls=False,
        response_format={"type": "json_object"},
        wire={"never": "used"},
    )
    assert body_of(OpenAI(), chat) == {
        "model": "gpt",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            },
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Ulm"}'},
                    },
                ],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            {"role": "assistant", "content": ""},
        ],
        "max_tokens": 9,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ["END"],
        "seed": 7,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tells it",
                    "parameters": {"type": "object", "properties": {}},
                },
            },
            {"type": "function", "function": {"name": "ping"}},
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_object"},
    }


def test_what_nobody_said_is_not_sent() -> None:
    body = body_of(OpenAI(include_usage=False), ChatRequest("widget", None, HELLO, tool_choice="auto"))
    assert body == {
        "model": "gpt",
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
    }


def test_an_image_keeps_how_closely_to_look_at_it() -> None:
    chat = chat_of(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": detail}}
                    ],
                }
                for detail in ("low", None, 5)
            ]
        }
    )
    sent = body_of(OpenAI(), msgspec.structs.replace(chat, dialect="", wire=None, body=b""))["messages"]
    assert [message["content"][0]["image_url"].get("detail") for message in sent] == ["low", None, None]


def test_content_of_another_dialect_is_refused_and_of_its_own_passed_on() -> None:
    audio = (Message("user", (Other("input_audio", {"type": "input_audio", "x": 1}),)),)
    for dialect in ("openai", ""):  # the widget's messages are OpenAI's
        sent = body_of(OpenAI(), ChatRequest(dialect, None, audio))
        assert sent["messages"][0]["content"] == [{"type": "input_audio", "x": 1}]
    other = (Message("user", (Other("hologram", {"type": "hologram"}),)),)
    with pytest.raises(BadRequest, match="hologram"):
        OpenAI().request(ChatRequest("anthropic", None, other), "gpt")


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/chat/completions"),
        (
            "https://x.example/openai/deployments/d?api-version=1",
            "https://x.example/openai/deployments/d/chat/completions?api-version=1",
        ),
    ],
)
def test_the_url_keeps_path_and_query(base_url: str, url: str) -> None:
    assert OpenAI(base_url=base_url).request(ChatRequest("widget", None, HELLO), "m").url == url


def test_headers_are_made_once_and_hold_no_credentials() -> None:
    backend = OpenAI(
        api_key=Secret("sk-very-secret"),
        organization="o",
        project="p",
        headers={"X-Title": "t", "Accept": "*/*"},
    )
    first, second = (backend.request(ChatRequest("widget", None, HELLO), "m").headers for _ in range(2))
    assert first is second
    assert dict(first) == {
        "accept": "*/*",
        "content-type": "application/json",
        "openai-organization": "o",
        "openai-project": "p",
        "x-title": "t",
    }
    assert backend.credentials() == (("authorization", "Bearer sk-very-secret"),)
    assert OpenAI().credentials() == ()
    assert "very-secret" not in repr(backend)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "api.openai.com"},
        {"base_url": "ftp://x/"},
        {"headers": {"a": "b\r\nc: d"}},
        {"bas_url": "x"},
    ],
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(options, OpenAI)


def test_it_is_a_backend_over_http() -> None:
    backend = OpenAI()
    assert isinstance(backend, Backend)
    assert (backend.dialect, backend.transport()) == ("openai", None)


def test_an_error_answer_is_understood() -> None:
    body = b'{"error":{"message":"Slow down","type":"requests","code":"rate_limit_exceeded"}}'
    error = OpenAI().error(429, {"retry-after-ms": "1500"}, body)
    assert (error.kind, error.message, error.status, error.retry_after) == (
        "rate_limited",
        "Slow down",
        429,
        1.5,
    )


def test_a_cut_is_the_type_that_says_so() -> None:
    with pytest.raises(UpstreamTruncated):
        read([chunk({"content": "Hi"})])


CALLS = [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "toolu_01", "type": "function", "function": {"name": "f"}}],
    },
    {"role": "tool", "tool_call_id": "toolu_01", "content": "r"},
]


@pytest.mark.parametrize("translated", [False, True])
def test_ids_of_calls_are_made_to_fit_in_both_forms(translated: bool) -> None:
    chat = Frontend().parse(msgspec.json.encode({"messages": [{"role": "user", "content": "x"}, *CALLS]}), {})
    chat = msgspec.structs.replace(chat, wire=None, body=b"") if translated else chat
    mistral = with_rules(OpenAI(), ModelRules(tool_ids="[A-Za-z0-9]{9}"))
    _, called, result = body_of(mistral, chat)["messages"]
    assert called["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9


def test_a_translated_request_follows_the_rules_too() -> None:
    rules = ModelRules(
        roles={"system": "developer"},
        rename={"max_tokens": "max_completion_tokens"},
        default={"store": False},
        force={"seed": 1},
    )
    chat = ChatRequest("", None, (Message("system", (Text("s"),)), *HELLO), sampling=Sampling(5, seed=7))
    sent = body_of(with_rules(OpenAI(), rules), chat)
    assert [message["role"] for message in sent["messages"]] == ["developer", "user"]
    assert (sent["max_completion_tokens"], sent["store"], sent["seed"], "max_tokens" in sent) == (
        5,
        False,
        1,
        False,
    )
    explicit = with_rules(OpenAI(max_tokens_field="max_tokens"), rules)
    assert body_of(explicit, chat)["max_tokens"] == 5
